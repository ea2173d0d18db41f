"""An attempt that dies, wherever it dies: nothing is generated twice or lost, the weights are the same bits."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from small_run import (
    BATCH,
    ROLLOUTS,
    ROUNDS,
    Crash,
    Finished,
    changed,
    counts,
    crash_at,
    lineage,
    responses,
    rows,
    sampled,
    train,
    value,
)

from reval_core.config import Config
from reval_core.errors import StoreError
from reval_core.home import Home
from reval_core.store import Store, trajectories

pytestmark = pytest.mark.usefixtures("quick")
STAGES = ("generate", "verify", "score", "persist", "learn", "checkpoint")


def training_rows(home: Home, run_id: str) -> dict[str, list[Any]]:
    """What the first two rounds wrote, all but times and provenance."""
    queries = {
        "verdicts": "SELECT * EXCLUDE (seconds, graded_at) FROM store.verdicts WHERE trajectory_id IN (FROM of_rounds)",
        "scores": "SELECT * FROM store.reference_scores WHERE trajectory_id IN (FROM of_rounds)",
        "replay": "SELECT * EXCLUDE (run_id) FROM store.replay_entries WHERE iteration < 2",
        "updates": "SELECT * EXCLUDE (run_id) FROM updates WHERE iteration < 2",
        "members": "SELECT * EXCLUDE (run_id) FROM update_members WHERE iteration < 2",
        "schedule": "SELECT * EXCLUDE (run_id) FROM store.rounds WHERE iteration < 2",
        "links": "SELECT iteration, stage, slot, stage_key FROM store.stage_links "
        "WHERE iteration BETWEEN 0 AND 1 AND stage != 'report'",
    }
    of_rounds = "WITH of_rounds AS (SELECT trajectory_id FROM trajectories WHERE iteration < 2)"
    found = {name: rows(home, f"{of_rounds} {query} ORDER BY ALL") for name, query in queries.items()}
    return found | {"responses": responses(home), "lineage": lineage(home, run_id)}


@pytest.fixture(scope="module")
def expected(finished: Finished) -> dict[str, list[Any]]:
    """The first two rounds of a run that nobody disturbed."""
    found = training_rows(finished.home, finished.outcome.run_id)
    known = {
        row["trajectory_id"]
        for row in rows(finished.home, "SELECT trajectory_id FROM trajectories WHERE iteration < 2")
    }
    return found | {
        "responses": [row for row in found["responses"] if row[0].strip('"') in known],
        "lineage": found["lineage"][:2],
    }


@pytest.fixture
def two_rounds(small: Config) -> Config:
    """The small run's first two rounds, each response committed as it ends."""
    return changed(small, "run.iterations=2", "store.flush_seconds=0.000001")


