"""How long each page of `reval browse` takes on a store of 100,000 trajectories, asked in one process.

    python benchmarks/browse.py                     # makes the store in a temporary folder, a minute
    python benchmarks/browse.py --rows 20000 --json result.json
    python benchmarks/browse.py --keep /tmp/large   # kept there, and found again by the next call

The store is one run of 100 rounds and an evaluation, written by the store's own functions: problems, responses of 20 to
400 tokens with text, verdicts, admissions, updates. Milliseconds are the median and the longest of five by the
clock and the processor's median over all threads, the store's opening and the page's making included; the floor is a
connection that is only opened and closed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from starlette.testclient import TestClient

from reval_core.browsing import application
from reval_core.home import Home
from reval_core.problems import Problem, ask
from reval_core.process import ProcessIdentity
from reval_core.store import Store, lineage, problems, replay, runs, stages, trajectories
from reval_core.store.lineage import UPDATE_ROW_SCHEMA, PolicyRecord, UpdateRecord
from reval_core.store.runs import RunRecord
from reval_core.store.trajectories import PART_SCHEMA, VERDICT_SCHEMA, BatchRecord

RUN, VERIFIER, BASE = "bench-00000000", "ver_bench", "pol_base"
ROUNDS, SAMPLES, UPDATES = 100, 8, 4
REPEATS = 5
STATUSES = np.array(["correct", "incorrect", "incorrect", "no_answer"])
TEXT = "We are given {n}. Let $x = {n}$ and $y = \\frac{{x}}{{2}}$.\n\nThen \\(x + y = \\tfrac{{3x}}{{2}}\\), so "


def problem(number: int) -> Problem:
    """A problem with a question of its own."""
    return Problem(ask(f"What is one and a half times {number}?"), gold=str(number), source="bench")


def batch_of(round_: int, purpose: str, asked: list[Problem]) -> BatchRecord:
    """The batch of a round."""
    return BatchRecord(
        purpose=purpose,
        policy_id=BASE if round_ == 0 else f"pol_{round_ - 1}",
        weights_checksum="wts_bench",
        tokenizer_id="tok_bench",
        round=round_,
        generation=0,
        engine="bench",
        sampling={"seed": 0},
        prompt_ids=tuple(trajectories.prompt_digest([index]) for index in range(len(asked))),
        problem_ids=tuple(one.problem_id for one in asked),
        samples_per_prompt=SAMPLES,
    )


def part_of(batch: BatchRecord, noise: np.random.Generator) -> pa.Table:
    """All responses of a batch."""
    batch_id, rows = batch.batch_id, []
    for index, name in enumerate(batch.problem_ids):
        for sample in range(SAMPLES):
            length = int(noise.integers(20, 400))
            rows.append(
                {
                    "trajectory_id": trajectories.trajectory_id(batch_id, name, sample),
                    "problem_id": name,
                    "sample_index": sample,
                    "prompt_id": batch.prompt_ids[index],
                    "prompt_ids": [index],
                    "prompt_text": f"problem {index}",
                    "response_ids": noise.integers(0, 32_000, length, dtype=np.int32),
                    "completion": TEXT.format(n=index) * (length // 20) + f"\\boxed{{{index}}}",
                    "finish_reason": "stop" if length < 380 else "length",
                    "behaviour_logprob": -1.0,
                    "seed": index * SAMPLES + sample,
                }
            )
    return pa.Table.from_pylist(rows, schema=PART_SCHEMA)


def add_round(store: Store, round_: int, purpose: str, asked: list[Problem], noise: np.random.Generator) -> None:
    """Responses, verdicts, admissions, stages, and what a round's updates trained on."""
    batch = batch_of(round_, purpose, asked)
    part = part_of(batch, noise)
    store.append_batch(batch, part, run_id=RUN, attempt=1)
    names, count = part.column("trajectory_id"), part.num_rows
    golds = pa.array([one.gold_digest for one in asked for _ in range(SAMPLES)])
    status = STATUSES[noise.integers(0, len(STATUSES), count)]
    reward = pa.array((status == "correct").astype(float))
    answer = pa.array(["7"] * count)
    verdicts = {
        "trajectory_id": names,
        "gold_digest": golds,
        "status": pa.array(status.tolist()),
        "reward": reward,
        "answer": answer,
        "tier": pa.array(["exact"] * count),
        "seconds": pa.array([0.0] * count),
        "details": pa.array(["the numbers are compared exactly"] * count),
    }
    entries = {"position": pa.array(range(count), pa.int32()), "trajectory_id": names}
    entries |= {"gold_digest": golds, "reward_used": reward}
    outputs = {
        "generate": {"batch_id": batch.batch_id, "trajectories": count, "tokens": 200 * count, "truncated": 0},
        "verify": {"verifier_id": VERIFIER, "golds_digest": "gld", "statuses": {"correct": count}},
        "learn": {"policy_id": f"pol_{round_}", "updates": UPDATES},
    }
    with store.write() as connection:
        trajectories.add_verdicts(connection, VERIFIER, pa.table(verdicts, schema=VERDICT_SCHEMA))
        if purpose != "training":
            return
        replay.admit(connection, RUN, round_, VERIFIER, pa.table(entries, schema=replay.ENTRY_SCHEMA))
        for stage, output in outputs.items():
            lease = stages.take_lease(connection, f"{stage}/{round_}", ProcessIdentity.mine())
            commit = {"seconds": 1.0, "run_id": RUN, "attempt": 1}
            stages.commit(connection, lease, stage, {}, output, **commit)
            stages.link(connection, RUN, round_, stage, "", lease.stage_key, executed=True, attempt=1)
        lineage.add_policy(connection, policy(f"pol_{round_}", batch.policy_id), run_id=RUN, attempt=1)
        lineage.add_updates(connection, f"pol_{round_}", [update(index, names) for index in range(UPDATES)], uses())


