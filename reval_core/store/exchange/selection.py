"""Which responses an export holds, and the reading of them in slices, each with a short connection of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from reval_core.errors import StoreError
from reval_core.store import payloads
from reval_core.store import statements as sql
from reval_core.store.exchange.columns import SCHEMA, SLICE_BYTES

PURPOSES = ("training", "evaluation", "imported")
_BYTES_A_TOKEN = 8
"""A token id and about as much text."""
_BYTES_A_ROW = 1024
"""Ids, verdicts and scores of a response, about."""
_CHOSEN = "SELECT trajectory_id, {run} AS run_id, iteration, gold, status, reward, answer, reward_used FROM {view} AS t"


@dataclass(frozen=True)
class Selection:
    """What is exported."""

    run_id: str | None = None
    """One run's responses with the verdicts and rewards that it used, its ancestors' rounds before the fork included;
    None: every response once, under the run that sampled it."""
    purposes: tuple[str, ...] = ("training",)
    """Some of `PURPOSES`."""
    where: str = "true"
    """SQL condition on the view ``run_trajectories`` for a run's training responses, else on ``trajectories``."""


def places(connection: duckdb.DuckDBPyConnection, selection: Selection) -> pa.Table:
    """One row per chosen response in the order of export: what the views show of it, where its payload lies, its size.

    ``payload`` is null where the tokens are not in the database, ``kept`` false where they are in no archive either.
    It holds about 250 bytes a response, the only thing that grows with an export.

    Raises:
        StoreError: the condition is no SQL condition on the view's columns, or a run is asked for what no run has.
    """
    chosen = pa.concat_tables([_chosen(connection, selection, *part) for part in _parts(selection)])
    return sql.table(
        connection,
        "exchange",
        "places",
        {"chosen": chosen},
        bytes_a_token=_BYTES_A_TOKEN,
        bytes_a_row=_BYTES_A_ROW,
    )


def _parts(selection: Selection) -> list[tuple[str, str, str]]:
    """(view, condition, run_id shown) of the queries that make up a selection."""
    if selection.run_id is None:
        purposes = ", ".join(f"'{purpose}'" for purpose in selection.purposes)
        return [("trajectories", f"purpose IN ({purposes})", "run_id")]
    evaluated = "SELECT batch_id FROM evaluations WHERE run_id = $run"
    parts = {
        "training": ("run_trajectories", "run_id = $run", "run_id"),
        "evaluation": ("trajectories", f"purpose = 'evaluation' AND batch_id IN ({evaluated})", "$run"),
    }
    found = [parts[purpose] for purpose in selection.purposes if purpose in parts]
    if not found:
        raise StoreError("Imported responses belong to no run; select them without one.")
    return found


def _chosen(connection: duckdb.DuckDBPyConnection, selection: Selection, view: str, which: str, run: str) -> pa.Table:
    # on lines of its own, so that a comment at the end of the condition ends there
    text = f"{_CHOSEN.format(run=run, view=view)} WHERE {which} AND (\n{selection.where}\n)"
    values = {"run": selection.run_id} if selection.run_id is not None else {}
    try:
        return sql.arrow_table(connection, text, values)
    except duckdb.Error as error:
        raise StoreError(
            f"The condition {selection.where!r} on the view {view} failed: {error}\n"
            f"Its columns: SELECT column_name, comment FROM duckdb_columns() WHERE table_name = '{view}'."
        ) from error


def slices(found: pa.Table) -> Iterator[pa.Table]:
    """The places in pieces of about `SLICE_BYTES`, order kept."""
    ends = np.cumsum(found.column("size").to_numpy())
    start = 0
    while start < found.num_rows:
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + SLICE_BYTES, side="right")))
        yield found.slice(start, stop - start)
        start = stop


def responses(connection: duckdb.DuckDBPyConnection, piece: pa.Table) -> pa.Table:
    """The rows of a slice as a table of `columns.SCHEMA`; within a round, batches and their groups together.

    Raises:
        StoreError: payloads have moved since the places were read, or were dropped.
    """
    places = zip(piece.column("trajectory_id").to_pylist(), piece.column("payload").to_pylist(), strict=True)
    archived = payloads.archived(connection, [name for name, place in places if place is None])
    found = sql.table(connection, "exchange", "responses", {"wanted": piece, "archived": archived})
    if found.num_rows != piece.num_rows:
        raise StoreError(
            f"{piece.num_rows - found.num_rows} responses were moved or removed while they were exported; nothing was "
            "written. Export again."
        )
    return found.cast(SCHEMA)