@pytest.mark.long
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_attempt_may_die_at_every_boundary(
    moment: str, two_rounds: Config, expected: dict[str, Any], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sampled(monkeypatch) as seen:
        for name in STAGES:
            with crash_at(monkeypatch, name, 1, moment):
                train(two_rounds, home)
        done = train(two_rounds, home)
    assert training_rows(home, done.run_id) == expected
    assert len(seen) == len(set(seen)) == 2 * BATCH
    statuses = [row["status"] for row in rows(home, "SELECT status FROM attempts ORDER BY attempt")]
    assert statuses == ["failed"] * len(STAGES) + ["completed"]
    assert value(home, "SELECT count(*) FROM store.leases WHERE pid != 0") == 0


def test_a_kill_inside_generation_keeps_what_was_flushed(
    two_rounds: Config, expected: dict[str, Any], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sampled(monkeypatch, crash_after=BATCH + 5) as first, pytest.raises(Crash):
        train(two_rounds, home)
    assert value(home, "SELECT count(*) FROM trajectories WHERE iteration = 1") == 5
    assert value(home, "SELECT count(*) FROM stages WHERE stage = 'generate'") == 1  # no batch is half in
    with sampled(monkeypatch) as second:
        done = train(two_rounds, home)
    assert len(second) == BATCH - 5
    assert not set(first) & set(second)
    assert training_rows(home, done.run_id) == expected
    assert value(home, "SELECT tokens_generated FROM rounds WHERE iteration = 1") == value(
        home, "SELECT sum(response_tokens)::BIGINT FROM trajectories WHERE iteration = 1"
    )


def test_responses_that_the_database_does_not_take_wait_beside_it(
    small: Config, expected: dict[str, Any], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise duckdb.IOException("Could not write file: No space left on device")

    config = changed(small, "run.iterations=1")
    with monkeypatch.context() as patch, sampled(monkeypatch) as first:
        patch.setattr(trajectories, "append_part", full)
        with pytest.raises(StoreError, match=r"No space left.* 8 responses are safe in .*spool"):
            train(config, home)
    assert len(first) == BATCH
    assert value(home, "SELECT count(*) FROM trajectories") == 0
    with sampled(monkeypatch) as second:
        done = train(config, home)
    assert second == []
    assert list(Store(home.database).spool.iterdir()) == []
    assert lineage(home, done.run_id) == expected["lineage"][:1]


@pytest.mark.parametrize("lost", [1, 2])
def test_policies_come_back_from_stored_trajectories(
    lost: int, finished: Finished, copied: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the last checkpoint two rounds are learned again, without any checkpoint all four."""
    saved = rows(
        copied, "SELECT folder FROM policies WHERE kind = 'learned' AND folder IS NOT NULL ORDER BY iteration DESC"
    )
    for row in saved[:lost]:
        shutil.rmtree(copied.root / row["folder"])
    before = counts(copied)
    with sampled(monkeypatch) as seen:
        done = train(changed(finished.config, "evaluation.after=false"), copied)
    assert seen == []
    assert done.executed == (f"checkpoint@{ROUNDS - 1}",)
    assert counts(copied) == before
    for name in ("model.safetensors", "optimizer.safetensors", "reval.json"):
        assert (done.checkpoint / name).read_bytes() == (finished.outcome.checkpoint / name).read_bytes()


def test_a_run_that_died_before_its_base_was_recorded_goes_on(
    small: Config, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(run: Any) -> None:
        raise Crash("recording the base policy")

    config = changed(small, "run.iterations=0")
    with monkeypatch.context() as patch:
        patch.setattr("tasks.open_run._record_base", killed)
        with pytest.raises(Crash):
            train(config, home)
    assert train(config, home).rounds == 0
    assert [row["status"] for row in rows(home, "SELECT status FROM attempts ORDER BY attempt")] == [
        "failed",
        "completed",
    ]


def test_a_gold_answer_mended_in_the_middle_of_a_round_regrades_it(
    small: Config, home: Home, tmp_path: Any, problem_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mended = tmp_path / "mended.jsonl"
    mended.write_text(problem_file.read_text())
    config = changed(small, "run.iterations=1", f"problems.0.path={mended}")
    with crash_at(monkeypatch, "verify", 0, "after"):
        train(config, home)
    (wrong, *_) = rows(home, "SELECT question, answer FROM trajectories WHERE status = 'incorrect' ORDER BY ALL")
    problems = [json.loads(line) for line in mended.read_text().splitlines()]
    problems = [wrong if problem["question"] == wrong["question"] else problem for problem in problems]
    mended.write_text("\n".join(map(json.dumps, problems)))
    with sampled(monkeypatch) as seen:
        train(config, home)
    assert seen == []
    admitted = (
        "SELECT sum(replay.reward_used) FROM replay JOIN trajectories USING (trajectory_id) WHERE question = $question"
    )
    assert value(home, "SELECT count(*) FROM replay") == BATCH
    assert value(home, admitted, question=wrong["question"]) >= 1
    assert value(home, "SELECT count(*) FROM verdicts") == BATCH + ROLLOUTS  # the earlier ones stay


@pytest.fixture(autouse=True)
def _no_leftovers(home: Home) -> Iterator[None]:
    """Whatever happened, no half-written folder and no waiting part is left."""
    yield
    left = [path for path in home.root.rglob("*") if ".tmp" in path.name] if home.root.exists() else []
    assert left == []
