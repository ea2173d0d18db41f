"""A small real database, built through the store's own doors: two problems a round, a run of three rounds and a fork.

Round 0 and 2 ask prb_0 and prb_1, round 1 asks prb_2 and prb_3, two samples each. Each round makes two updates: the
fresh batch, then a replay. The fork leaves at round 2 with another beta and answers everything wrong. Afterwards
another verifier grades round 0 anew, and a gold answer is mended.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa

from reval_core.process import ProcessIdentity
from reval_core.store import Store, evaluations, lineage, replay, runs, schedule, stages, trajectories
from reval_core.store import statements as sql
from reval_core.store.lineage import UPDATE_ROW_SCHEMA, PolicyRecord, UpdateRecord
from reval_core.store.migrations import now
from reval_core.store.runs import RunRecord
from reval_core.store.trajectories import PART_SCHEMA, VERDICT_SCHEMA, BatchRecord

RUN, FORK = "run-a", "run-b"
BASE = "pol_base"


def batch_record(round: int = 0, problems: Sequence[str] = ("prb_0", "prb_1"), **changes: Any) -> BatchRecord:
    """A batch of two samples for each problem."""
    fields = {
        "purpose": "training",
        "policy_id": BASE,
        "weights_checksum": "sha256_0",
        "tokenizer_id": "tok_0",
        "round": round,
        "generation": 0,
        "engine": "test",
        "sampling": {"temperature": 1.0},
        "prompt_ids": tuple(f"prm_{name}" for name in problems),
        "problem_ids": tuple(problems),
        "samples_per_prompt": 2,
    }
    return BatchRecord(**{**fields, **changes})


def part_of(
    batch: BatchRecord,
    lengths: Sequence[int] = (2, 3, 4, 5),
    truncated: Sequence[int] = (),
    texts: Sequence[str] = (),
) -> pa.Table:
    """All responses of a batch; ``lengths`` in tokens, ``truncated`` names those without EOS."""
    rows = []
    for index, (problem, sample) in enumerate((p, s) for p in batch.problem_ids for s in (0, 1)):
        rows.append(
            {
                "trajectory_id": trajectories.trajectory_id(batch.batch_id, problem, sample),
                "problem_id": problem,
                "sample_index": sample,
                "prompt_id": f"prm_{problem}",
                "prompt_ids": [1, 2, 3],
                "prompt_text": f"prompt of {problem}",
                "response_ids": list(range(lengths[index])),
                "completion": texts[index] if texts else f"answer {index}",
                "finish_reason": "length" if index in truncated else "stop",
                "behaviour_logprob": -1.0 - index,
                "seed": 2**64 - 1 - index,
            }
        )
    return pa.Table.from_pylist(rows, schema=PART_SCHEMA)


def names(batch: BatchRecord) -> list[str]:
    """Trajectory ids of a batch in canonical order."""
    return part_of(batch).column("trajectory_id").to_pylist()


def add_run(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    parent: str | None = None,
    fork: int | None = None,
    *,
    verifier: str = "ver_1",
    beta: float = 0.1,
    iterations: int = 3,
) -> None:
    """A run that learns from one verifier's verdicts, with one attempt that is still going on."""
    record = RunRecord(
        run_id=run_id,
        name=f"name of {run_id}",
        config={
            "run": {"name": run_id, "iterations": iterations},
            "replay": {"capacity": 8},
            "objective": {"beta": beta},
        },
        config_id="cfg",
        seed=7,
        base_policy_id=BASE,
        verifier_id=verifier,
        versions={},
        parent_run_id=parent,
        fork_iteration=fork,
    )
    runs.add(connection, record)
    runs.start_attempt(
        connection, run_id, ProcessIdentity.mine(), git_commit=None, versions={"a": 1}, device="cpu", flow_run_id=None
    )


def commit_stage(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    iteration: int,
    name: str,
    output: dict[str, Any],
    slot: str = "",
    inputs: dict[str, Any] | None = None,
) -> None:
    """Commit a stage that took 2 s and link it to the run."""
    key = f"{name}_{run_id}_{iteration}{slot}"
    lease = stages.take_lease(connection, key, ProcessIdentity.mine())
    stages.commit(connection, lease, name, inputs or {"of": key}, output, seconds=2.0, run_id=run_id, attempt=1)
    stages.link(connection, run_id, iteration, name, slot, key, executed=True, attempt=1)


