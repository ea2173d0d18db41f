"""Which payloads no run needs to go on: those outside every window, unless a policy would be learned again from them.

A run goes on from its newest round, so it draws from that round's window. After a kill it learns the rounds since its
last saved checkpoint again, so it needs their windows and fresh batches as well. The policies that a run learns under
(its reference) or that it was forked from are needed, too: where one has no folder, so are the trajectories that lead
to it from the nearest ancestor that has one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import duckdb
import pyarrow as pa

from reval_core.config_replay import ReplayConfig
from reval_core.store import replay
from reval_core.store import statements as sql


@dataclass(frozen=True)
class Round:
    """A learned round of a run's chain."""

    iteration: int
    policy_id: str
    reference_policy_id: str | None


@dataclass(frozen=True)
class Standing:
    """A run, and how far it is."""

    run_id: str
    fork_iteration: int | None
    """None where it is no fork."""
    base_policy_id: str
    window: ReplayConfig
    """What its draws reach, the fresh batch included."""
    rounds: tuple[Round, ...]
    """Along its chain, oldest first."""

    def since(self, whole: frozenset[str]) -> tuple[Round, ...]:
        """The rounds after its last saved checkpoint: a recovery learns them again."""
        saved = [place for place, one in enumerate(self.rounds) if one.policy_id in whole]
        return self.rounds[saved[-1] + 1 :] if saved else self.rounds

    def references(self, whole: frozenset[str]) -> set[str]:
        """What it learns under, and would learn under again."""
        under = [*self.rounds[-1:], *self.since(whole)]
        return {one.reference_policy_id for one in under if one.reference_policy_id is not None}

    @property
    def forked_from(self) -> str | None:
        """The policy that it was forked from; None where it is no fork."""
        if self.fork_iteration is None:
            return None
        before = [one.policy_id for one in self.rounds if one.iteration < self.fork_iteration]
        return before[-1] if before else self.base_policy_id


@dataclass(frozen=True)
class Saved:
    """Learned policies that have a folder."""

    weights: frozenset[str]
    """All of them."""
    whole: frozenset[str]
    """Those with their optimizer's state: learning can go on from there."""


@dataclass(frozen=True)
class Choice:
    """Which of the payloads that nobody needs are asked for."""

    run_id: str | None = None
    """Of the rounds that this run sampled; None: of all runs."""
    after_rounds: int = 0
    """Only those that were sampled so many rounds before the newest."""
    evaluations: bool = False
    """Those of evaluations, too."""


def standings(connection: duckdb.DuckDBPyConnection) -> list[Standing]:
    """All runs."""
    found = sql.records(connection, "archive", "learned")
    rounds = {
        run_id: tuple(Round(row["iteration"], row["policy_id"], row["reference_policy_id"]) for row in rows)
        for run_id, rows in groupby(found, key=lambda row: row["run_id"])
    }
    return [
        Standing(
            run_id=row["run_id"],
            fork_iteration=row["fork_iteration"] if row["parent_run_id"] is not None else None,
            base_policy_id=row["base_policy_id"],
            window=_window(json.loads(row["replay"] or "{}"), endless=row["offline"]),
            rounds=rounds.get(row["run_id"], ()),
        )
        for row in sql.records(connection, "archive", "standings")
    ]


def _window(settings: Mapping[str, object], *, endless: bool) -> ReplayConfig:
    reach = {"excludes_fresh": False} | ({"capacity": None} if endless else {})
    return ReplayConfig.model_validate({**settings, **reach})


def outside(connection: duckdb.DuckDBPyConnection, saved: Saved, choice: Choice) -> pa.Table:
    """The payloads that no run needs, in the order in which they were sampled.

    Args:
        connection: of a read, or of the transaction that removes them.
        saved: which policies need not be learned again.
        choice: which of them are asked for.

    Returns:
        Table (trajectory_id, run_id, iteration, purpose, tokens, archive_id); archive_id is NULL for those that are in
        the database. Of what was dropped there is no row.
    """
    found = standings(connection)
    edges = [_edge(connection, one, saved.whole) for one in found]
    needed = sorted(_learned_again(connection, found, saved))
    tables = {
        "windows": pa.Table.from_pylist(edges, schema=_EDGE),
        "relearned": pa.table({"policy_id": pa.array(needed, pa.string())}),
    }
    return sql.table(
        connection,
        "archive",
        "outside",
        tables,
        run_id=choice.run_id,
        after_rounds=choice.after_rounds,
        evaluations=choice.evaluations,
    )


_EDGE = pa.schema([("run_id", pa.string()), ("first_iteration", pa.int32()), ("first_position", pa.int32())])


def _edge(connection: duckdb.DuckDBPyConnection, run: Standing, whole: frozenset[str]) -> dict[str, object]:
    """The oldest replay entry that the run may draw again; it needs that one and all after it."""
    again = run.since(whole)
    first = again[0].iteration if again else run.rounds[-1].iteration if run.rounds else 0
    reach = replay.window(connection, run.run_id, first, run.window)
    oldest, skipped = (int(reach.rounds[0]), reach.skipped) if reach.size else (first, 0)
    return {"run_id": run.run_id, "first_iteration": oldest, "first_position": skipped}


def _learned_again(connection: duckdb.DuckDBPyConnection, found: list[Standing], saved: Saved) -> set[str]:
    """Policies that would be learned again when every run went on after a kill."""
    parents = {name: parent for name, parent in sql.rows(connection, "archive", "parents")}
    needed: set[str] = set()
    for run in found:
        for policy in [*(one.policy_id for one in run.rounds[-1:]), run.forked_from]:
            needed.update(way_back(policy, parents, saved.whole))
        for policy in run.references(saved.whole) - saved.weights:
            needed.update(way_back(policy, parents, saved.whole))
    return needed


def way_back(policy: str | None, parents: Mapping[str, str], saved: frozenset[str] | set[str]) -> Iterator[str]:
    """The policies to learn, from a policy back to its nearest saved ancestor or to a base; none where it is saved."""
    while policy is not None and policy in parents and policy not in saved:
        yield policy
        policy = parents[policy]
