"""Real completions of other systems go through verification, storage and SQL, at their real lengths."""

from __future__ import annotations

import gzip
import json
import unicodedata

import pyarrow as pa
import pytest

from reval_core.policies.tiny import byte_tokenizer
from reval_core.problems import Problem, ask
from reval_core.store import Store, trajectories
from reval_core.store import problems as stored_problems
from reval_core.store.trajectories import PART_SCHEMA, VERDICT_SCHEMA, BatchRecord
from reval_core.verification import Verifier

ROWS = 96


@pytest.fixture(scope="module")
def rows(reval_data):
    path = reval_data / "completions" / "rollout_groups_areal.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for _, line in zip(range(ROWS), file, strict=False)]


@pytest.fixture(scope="module")
def stored(rows, tmp_path_factory):
    """The rows as one batch of a store, graded."""
    store = Store(tmp_path_factory.mktemp("real") / "reval.duckdb")
    store.prepare()
    tokenizer = byte_tokenizer()
    problems = {row["question"]: Problem(ask(row["question"]), row["gold"], source="areal") for row in rows}
    with store.write() as connection:
        stored_problems.add(connection, list(problems.values()))
    ids = {question: tokenizer.encode(question) for question in problems}
    names = list(problems)
    counts = {question: sum(row["question"] == question for row in rows) for question in names}
    batch = BatchRecord(
        purpose="training",
        policy_id="pol_foreign",
        weights_checksum="unknown",
        tokenizer_id="bytes",
        round=0,
        generation=0,
        engine="areal",
        sampling={"temperature": 0.7},
        prompt_ids=tuple(trajectories.prompt_digest(ids[name]) for name in names),
        problem_ids=tuple(problems[name].problem_id for name in names),
        samples_per_prompt=max(counts.values()),
    )
    seen = dict.fromkeys(names, 0)
    part, verdicts = [], []
    with Verifier(workers=2) as verifier:
        graded = verifier.verify_many([(row["gold"], row["completion"]) for row in rows])
    for row, verdict in zip(rows, graded, strict=True):
        question = row["question"]
        problem = problems[question]
        name = trajectories.trajectory_id(batch.batch_id, problem.problem_id, seen[question])
        part.append(
            {
                "trajectory_id": name,
                "problem_id": problem.problem_id,
                "sample_index": seen[question],
                "prompt_id": trajectories.prompt_digest(ids[question]),
                "prompt_ids": ids[question],
                "prompt_text": question,
                "response_ids": tokenizer.encode(row["completion"]),
                "completion": row["completion"],
                "finish_reason": "length" if row.get("truncated") else "stop",
                "behaviour_logprob": None,
                "seed": 0,
            }
        )
        seen[question] += 1
        verdicts.append(
            {
                "trajectory_id": name,
                "gold_digest": problem.gold_digest,
                "status": verdict.status,
                "reward": verdict.reward,
                "answer": verdict.answer,
                "tier": verdict.tier,
                "seconds": verdict.seconds,
                "details": verdict.details,
            }
        )
    store.append_batch(batch, pa.Table.from_pylist(part, schema=PART_SCHEMA))
    with store.write() as connection:
        trajectories.add_verifier(connection, "ver_test", "math", 1, {})
        trajectories.add_verdicts(connection, "ver_test", pa.Table.from_pylist(verdicts, schema=VERDICT_SCHEMA))
    return store


def test_verdicts_agree_with_the_labels(rows, stored):
    found = stored.query("SELECT completion, correct FROM trajectories").to_pylist()
    verdict = {row["completion"]: row["correct"] for row in found}
    labelled = [row for row in rows if row["label"] is not None]
    agreed = sum(verdict[row["completion"]] == row["label"] for row in labelled)
    assert agreed >= 0.97 * len(labelled)


def test_text_and_tokens_come_back_exactly(rows, stored):
    found = {row["completion"] for row in stored.query("SELECT completion FROM trajectories").to_pylist()}
    assert found == {row["completion"] for row in rows}
    names = [row["trajectory_id"] for row in stored.query("SELECT trajectory_id FROM trajectories").to_pylist()]
    with stored.read() as connection:
        tokens = trajectories.tokens(connection, names)
    tokenizer = byte_tokenizer()
    ids = [item.response_ids.tolist() for item in tokens.values()]
    texts = {tokenizer.decode(one, clean_up_tokenization_spaces=False) for one in ids}
    assert texts == {unicodedata.normalize("NFC", text) for text in found}  # the tokenizer composes accents


def test_sql_over_groups_lengths_and_truncation(rows, stored):
    groups = stored.query("SELECT problem_id, count(*) AS n, avg(correct::INT) AS rate FROM trajectories GROUP BY 1")
    assert sum(groups.column("n").to_pylist()) == len(rows)
    cut = stored.query("SELECT count(*) AS n FROM trajectories WHERE truncated").to_pylist()[0]["n"]
    assert cut == sum(bool(row.get("truncated")) for row in rows)
    longest = stored.query("SELECT max(response_tokens) AS n FROM trajectories").to_pylist()[0]["n"]
    assert longest == max(len(unicodedata.normalize("NFC", row["completion"]).encode()) for row in rows)
