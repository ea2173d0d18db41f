"""Kills writers at random moments and looks what the store has afterwards.

`kill_one` restarts one writer after each kill, `kill_one_of_two` kills one of two writers while the other goes on.
`check` compares a store with the ledgers: what was acknowledged is there once and as it was, nothing else is half.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from reval_core.errors import RevalError
from reval_core.store import Store, spool
from reval_core.store.snapshots import path_of
from tests.soak.writer import Plan, acknowledged, batch_of, part_of, stage_key, work

ROWS = """
SELECT b.policy_id, b.round, t.trajectory_id, t.problem_id, t.sample_index, t.prompt_id, q.token_ids AS prompt_ids,
       q.text AS prompt_text, p.response_ids, p.completion, t.finish_reason, t.behaviour_logprob, t.seed
FROM store.trajectories AS t
JOIN store.batches AS b USING (batch_id)
JOIN store.prompts AS q USING (prompt_id)
JOIN store.payloads AS p USING (trajectory_id)
ORDER BY b.policy_id, b.round, t.problem_id, t.sample_index
"""
DOUBLED = """
SELECT count(*) - count(DISTINCT trajectory_id) + (SELECT count(*) - count(DISTINCT trajectory_id) FROM store.payloads)
FROM store.trajectories
"""
APART = """
SELECT (SELECT count(*) FROM store.trajectories ANTI JOIN store.payloads USING (trajectory_id))
     + (SELECT count(*) FROM store.payloads ANTI JOIN store.trajectories USING (trajectory_id))
     + (SELECT count(*) FROM store.trajectories ANTI JOIN store.batches USING (batch_id))
"""
COUNTS = "SELECT policy_id, round, count(*) FROM store.trajectories JOIN store.batches USING (batch_id) GROUP BY ALL"
BEFORE_KILL_S = 0.5
"""Mean of the exponential time that a writer has."""
SHORTLY_S = 0.05
"""The mean of every fourth, so that kills fall into the start, too."""
AIMED_AT = (
    "prepare: COMMIT",
    "append small: COMMIT",
    "append payload: COMMIT",
    "append sliced: COMMIT",
    "stage: COMMIT",
    "settle: CHECKPOINT",
    "snapshot: COMMIT",
)
"""Short steps at which every second kill is aimed; some milliseconds after it begins."""
AIMED_S = 0.003

Ledger = list[dict[str, Any]]
"""What a writer was told is stored: which step, whose batch, its number."""


@dataclass
class Found:
    """Breaches, counted in rows, batches or stores; all are 0."""

    lost: int = 0
    """Acknowledged batches, stages or snapshots that are not there."""
    doubled: int = 0
    """Trajectories or payloads that are there twice, or stages that two writers were told they committed."""
    changed: int = 0
    """Rows that are not as they were given."""
    apart: int = 0
    """Trajectories without payload or batch, payloads without trajectory."""
    half: int = 0
    """Committed stages whose batch is not whole."""
    zombies: int = 0
    """Stages that were written by a lease that had been refused."""
    unopened: int = 0
    """Stores or snapshots that could not be opened afterwards."""
    left: int = 0
    """Files that a start should have taken in or removed."""
    untold: int = 0
    """Errors that came as a traceback and not as a `RevalError`."""

    def add(self, other: Found) -> None:
        for name, count in asdict(other).items():
            setattr(self, name, getattr(self, name) + count)


@dataclass
class Soak:
    """What a series of kills found."""

    kills: int = 0
    found: Found = field(default_factory=Found)
    phases: Counter[str] = field(default_factory=Counter)
    """Where the kills fell."""
    batches: int = 0
    """Batches whose every row was compared, at each store's end."""
    refused: int = 0
    """Commits of zombies that were refused."""
    told: list[str] = field(default_factory=list)
    """Errors of stores that could not be opened."""


