"""The replay buffer: a FIFO window over a run's own chain, and stateless draws from it.

The window of iteration t is a pure function of what the run and its ancestors admitted up to t. A draw derives
from (seed, iteration, update) alone, so a restarted run draws what the first attempt drew and a checkpoint
holds no random state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from reval_core.registry import resolve
from reval_core.store import statements as sql

ENTRY_SCHEMA = pa.schema(
    [
        ("position", pa.int32()),
        ("trajectory_id", pa.string()),
        ("gold_digest", pa.string()),
        ("reward_used", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Entry:
    """One admitted trajectory with the reward that learning uses for it."""

    iteration: int
    position: int
    trajectory_id: str
    reward: float
    group_id: str


def admit(
    connection: duckdb.DuckDBPyConnection, run_id: str, iteration: int, verifier_id: str, entries: pa.Table
) -> None:
    """Write a round's replay entries; doing it twice changes nothing."""
    sql.rows(
        connection,
        "replay",
        "add_entries",
        {"part": entries},
        run_id=run_id,
        iteration=iteration,
        verifier_id=verifier_id,
    )


def entries(connection: duckdb.DuckDBPyConnection, run_id: str, iteration: int) -> list[Entry]:
    """What one iteration of the run's chain admitted: the fresh batch, whole, whatever the window's capacity."""
    return _rows(sql.table(connection, "replay", "entries", run_id=run_id, iteration=iteration))


def window(connection: duckdb.DuckDBPyConnection, run_id: str, iteration: int, capacity: int) -> list[Entry]:
    """The last ``capacity`` entries of the run's chain up to ``iteration``, oldest first."""
    return _rows(sql.table(connection, "replay", "window", run_id=run_id, iteration=iteration, capacity=capacity))


def whole_groups(connection: duckdb.DuckDBPyConnection, run_id: str, iteration: int, capacity: int) -> list[Entry]:
    """The window without a group that its far edge cuts, for objectives that compare a group's responses."""
    found = window(connection, run_id, iteration, capacity + 1)
    if len(found) <= capacity:  # it reaches back to the first entry, nothing is cut
        return found
    older, *inside = found
    return [entry for entry in inside if entry.group_id != older.group_id]


def _rows(found: pa.Table) -> list[Entry]:
    columns = [found.column(name).to_pylist() for name in found.column_names]
    return [Entry(*row) for row in zip(*columns, strict=True)]


def random_keys(count: int, seed: int, iteration: int, update: int) -> np.ndarray:
    """[count] uniform float64 keys that depend on nothing but the arguments."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, iteration, update]))).random(count)


def draw(entries: Sequence[Entry], size: int, *, seed: int, iteration: int, update: int) -> list[Entry]:
    """Uniform draw without replacement, in drawn order.

    Args:
        entries: the window, in its own order.
        size: trajectories wanted; a smaller window is taken whole.
        seed, iteration, update: what the draw derives from.
    """
    order = np.argsort(random_keys(len(entries), seed, iteration, update), kind="stable")[:size]
    return [entries[index] for index in order]


def draw_groups(entries: Sequence[Entry], size: int, *, seed: int, iteration: int, update: int) -> list[Entry]:
    """Uniform draw of whole groups (all responses of one prompt of one batch) until ``size`` is reached."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.group_id, []).append(entry)
    names = list(groups)
    drawn: list[Entry] = []
    for index in np.argsort(random_keys(len(names), seed, iteration, update), kind="stable"):
        if len(drawn) >= size:
            break
        drawn += groups[names[index]]
    return drawn


Strategy = Callable[..., list[Entry]]
"""``draw(entries, size, *, seed, iteration, update)``; it must depend on nothing but its arguments."""

DRAWS: Mapping[str, Strategy] = {"uniform": draw}
"""Registered strategies; another one is ``package.module:function``."""


def strategy(name: str, *, whole_groups: bool) -> Strategy:
    """The draw that the configuration names, by whole groups where the objective compares a group's responses.

    Raises:
        ConfigError: no draw has that name.
    """
    found: Strategy = resolve("draw", name, DRAWS)
    return draw_groups if whole_groups and found is draw else found