def uses() -> lineage.Counter[str]:
    """Nothing was used before."""
    return lineage.Counter()


def policy(name: str, parent: str | None) -> PolicyRecord:
    """A policy of which only the lineage is there."""
    kind = "learned" if parent else "base"
    return PolicyRecord(name, kind, parent, BASE if parent else None, {}, 0, "tok_bench", "wts_bench", None)


def update(index: int, names: pa.ChunkedArray) -> UpdateRecord:
    """One update on all responses of the round."""
    count = len(names)
    zero = pa.array([0.0] * count)
    columns = [pa.array(range(count), pa.int32()), names, zero, zero, zero, zero, zero]
    rows = pa.table(dict(zip(UPDATE_ROW_SCHEMA.names, columns, strict=True)), schema=UPDATE_ROW_SCHEMA)
    return UpdateRecord(index, "fresh" if index == 0 else "replay", 1.0, 1.0, 1e-5, False, count, rows)


def make_store(home: Home, rows: int) -> Store:
    """The store with so many training responses, and a tenth as many of an evaluation."""
    store, noise = Store(home.database), np.random.default_rng(0)
    store.prepare()
    asked = [problem(number) for number in range(rows // ROUNDS // SAMPLES)]
    with store.write() as connection:
        runs.add(connection, RunRecord(RUN, "bench", {}, "cfg_bench", 0, BASE, VERIFIER, {}))
        problems.add(connection, asked)
        lineage.add_policy(connection, policy(BASE, None), run_id=RUN, attempt=1)
        trajectories.add_verifier(connection, VERIFIER, "math", 1, {})
    for round_ in range(ROUNDS):
        add_round(store, round_, "training", asked, noise)
    for round_ in range(ROUNDS, ROUNDS + ROUNDS // 10):
        add_round(store, round_, "evaluation", asked, noise)
    store.settle()
    return store


def milliseconds(work: Callable[[], object]) -> tuple[float, float, float]:
    """Median and longest of some calls by the clock, and the processor's median."""
    taken, worked = [], []
    for _ in range(REPEATS):
        started, began = time.perf_counter(), time.process_time()
        work()
        taken.append(1000 * (time.perf_counter() - started))
        worked.append(1000 * (time.process_time() - began))
    return statistics.median(taken), max(taken), statistics.median(worked)


def pages(store: Store) -> dict[str, str]:
    """What is asked for, by what it is."""
    found = store.query_live(
        "SELECT trajectory_id, problem_id FROM trajectories WHERE iteration = 50 LIMIT 1"
    ).to_pylist()
    name, asked = found[0].values()
    return {
        "runs": "/",
        "trajectories, all": "/trajectories",
        "trajectories, of the run": f"/trajectories?run={RUN}",
        "trajectories, of the run, right, rounds 20 to 60": f"/trajectories?run={RUN}&first=20&last=60&status=correct",
        "trajectories, longest first": f"/trajectories?run={RUN}&sort=longest",
        "trajectories, by a word of the question": f"/trajectories?run={RUN}&problem=times+17",
        "trajectories, 100 to 120 tokens": "/trajectories?least=100&most=120",
        "trajectories, of an evaluation": "/trajectories?purpose=evaluation",
        "one trajectory": f"/trajectory/{name}",
        "two policies on one problem": f"/compare?problem={asked}&one=pol_20&other=pol_60",
        "named query verdict_shares": "/queries/verdict_shares",
    }


def measure(home: Home, rows: int) -> list[dict[str, float | str]]:
    """Time each page and print a table."""
    store = Store(home.database) if home.database.exists() else make_store(home, rows)

    def opened() -> None:
        with store.read() as connection:
            connection.execute("SELECT 1")

    table: list[dict[str, float | str]] = []
    print(f"{home.database.stat().st_size / 1e6:,.0f} MB\n")
    print("| page | ms, median | ms, longest | processor, ms |\n|---|---|---|---|")
    with TestClient(application(home, port=80), base_url="http://127.0.0.1:80") as client:
        client.get("/")  # whatever is imported or compiled at first
        asked: list[tuple[str, Callable[[], object]]] = [("floor: open and close", opened)]
        asked += [(what, lambda path=path: client.get(path).raise_for_status()) for what, path in pages(store).items()]
        for what, work in asked:
            median, longest, worked = milliseconds(work)
            table.append({"page": what, "median_ms": median, "longest_ms": longest, "processor_ms": worked})
            print(f"| {what} | {median:.0f} | {longest:.0f} | {worked:.0f} |", flush=True)
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="training responses")
    parser.add_argument("--keep", type=Path, help="folder for the store, made where it is not there")
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = measure(Home(arguments.keep or Path(folder)), arguments.rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
