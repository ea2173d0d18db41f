"""Takes exported files back into a store: checked before anything of a file goes in, and as often as one likes.

Every id that can be computed from the row is computed again, so that a file which was edited, or mixed up by another
tool, is refused with its row named. What a run made of a response (rewards used, updates) is the run's own and stays in
the file; responses, verdicts, scores and problems come back as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reval_core.store import Store
from reval_core.store import statements as sql
from reval_core.store.exchange.checks import Unfit, check
from reval_core.store.exchange.columns import RESTORED, SCHEMA, SLICE_BYTES, from_hub
from reval_core.store.exchange.tally import Step, Tally, no_step

_MARKS = {"trajectory_id", "batch_id", "prompt_ids", "response_ids"}
"""Columns that tell an exported file from one of another system."""
_ROWS = 256
"""Rows decoded at once."""
_INTO = (
    ("exchange", "add_problems"),
    ("exchange", "add_sources"),
    ("exchange", "add_golds"),
    ("exchange", "add_batches"),
    ("exchange", "add_foreign_policies"),
    ("trajectories", "add_prompts"),
    ("trajectories", "add_payloads"),
    ("exchange", "add_trajectories"),
    ("exchange", "add_verifiers"),
    ("exchange", "add_verdicts"),
    ("exchange", "add_reference_scores"),
)
"""Statements that take a part in; payloads come before the rows that say that they are there."""


def is_export(path: Path) -> bool:
    """Whether a Parquet file has the columns of an export.

    Raises:
        OSError, pa.ArrowInvalid: it is no readable Parquet file.
    """
    return set(pq.read_schema(path).names) >= _MARKS


def import_export(store: Store, path: Path, step: Step = no_step) -> Tally:
    """Take one exported file in: the whole of it is checked first, then it goes in by slices.

    Doing it twice changes nothing, and an import that was cut short is finished by the next one.

    Args:
        store: prepared.
        path: a Parquet file of either layout.
        step: told how far it is.

    Returns:
        What became of the rows. A file with a row that does not hold is refused as a whole.
    """
    total = pq.read_metadata(path).num_rows
    tally = Tally(read=total)
    try:
        start = 0
        for rows in _slices(path):
            check(rows, start)
            start += rows.num_rows
    except (Unfit, OSError, pa.ArrowInvalid) as error:
        tally.refuse("in a file that was refused as a whole", f"{path}: {error}", total)
        return tally
    for rows in _slices(path):
        part = _each_once(rows)
        with store.write() as connection:
            known, differing = _append(connection, part)
        tally.new += part.num_rows - known
        tally.known += known - differing + rows.num_rows - part.num_rows
        if differing:
            tally.refuse("that differ from the stored response of the same id, which stays", str(path), differing)
        step(tally.new + tally.known + tally.left_out, total)
    return tally


def _append(connection: duckdb.DuckDBPyConnection, part: pa.Table) -> tuple[int, int]:
    """Append a part; (rows that were known, of these with another response)."""
    ((known, differing),) = sql.rows(connection, "exchange", "counts", {"part": part})
    for area, name in _INTO:
        sql.rows(connection, area, name, {"part": part})
    return known, differing


def _slices(path: Path) -> Iterator[pa.Table]:
    """The file's rows under our names and types, about `SLICE_BYTES` at once."""
    held: list[pa.RecordBatch] = []
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            held.append(batch)
            if sum(some.nbytes for some in held) > SLICE_BYTES:
                yield _ours(from_hub(pa.Table.from_batches(held)))
                held = []
    if held:
        yield _ours(from_hub(pa.Table.from_batches(held)))


def _ours(table: pa.Table) -> pa.Table:
    missing = [name for name in RESTORED if name not in table.column_names]
    if missing:
        raise Unfit(f"it lacks the column {missing[0]}, which an export has")
    wanted = pa.schema([pa.field(name, SCHEMA.field(name).type) for name in RESTORED])
    try:
        typed = table.select(RESTORED).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise Unfit(f"its columns have other types than those of an export: {error}") from error
    return typed.rename_columns(["prompt_text" if name == "prompt" else name for name in RESTORED])


def _each_once(table: pa.Table) -> pa.Table:
    """The table without the repetitions of a response."""
    _, first = np.unique(table.column("trajectory_id").to_numpy(zero_copy_only=False), return_index=True)
    return table if len(first) == table.num_rows else table.take(pa.array(np.sort(first)))
