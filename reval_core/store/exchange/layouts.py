"""The two layouts of an export: folders by run and iteration, and a data set of the Hugging Face hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from reval_core.store.exchange.columns import HUB_SCHEMA, PARTITIONS, SLICE_BYTES, for_hub

SHARD_BYTES = 500 * 10**6
"""A file of the layout ``hf`` at most, about: what the hub's viewer and loaders take well."""
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""Folder of rows without a run or iteration; readers of hive partitions take it for null."""


class Writer(Protocol):
    """Writes tables of `columns.SCHEMA` into a folder."""

    def write(self, table: pa.Table) -> None:
        """Write the next rows."""

    def close(self) -> list[Path]:
        """Finish all files and return them."""


class Partitions:
    """Layout ``parquet``: ``run_id=.../iteration=.../part-00000.parquet``. A file lies within one slice."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Path] = []
        self._parts: Counter[Path] = Counter()

    def write(self, table: pa.Table) -> None:
        """Write a file for each run and iteration of the slice."""
        keys = zip(*(table.column(name).to_pylist() for name in PARTITIONS), strict=True)
        content = table.drop_columns(list(PARTITIONS))
        start = 0
        for key, rows in groupby(keys):
            count = len(list(rows))
            self._write(key, content.slice(start, count))
            start += count

    def _write(self, key: tuple[str | None, int | None], rows: pa.Table) -> None:
        names = (f"{name}={_told(value)}" for name, value in zip(PARTITIONS, key, strict=True))
        folder = self._folder.joinpath(*names)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"part-{self._parts[folder]:05d}.parquet"
        self._parts[folder] += 1
        with _open(path, rows.schema) as file:
            file.write_table(rows)
        self._files.append(path)

    def close(self) -> list[Path]:
        """Every file is whole already."""
        return self._files


class Shards:
    """Layout ``hf``: ``data/train-00000-of-00007.parquet``, each of about `SHARD_BYTES` at most."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._data.mkdir()
        self._files: list[Path] = []
        self._open: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Write the slice as a row group; a shard that is nearly full is closed first."""
        if self._open is not None and self._files[-1].stat().st_size > SHARD_BYTES - SLICE_BYTES:
            self._close()
        if self._open is None:
            self._files.append(self._data / f"{len(self._files):05d}.parquet")
            self._open = _open(self._files[-1], HUB_SCHEMA)
        self._open.write_table(for_hub(table), row_group_size=table.num_rows)

    def close(self) -> list[Path]:
        """Finish the last shard and give each its name, now that their number is known."""
        self._close()
        total = len(self._files)
        return [path.rename(self._data / f"train-{i:05d}-of-{total:05d}.parquet") for i, path in enumerate(self._files)]

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


LAYOUTS: Mapping[str, type[Partitions] | type[Shards]] = {"parquet": Partitions, "hf": Shards}


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)


def _told(value: str | int | None) -> str:
    """A partition's value as a folder's name."""
    return NO_VALUE if value is None else quote(str(value), safe="")
