"""The replay buffer: a FIFO window over a run's own chain, and stateless draws from it.

The window of iteration t is a pure function of what the run and its ancestors admitted up to t. A draw derives
from (seed, iteration, update) alone, so a restarted run draws what the first attempt drew and a checkpoint
holds no random state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature
from itertools import islice

import duckdb
import numpy as np
import pyarrow as pa

from reval_core.config_replay import ReplayConfig
from reval_core.errors import ConfigError
from reval_core.registry import resolve
from reval_core.store import statements as sql
from reval_core.store.draws import DRAWS, NEEDS_RESIDUALS, Drawn, Strategy, Window, generator

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
    problem_id: str
    weight: float = 1.0
    """Importance weight with which it was drawn."""


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


def window(connection: duckdb.DuckDBPyConnection, run_id: str, iteration: int, how: ReplayConfig) -> Window:
    """What the iteration may draw: the last entries of the run's chain up to it, as far as the capacity reaches.

    It costs a few numbers for each round, whatever the rounds hold.
    """
    found = sql.table(connection, "replay", "admitted", run_id=run_id, iteration=iteration)
    rounds, counts = (found.column(name).to_numpy().astype(np.int64) for name in ("iteration", "entries"))
    skipped = 0
    if how.capacity is not None and how.unit == "rounds":
        rounds, counts = rounds[-how.capacity :], counts[-how.capacity :]
    elif how.capacity is not None:
        newest_first = np.cumsum(counts[::-1])
        reach = int(np.searchsorted(newest_first, how.capacity)) + 1
        rounds, counts = rounds[-reach:], counts[-reach:].copy()
        skipped = max(0, int(counts.sum()) - how.capacity)
        if skipped:
            counts[0] -= skipped
    whole = Window(rounds, counts, skipped)
    return whole.before(iteration) if how.excludes_fresh else whole


def entries_of(connection: duckdb.DuckDBPyConnection, run_id: str, found: Window) -> list[Entry]:
    """All entries of a window, oldest first."""
    return _at(connection, run_id, found, np.arange(found.size), np.ones(found.size))


def draw(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    iteration: int,
    how: ReplayConfig,
    *,
    size: int,
    seed: int,
    updates: Sequence[int],
    whole_groups: bool = False,
) -> list[list[Entry]]:
    """What the updates of an iteration are trained on, one list of ``size`` entries for each, in drawn order.

    Args:
        connection: of a read.
        run_id, iteration: whose window.
        how: window and strategy.
        size: trajectories wanted; a smaller window is taken whole.
        seed: of the run; the draw of an update derives from (seed, iteration, update).
        updates: numbers of the updates.
        whole_groups: draw all responses of a prompt of a batch together, until the size is reached.

    Raises:
        ConfigError: no strategy has that name, or it takes other arguments.
    """
    found = window(connection, run_id, iteration, how)
    if whole_groups:
        groups = _groups(connection, run_id, found)
        drawn = [_whole(groups, size, generator(seed, iteration, update)) for update in updates]
    else:
        pick = strategy(how)
        if pick in NEEDS_RESIDUALS or getattr(pick, "needs_residuals", False):
            found = replace(found, residuals=_residuals(connection, run_id, iteration, found))
        drawn = [
            pick(found, size, generator(seed, iteration, update), iteration=iteration, **how.draw_args)
            for update in updates
        ]
    places = np.concatenate([some.places for some in drawn]) if drawn else np.zeros(0, np.int64)
    weights = np.concatenate([some.weights for some in drawn]) if drawn else np.zeros(0)
    rows = iter(_at(connection, run_id, found, places, weights))
    return [list(islice(rows, len(some.places))) for some in drawn]


def strategy(how: ReplayConfig) -> Strategy:
    """The strategy that the configuration names.

    Raises:
        ConfigError: none has that name, or it takes other arguments.
    """
    found: Strategy = resolve("draw", how.draw, DRAWS)
    try:
        signature(found).bind("window", "size", "rng", iteration=0, **how.draw_args)
    except TypeError as error:
        raise ConfigError(f"replay.draw_args do not fit the draw {how.draw!r}: {error}.") from error
    return found


def probe(how: ReplayConfig) -> None:
    """Draw once from a toy window, so that arguments which do not fit are refused before anything is sampled.

    Raises:
        ConfigError: no strategy has that name, or it does not work with these arguments.
    """
    pick = strategy(how)
    toy = Window(np.array([0, 1]), np.array([2, 2]), residuals=np.array([1.0, -2.0, np.nan, 0.5]))
    try:
        pick(toy, 2, generator(0, 1, 0), iteration=1, **how.draw_args)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"replay.draw_args {how.draw_args} do not fit the draw {how.draw!r}: {error}.") from error


def _at(
    connection: duckdb.DuckDBPyConnection, run_id: str, found: Window, places: np.ndarray, weights: np.ndarray
) -> list[Entry]:
    iterations, positions = found.locate(places)
    wanted = pa.table(
        {
            "place": np.arange(len(places)),
            "iteration": iterations.astype(np.int32),
            "position": positions.astype(np.int32),
            "weight": weights,
        }
    )
    rows = sql.table(connection, "replay", "entries_at", {"wanted": wanted}, run_id=run_id)
    return _rows(rows)


def _groups(connection: duckdb.DuckDBPyConnection, run_id: str, found: Window) -> list[np.ndarray]:
    """Places of each group that lies whole in the window, oldest first."""
    if not found.size:
        return []
    first, last = int(found.rounds[0]), int(found.rounds[-1])
    rows = sql.table(connection, "replay", "groups", run_id=run_id, first=first, last=last)
    index = np.searchsorted(found.rounds, rows.column("iteration").to_numpy())
    before = np.cumsum(found.counts) - found.counts
    begins = before[index] - np.where(index == 0, found.skipped, 0)  # the place of a round's position 0
    places = [begin + np.array(own) for begin, own in zip(begins, rows.column("positions").to_pylist(), strict=True)]
    return [group for group in places if group[0] >= 0]


def _whole(groups: list[np.ndarray], size: int, rng: np.random.Generator) -> Drawn:
    """Groups in a random order until the size is reached."""
    chosen: list[np.ndarray] = []
    for index in rng.permutation(len(groups)):
        if sum(map(len, chosen)) >= size:
            break
        chosen.append(groups[index])
    places = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    return Drawn(places, np.ones(len(places)))


def _residuals(connection: duckdb.DuckDBPyConnection, run_id: str, iteration: int, found: Window) -> np.ndarray:
    """[size] residual of each entry's last use before the iteration, NaN for what was never used."""
    if not found.size:
        return np.zeros(0)
    rows = sql.table(connection, "replay", "residuals", run_id=run_id, iteration=iteration, first=int(found.rounds[0]))
    known = rows.column("residual").to_numpy(zero_copy_only=False).astype(np.float64)
    return known[found.skipped : found.skipped + found.size]


def _rows(found: pa.Table) -> list[Entry]:
    return [Entry(**row) for row in found.to_pylist()]