def verdict_rows(
    batch: BatchRecord,
    correct: Sequence[int],
    golds: Sequence[str] | None = None,
    *,
    answers: Sequence[str] = (),
    statuses: Sequence[str] = (),
) -> pa.Table:
    """Verdicts of a whole batch, against each problem's first gold answer unless others are named."""
    rows = []
    for index, (name, right) in enumerate(zip(names(batch), correct, strict=True)):
        rows.append(
            {
                "trajectory_id": name,
                "gold_digest": golds[index] if golds else f"gld_{batch.problem_ids[index // 2]}",
                "status": statuses[index] if statuses else ("correct" if right else "incorrect"),
                "reward": float(right),
                "answer": answers[index] if answers else str(index),
                "tier": "exact",
                "seconds": 0.01 * (index + 1),
                "details": "too long" if statuses and statuses[index] == "rejected" else "",
            }
        )
    return pa.Table.from_pylist(rows, schema=VERDICT_SCHEMA)


@dataclass
class Example:
    """The database and what stands in it."""

    store: Store
    rounds: list[BatchRecord]
    """Batches of the run's rounds 0, 1, 2."""
    fork_round: BatchRecord
    evaluation: BatchRecord

    def trajectory(self, round: int, index: int) -> dict[str, Any]:
        """A row of the view ``trajectories``."""
        found = self.store.query(
            "SELECT * FROM trajectories WHERE trajectory_id = $name", name=names(self.rounds[round])[index]
        ).to_pylist()
        assert len(found) == 1
        return found[0]


def build(path: Path) -> Example:
    """Make the example database at a path."""
    store = Store(path)
    store.prepare()
    begin(store)
    with store.write() as connection:
        schedule.plan_epoch(connection, RUN, 0, 0, 0, ["prb_0", "prb_1", "prb_2", "prb_3"])
        schedule.plan_epoch(connection, RUN, 2, 1, 4, ["prb_0", "prb_1", "prb_2", "prb_3"])
        for iteration in range(3):
            schedule.plan_round(connection, RUN, iteration, 2 * iteration, 2)
    first, second, third = (
        batch_record(0),
        batch_record(1, ("prb_2", "prb_3"), policy_id="pol_run-a_0"),
        batch_record(2, policy_id="pol_run-a_1"),
    )
    one, two = names(first), names(second)
    play(store, RUN, first, BASE, (1, 0, 0, 0), one, lengths=(2, 3, 4, 5))
    play(store, RUN, second, "pol_run-a_0", (1, 1, 0, 0), [*one[:2], two[0]], lengths=(3, 3, 3, 3), truncated=(3,))
    play(store, RUN, third, "pol_run-a_1", (1, 1, 1, 0), [*two[:2], one[0]], lengths=(6, 6, 6, 6))
    with store.write() as connection:
        add_run(connection, FORK, RUN, 2, beta=0.2)
    forked = batch_record(2, policy_id="pol_run-a_1", generation=1)
    play(store, FORK, forked, "pol_run-a_1", (0, 0, 0, 0), one, lengths=(1, 1, 1, 1))
    evaluation = _evaluation(store)
    _rescore(store, first)
    with store.write() as connection:
        runs.add_event(connection, RUN, 1, 1, "note", "something happened")
        runs.end_attempt(connection, RUN, 1, "completed")
    store.settle()  # tests copy the file
    return Example(store, [first, second, third], forked, evaluation)


def begin(store: Store) -> None:
    """The four problems, the base policy, three verifiers, and the run."""
    with store.write() as connection:
        _problems(connection)
        base = PolicyRecord(BASE, "base", None, None, {}, 0, "tok_0", "sha256_0", "models/base")
        lineage.add_policy(connection, base, run_id=None, attempt=None)
        for number, name in enumerate(("ver_1", "ver_2", "ver_eval"), start=1):
            trajectories.add_verifier(connection, name, "math", number, {})
        add_run(connection, RUN)


