"""The process that is killed: it appends, commits, settles and publishes, and notes what it was told is stored.

Batch ``number`` of an owner has the same rows in every process, so that whoever looks can compare each payload. Every
acknowledged step becomes a line of the ledger, on the disk before the next step; where the process is just now stands
in a mapped file that a kill leaves as it is. Neither makes a system call that the store makes, so that faults can be
injected at the store's own. Each start has another clock, up to two days from the true one.

    python -m tests.soak.writer ROOT SLICE_BYTES BATCHES
"""

from __future__ import annotations

import json
import mmap
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from reval_core.errors import LeaseLost, RevalError
from reval_core.process import ProcessIdentity
from reval_core.store import Store, stages, trajectories
from reval_core.store import store as store_module
from reval_core.store.connection import Connections
from reval_core.store.trajectories import PART_SCHEMA, BatchRecord

PROBLEMS, SAMPLES = 4, 2
SETTLE_EVERY, SNAPSHOT_EVERY = 2, 3
PHASE_BYTES = 48


@dataclass(frozen=True)
class Plan:
    """What a writer does."""

    root: Path
    name: str
    owners: tuple[str, ...]
    """Whose batches it appends; two writers that share an owner append the same ones."""
    slice_bytes: int
    """In the place of the store's SLICE_BYTES; payloads go past the log from a sixteenth of it."""
    most: int | None = None
    """Batches of each owner; None: until it is killed."""
    threads: int = 2
    """DuckDB's; with one every system call is the main thread's."""

    @property
    def database(self) -> Path:
        return self.root / "reval.duckdb"

    @property
    def ledger(self) -> Path:
        """One JSON line for each acknowledged step."""
        return self.root / f"{self.name}.ledger"

    @property
    def phase(self) -> Path:
        """Where the process is."""
        return self.root / f"{self.name}.phase"


def kind_of(number: int) -> str:
    """How a batch is appended: in small parts, as payloads past the log, or in several transactions."""
    return ("small", "payload", "sliced")[number % 3]


def batch_of(owner: str, number: int) -> BatchRecord:
    """Batch ``number`` of an owner."""
    problems = tuple(f"prb_{index}" for index in range(PROBLEMS))
    return BatchRecord(
        purpose="training",
        policy_id=f"pol_{owner}",
        weights_checksum="sha256_0",
        tokenizer_id="tok_0",
        round=number,
        generation=0,
        engine="soak",
        sampling={"temperature": 1.0},
        prompt_ids=tuple(f"prm_{name}" for name in problems),
        problem_ids=problems,
        samples_per_prompt=SAMPLES,
    )


