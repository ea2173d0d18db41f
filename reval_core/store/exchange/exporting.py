"""Writes responses of the store as Parquet files: slice by slice, into a folder beside, renamed at the end.

A run may go on meanwhile: every read has a short connection of its own, and between two of them the database is free.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reval_core.errors import StoreError
from reval_core.store import Store
from reval_core.store import statements as sql
from reval_core.store.exchange.card import card
from reval_core.store.exchange.layouts import LAYOUTS, Writer
from reval_core.store.exchange.selection import Selection, places, responses, slices
from reval_core.store.exchange.tally import Step, no_step


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    rows: int
    files: int
    size: int
    """Bytes on disk."""
    without_tokens: int
    """Chosen responses whose tokens are not in the store; they were left out."""


def export(store: Store, dest: Path, layout: str, selection: Selection, step: Step = no_step) -> Exported:
    """Write the selected responses to a new folder.

    Args:
        store: read in short connections, at most about `SLICE_BYTES` of payload each.
        dest: the folder; there must be none yet.
        layout: a name of `LAYOUTS`.
        selection: which responses.
        step: told how far it is.

    Raises:
        StoreError: the folder exists, nothing is selected, or the disk takes no more; no half export is left.
    """
    if dest.exists():
        raise StoreError(f"{dest} exists already. Name another folder, or remove this one first.")
    with store.read() as connection:
        found = places(connection, selection)
    stored = found.filter(found.column("kept"))
    if not stored.num_rows:
        raise StoreError(
            f'No response is selected ({_words(selection)}). `reval sql "SELECT purpose, run_id, count(*) FROM '
            'trajectories GROUP BY ALL"` shows what there is.'
        )
    with _aside(dest) as folder:
        writer: Writer = LAYOUTS[layout](folder)
        done = 0
        for piece in slices(stored):
            with store.read() as connection:
                rows = responses(connection, piece)
            writer.write(rows)
            done += rows.num_rows
            step(done, stored.num_rows)
        files = writer.close()
        if layout == "hf":
            with store.read() as connection:
                origins = sql.table(connection, "exchange", "origins", {"chosen": stored}).to_pylist()
            (folder / "README.md").write_text(card(dest.name, origins), encoding="utf-8")
        size = sum(path.stat().st_size for path in files)
    return Exported(stored.num_rows, len(files), size, found.num_rows - stored.num_rows)


def _words(selection: Selection) -> str:
    run = f", run {selection.run_id}" if selection.run_id else ""
    where = f", where {selection.where}" if selection.where != "true" else ""
    return f"{' and '.join(selection.purposes)}{run}{where}"


@contextmanager
def _aside(dest: Path) -> Iterator[Path]:
    """A folder beside ``dest`` that takes its name when the block is done, and is gone when it fails."""
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{dest.name}.", suffix=".tmp", dir=dest.parent))
        try:
            yield folder
            folder.chmod(0o755)  # mkdtemp's are for the owner alone
            folder.rename(dest)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"{dest} cannot be written: {error.strerror or error}. Nothing was left there.") from error