def _problems(connection: duckdb.DuckDBPyConnection) -> None:
    count = 4
    part = pa.table(
        {
            "problem_id": [f"prb_{i}" for i in range(count)],
            "messages": [json.dumps([{"role": "user", "content": f"question {i}"}]) for i in range(count)],
            "question": [f"question {i}" for i in range(count)],
            "source": ["train.jsonl"] * count,
            "external_id": [str(i) for i in range(count)],
            "metadata": [json.dumps({"level": i}) for i in range(count)],
            "gold_digest": [f"gld_prb_{i}" for i in range(count)],
            "gold": [str(i) for i in range(count)],
        }
    )
    again = part.slice(0, 1).set_column(3, "source", pa.array(["another.jsonl"]))
    for table in (part, again):
        for name in ("add_problems", "add_sources", "add_golds"):
            sql.rows(connection, "problems", name, {"part": table}, recorded_at=now())


def play(
    store: Store,
    run_id: str,
    batch: BatchRecord,
    policy: str,
    correct: Sequence[int],
    replayed: Sequence[str],
    *,
    lengths: Sequence[int],
    truncated: Sequence[int] = (),
    texts: Sequence[str] = (),
    answers: Sequence[str] = (),
    statuses: Sequence[str] = (),
) -> None:
    """All stages of a round; truncated responses are dropped at admission."""
    store.append_batch(batch, part_of(batch, lengths, truncated, texts), run_id=run_id, attempt=1)
    with store.write() as connection:
        generated = {
            "batch_id": batch.batch_id,
            "policy_id": policy,
            "trajectories": 4,
            "tokens": sum(lengths),
            "truncated": len(truncated),
        }
        commit_stage(connection, run_id, batch.round, "generate", generated)
    grade(store, run_id, batch, correct, answers=answers, statuses=statuses)
    with store.write() as connection:
        commit_stage(connection, run_id, batch.round, "score", {"reference_policy_id": BASE})
    admit(store, run_id, batch, correct, dropped=truncated)
    learn(store, run_id, batch, policy, replayed, dropped=truncated)


def grade(
    store: Store,
    run_id: str,
    batch: BatchRecord,
    correct: Sequence[int],
    *,
    verifier: str = "ver_1",
    golds: Sequence[str] | None = None,
    answers: Sequence[str] = (),
    statuses: Sequence[str] = (),
) -> None:
    """Verdicts of a round's batch, and the stage."""
    rows = verdict_rows(batch, correct, golds, answers=answers, statuses=statuses)
    told = Counter(rows.column("status").to_pylist())
    output = {
        "batch_id": batch.batch_id,
        "verifier_id": verifier,
        "golds_digest": golds_digest(batch, golds),
        "correct": sum(correct),
        "statuses": dict(told),
    }
    with store.write() as connection:
        trajectories.add_verdicts(connection, verifier, rows)
        slot = f"{verifier}{output['golds_digest']}"
        commit_stage(connection, run_id, batch.round, "verify", output, slot=slot)


def golds_digest(batch: BatchRecord, golds: Sequence[str] | None) -> str:
    """Which gold answers count for a batch."""
    return "/".join(golds[::2] if golds else [f"gld_{problem}" for problem in batch.problem_ids])


def admit(
    store: Store,
    run_id: str,
    batch: BatchRecord,
    correct: Sequence[int],
    *,
    verifier: str = "ver_1",
    golds: Sequence[str] | None = None,
    dropped: Sequence[int] = (),
) -> None:
    """Entries of a round's batch, in order, and the stage."""
    admitted = [index for index in range(4) if index not in dropped]
    ids = names(batch)
    entries = pa.table(
        {
            "position": range(len(admitted)),
            "trajectory_id": [ids[index] for index in admitted],
            "gold_digest": [golds[i] if golds else f"gld_{batch.problem_ids[i // 2]}" for i in admitted],
            "reward_used": [float(correct[index]) for index in admitted],
        },
        schema=replay.ENTRY_SCHEMA,
    )
    rewards = [correct[index] for index in admitted]
    figures = {"count": len(admitted), "accuracy": sum(correct) / 4, "reward": sum(rewards) / len(rewards)}
    inputs = {"batch_id": batch.batch_id, "verifier_id": verifier, "golds": golds_digest(batch, golds)}
    with store.write() as connection:
        replay.admit(connection, run_id, batch.round, verifier, entries)
        commit_stage(connection, run_id, batch.round, "persist", figures, inputs=inputs)