@lru_cache(maxsize=256)
def part_of(owner: str, number: int, slice_bytes: int) -> pa.Table:
    """All rows of a batch, [8] of `PART_SCHEMA`, the same in every process."""
    batch, rows = batch_of(owner, number), PROBLEMS * SAMPLES
    noise = np.random.default_rng([number, *owner.encode()])
    size = {"small": 200, "payload": slice_bytes // 4, "sliced": 3 * slice_bytes}[kind_of(number)]
    tokens = max(1, size // rows // 8)  # four bytes for an id, four for its text
    made = []
    for problem in batch.problem_ids:
        for sample in range(SAMPLES):
            made.append(
                {
                    "trajectory_id": trajectories.trajectory_id(batch.batch_id, problem, sample),
                    "problem_id": problem,
                    "sample_index": sample,
                    "prompt_id": f"prm_{problem}",
                    "prompt_ids": [1, 2, 3],
                    "prompt_text": f"prompt of {problem}",
                    "response_ids": noise.integers(0, 32_000, tokens, dtype=np.int32),
                    "completion": noise.bytes(2 * tokens).hex(),
                    "finish_reason": "stop",
                    "behaviour_logprob": float(noise.normal()),
                    "seed": int(noise.integers(2**63)),
                }
            )
    return pa.Table.from_pylist(made, schema=PART_SCHEMA)


def stage_key(owner: str, number: int) -> str:
    return f"generate_{owner}_{number}"


class Marker:
    """Writes where the process is: what it does, and which step of a connection."""

    def __init__(self, path: Path) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(file, 0, PHASE_BYTES)
        self._mapped = mmap.mmap(file, PHASE_BYTES)
        self.doing = "prepare"

    def step(self, name: str) -> None:
        self._mapped[:] = f"{self.doing}: {name}".ljust(PHASE_BYTES).encode()

    @contextmanager
    def during(self, doing: str) -> Iterator[None]:
        self.doing = doing
        self.step("begin")
        yield
        self.doing = "between"
        self.step("steps")


class Marked:
    """A connection that tells which step it is at."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, marker: Marker) -> None:
        self._connection, self._marker = connection, marker

    def execute(self, sql: str, *values: Any) -> Any:
        self._marker.step(sql if sql in ("COMMIT", "CHECKPOINT") else "rows")
        return self._connection.execute(sql, *values)

    def close(self) -> None:
        self._marker.step("close")
        self._connection.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def mark_connections(marker: Marker) -> None:
    """Have every connection of this process tell its steps."""
    connect: Callable[..., duckdb.DuckDBPyConnection] = Connections._connect

    def marked(self: Connections, *given: Any, **named: Any) -> Any:
        marker.step("open")
        return Marked(connect(self, *given, **named), marker)

    Connections._connect = marked  # type: ignore[method-assign]


def set_clock(off_by: timedelta) -> None:
    """Have the store take another time for now."""
    for name, module in list(sys.modules.items()):
        if name.startswith("reval_core.store") and hasattr(module, "now"):
            module.now = lambda: datetime.now(UTC).replace(tzinfo=None) + off_by  # type: ignore[attr-defined]


def work(plan: Plan) -> None:
    """Go on where the ledger ends, with the last batch once more."""
    store_module.SLICE_BYTES = plan.slice_bytes
    set_clock(timedelta(hours=random.uniform(-48, 48)))
    marker = Marker(plan.phase)
    mark_connections(marker)
    Connections.__init__.__kwdefaults__["threads"] = plan.threads
    store = Store(plan.database, lock_wait_s=60)
    ledger = os.open(plan.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_SYNC)

    def note(**line: Any) -> None:
        marker.step("note")
        os.writev(ledger, [json.dumps(line).encode(), b"\n"])

    with marker.during("prepare"):
        store.prepare()
    done = [line["number"] for line in acknowledged(plan.ledger) if "number" in line]
    number = max(0, max(done, default=0) - 1)
    while plan.most is None or number < plan.most:
        with marker.during("lease"):
            leases = {owner: _lease(store, stage_key(owner, number)) for owner in plan.owners}
        for owner, lease in leases.items():
            _one_batch(plan, store, marker, note, owner, number, lease)
        if number % SETTLE_EVERY == 0:
            with marker.during("settle"):
                store.settle()
                note(did="settle")
        if number % SNAPSHOT_EVERY == 0:
            with marker.during("snapshot"):
                store.snapshot()
                note(did="snapshot")
        number += 1


def acknowledged(ledger: Path) -> list[dict[str, Any]]:
    """The lines of a ledger that were written whole."""
    if not ledger.exists():
        return []
    return [json.loads(line) for line in ledger.read_bytes().split(b"\n")[:-1]]


def _one_batch(
    plan: Plan,
    store: Store,
    marker: Marker,
    note: Callable[..., None],
    owner: str,
    number: int,
    lease: stages.Lease | None,
) -> None:
    batch, part, key = batch_of(owner, number), part_of(owner, number, plan.slice_bytes), stage_key(owner, number)
    with marker.during(f"append {kind_of(number)}"):
        size = 3 if kind_of(number) == "small" else part.num_rows
        for first in range(0, part.num_rows, size):
            store.append_batch(batch, part.slice(first, size), run_id="soak", attempt=1)
        note(did="append", owner=owner, number=number)
    if lease is None:
        return
    line = {"owner": owner, "number": number, "by": plan.name, "epoch": lease.epoch}
    with marker.during("stage"):
        try:
            with store.write() as connection:
                trajectories.check_batch(connection, batch)
                stages.commit(connection, lease, "generate", {}, line, seconds=1.0, run_id="soak", attempt=1)
                stages.link(connection, "soak", number, "generate", owner, key, executed=True, attempt=1)
        except LeaseLost:
            note(did="refused", **line)
        else:
            note(did="stage", **line)


def _lease(store: Store, key: str) -> stages.Lease | None:
    """The right to commit the stage, taken from whoever has it; None where it is committed."""
    with store.write() as connection:
        if stages.find(connection, key) is not None:
            return None
        return stages.take_lease(connection, key, ProcessIdentity.mine())


if __name__ == "__main__":
    try:
        work(Plan(Path(sys.argv[1]), "a", ("a",), int(sys.argv[2]), int(sys.argv[3]), threads=1))
    except RevalError as error:
        sys.exit(f"told: {error}")