class Writer:
    """A running writer."""

    _processes = multiprocessing.get_context("forkserver")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._processes.set_forkserver_preload(["tests.soak.writer"])
        self._process = self._processes.Process(target=work, args=(plan,))
        self._process.start()

    def wait_for(self, phase: str, limit_s: float) -> None:
        """Wait until it is at a phase, at most so long."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if phase_of(self.plan) == phase:
                return

    def kill(self) -> str:
        """End it by SIGKILL; where it was then."""
        assert self._process.exitcode is None, f"the writer ended itself with code {self._process.exitcode}"
        self._process.kill()
        self._process.join()
        return phase_of(self.plan)

    def finish(self) -> None:
        """Wait until it has done all its batches."""
        self._process.join(600)
        assert self._process.exitcode == 0, f"the writer ended with code {self._process.exitcode}"


def kill_one(
    folder: Path, *, kills: int, seed: int, slice_bytes: int, kills_each: int = 10, mean_s: float = BEFORE_KILL_S
) -> Soak:
    """Kill a writer, look, start it again; a new store after every ``kills_each``, which ends with a whole run.

    Args:
        folder: where the stores are made.
        kills: how many in all.
        seed: of the moments.
        slice_bytes: in the place of the store's SLICE_BYTES.
        kills_each: kills that a store suffers.
        mean_s: mean seconds between a start and its kill.
    """
    moments, soak = random.Random(seed), Soak()
    while soak.kills < kills:
        plan = Plan(_made(folder / f"store-{soak.kills}"), "a", ("a",), slice_bytes)
        for _ in range(min(kills_each, kills - soak.kills)):
            plan.phase.unlink(missing_ok=True)
            writer = Writer(plan)
            if soak.kills % 2:
                writer.wait_for(moments.choice(AIMED_AT), 4 * mean_s)
                time.sleep(moments.expovariate(1 / AIMED_S))
            else:
                time.sleep(moments.expovariate(1 / (SHORTLY_S if soak.kills % 4 == 0 else mean_s)))
            _count(soak, writer.kill(), [plan])
        _to_the_end(soak, [plan])
    return soak


def kill_one_of_two(folder: Path, *, kills: int, seed: int, slice_bytes: int, mean_s: float = BEFORE_KILL_S) -> Soak:
    """Two writers with batches of their own and the same ones, of which one at random is killed and started again."""
    moments, soak, root = random.Random(seed), Soak(), _made(folder / "shared")
    plans = [Plan(root, name, (name, "both"), slice_bytes) for name in ("a", "b")]
    writers = [Writer(plan) for plan in plans]
    for _ in range(kills):
        time.sleep(moments.expovariate(1 / mean_s))
        chosen = moments.randrange(2)
        _count(soak, writers[chosen].kill(), plans)
        writers[chosen] = Writer(plans[chosen])
    for writer in writers:
        writer.kill()
    _to_the_end(soak, plans)
    return soak


def phase_of(plan: Plan) -> str:
    """Where a writer was last."""
    return plan.phase.read_bytes().rstrip(b"\0").decode().strip() if plan.phase.exists() else "start"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _count(soak: Soak, phase: str, plans: Sequence[Plan]) -> None:
    soak.kills += 1
    soak.phases[phase] += 1
    soak.found.add(check(plans, soak.told))


def _to_the_end(soak: Soak, plans: Sequence[Plan]) -> None:
    """Let the writers do two batches more than any has begun, without a kill, and look once more."""
    numbers = [line["number"] for plan in plans for line in acknowledged(plan.ledger) if "number" in line]
    most = max(numbers, default=0) + 2
    writers = [Writer(Plan(plan.root, plan.name, plan.owners, plan.slice_bytes, most)) for plan in plans]
    for writer in writers:
        writer.finish()
    soak.found.add(check(plans, soak.told))
    owners = {owner for plan in plans for owner in plan.owners}
    with Store(plans[0].database).read() as connection:
        (whole,) = connection.execute("SELECT count(*) FROM store.stages").fetchall()[0]
    soak.found.lost += len(owners) * most - whole
    soak.batches += whole
    soak.refused += sum(line["did"] == "refused" for plan in plans for line in acknowledged(plan.ledger))


def check(plans: Sequence[Plan], told: list[str]) -> Found:
    """Start as a run does, and compare the store with the ledgers, whose writers may go on meanwhile."""
    ledgers = [acknowledged(plan.ledger) for plan in plans]
    return compare(plans[0].database, ledgers, plans[0].slice_bytes, told)


def compare(database: Path, ledgers: Sequence[Ledger], slice_bytes: int, told: list[str]) -> Found:
    """Start as a run does, and compare the store with what was acknowledged before."""
    store, found = Store(database, lock_wait_s=60), Found()
    lines = [line for ledger in ledgers for line in ledger]
    try:
        store.prepare()
        with store.read() as connection:
            _check_rows(connection, lines, slice_bytes, found)
            _check_stages(connection, lines, found)
        if path_of(database).exists():
            with duckdb.connect(path_of(database), read_only=True) as connection:
                _check_snapshot(connection, ledgers, found)
        elif any(line["did"] == "snapshot" for line in lines):
            found.lost += 1
        if len(ledgers) == 1:  # nobody else has it open: it opens without our doors, to read and to write
            with duckdb.connect(database) as connection:
                connection.execute("SELECT count(*) FROM trajectories").fetchall()
            found.left += len(list(database.parent.glob("reval.new*")))
    except (RevalError, duckdb.Error) as error:
        told.append(f"{type(error).__name__}: {error}")
        found.unopened += 1
    found.left += len(spool.kept(store.spool))
    return found


def _check_rows(
    connection: duckdb.DuckDBPyConnection, lines: Iterable[dict[str, Any]], slice_bytes: int, found: Found
) -> None:
    found.doubled += _number(connection, DOUBLED)
    found.apart += _number(connection, APART)
    rows = connection.sql(ROWS).to_arrow_table()
    batches = {key: _as_part(some) for key, some in _by_batch(rows)}
    for (owner, number), some in batches.items():
        expected = part_of(owner, number, slice_bytes)
        names = expected.column("trajectory_id").to_pylist()
        places = [names.index(name) for name in some.column("trajectory_id").to_pylist()]
        found.changed += not some.equals(expected.take(places).combine_chunks())
    for line in lines:
        if line["did"] in ("append", "stage"):
            some = batches.get((line["owner"], line["number"]))
            found.lost += some is None or some.num_rows < batch_of(line["owner"], line["number"]).trajectory_count
    for (output,) in connection.execute("SELECT output FROM store.stages").fetchall():
        line = json.loads(output)
        some = batches.get((line["owner"], line["number"]))
        found.half += some is None or some.num_rows < batch_of(line["owner"], line["number"]).trajectory_count


def _by_batch(rows: pa.Table) -> Iterable[tuple[tuple[str, int], pa.Table]]:
    keys = list(zip(rows.column("policy_id").to_pylist(), rows.column("round").to_pylist(), strict=True))
    first = 0
    for place in range(1, len(keys) + 1):
        if place == len(keys) or keys[place] != keys[first]:
            policy, number = keys[first]
            yield (policy.removeprefix("pol_"), number), rows.slice(first, place - first)
            first = place


def _as_part(rows: pa.Table) -> pa.Table:
    schema = part_of("a", 0, 1000).schema
    return rows.select(schema.names).cast(schema).combine_chunks()


def _check_stages(connection: duckdb.DuckDBPyConnection, lines: Iterable[dict[str, Any]], found: Found) -> None:
    rows = dict(connection.execute("SELECT stage_key, output FROM store.stages").fetchall())
    told: set[str] = set()
    for line in lines:
        if line["did"] not in ("stage", "refused"):
            continue
        key = stage_key(line["owner"], line["number"])
        written = json.loads(rows.get(key, "{}"))
        mine = (written.get("by"), written.get("epoch")) == (line["by"], line["epoch"])
        if line["did"] == "refused":
            found.zombies += mine
        else:
            found.lost += not mine
            found.doubled += key in told
            told.add(key)


def _check_snapshot(connection: duckdb.DuckDBPyConnection, ledgers: Sequence[Ledger], found: Found) -> None:
    """The published snapshot is whole in itself and has what its writer was told before it was taken."""
    found.doubled += _number(connection, DOUBLED)
    found.apart += _number(connection, APART)
    has = {(policy, number): count for policy, number, count in connection.execute(COUNTS).fetchall()}
    for lines in ledgers:
        taken = max((place for place, line in enumerate(lines) if line["did"] == "snapshot"), default=0)
        for line in lines[:taken]:
            if line["did"] == "append":
                whole = batch_of(line["owner"], line["number"]).trajectory_count
                found.lost += has.get((f"pol_{line['owner']}", line["number"]), 0) < whole


def _number(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    (number,) = connection.execute(sql).fetchall()[0]
    return int(number)