def learn(
    store: Store, run_id: str, batch: BatchRecord, policy: str, replayed: Sequence[str], *, dropped: Sequence[int] = ()
) -> None:
    """Two updates: the fresh batch, then a replay."""
    new, ids = f"pol_{run_id}_{batch.round}", names(batch)
    fresh = [ids[index] for index in range(4) if index not in dropped]
    record = PolicyRecord(new, "learned", policy, BASE, {}, 2 * (batch.round + 1), "tok_0", "sha256_1", None)
    with store.write() as connection:
        lineage.add_policy(connection, record, run_id=run_id, attempt=1)
        add_update(connection, new, 0, "fresh", fresh, loss=4.0, residual=1.0)
        add_update(connection, new, 1, "replay", replayed, loss=2.0, residual=-2.0)
        learned = {"policy_id": new, "reference_policy_id": BASE, "updates": 2, "skipped": 0}
        commit_stage(connection, run_id, batch.round, "learn", learned)


def add_update(
    connection: duckdb.DuckDBPyConnection,
    policy: str,
    index: int,
    kind: str,
    members: Sequence[str],
    *,
    loss: float,
    residual: float | Sequence[float | None],
) -> None:
    """One optimizer step over some trajectories with one residual for all, or one for each."""
    count = len(members)
    rows = pa.table(
        {
            "position": range(count),
            "trajectory_id": list(members),
            "reward": [1.0] * count,
            "weight": [1.0] * count,
            "residual": [residual] * count if isinstance(residual, float) else residual,
            "log_ratio": [0.5] * count,
            "root_value_gap": [0.25] * count,
        },
        schema=UPDATE_ROW_SCHEMA,
    )
    update = UpdateRecord(
        index=index, kind=kind, loss=loss, grad_norm=1.0 + 2 * index, lr=1e-3, skipped=False, tokens=9, rows=rows
    )
    lineage.add_updates(connection, policy, [update], lineage.uses(connection, policy, members))


def _evaluation(store: Store) -> BatchRecord:
    """The base policy on prb_3, found done by the fork."""
    batch = batch_record(0, ("prb_3",), purpose="evaluation")
    store.append_batch(batch, part_of(batch), run_id=RUN, attempt=1)
    with store.write() as connection:
        trajectories.add_verdicts(connection, "ver_eval", verdict_rows(batch, (1, 0)))
        evaluations.add(
            connection,
            evaluation_id="evl_base",
            policy_id=BASE,
            benchmark="held-out",
            benchmark_id="ben_0",
            batch_id=batch.batch_id,
            verifier_id="ver_eval",
            problem_count=1,
            samples_per_problem=2,
            settings={},
            metrics={
                "avg@2": SimpleNamespace(value=0.5, low=0.25, high=0.75),
                "pass@2": SimpleNamespace(value=1.0, low=1.0, high=1.0),
            },
        )
        commit_stage(connection, RUN, -1, "evaluate", {"evaluation_id": "evl_base"}, slot="of the base")
        key = f"evaluate_{RUN}_-1of the base"
        stages.link(connection, FORK, -1, "evaluate", "of the base", key, executed=False, attempt=1)
    return batch


def _rescore(store: Store, batch: BatchRecord) -> None:
    """Another verifier finds everything right, and the gold answer of prb_1 is mended to what sample 0 said."""
    mended = pa.table({"problem_id": ["prb_1"], "gold_digest": ["gld_mended"], "gold": ["one"]})
    with store.write() as connection:
        sql.rows(connection, "problems", "add_golds", {"part": mended}, recorded_at=now())
        regraded = verdict_rows(batch, (1, 0, 1, 0), ["", "", "gld_mended", "gld_mended"]).slice(2)
        trajectories.add_verdicts(connection, "ver_1", regraded)
        trajectories.add_verdicts(connection, "ver_2", verdict_rows(batch, (1, 1, 1, 1)))
