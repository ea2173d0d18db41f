"""One stage again: nothing where nothing changes; else a fork that does what the change reaches, and no more."""

import json
from pathlib import Path

import pytest
from small_run import BATCH, ROUNDS, Finished, changed, counts, lineage, rows, sampled, train, value

from flows.rerun import Rerun, rerun
from reval_core.config import Config
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from tasks.outcome import Outcome
from tasks.progress import Progress

pytestmark = pytest.mark.usefixtures("quick")


def again(home: Home, run_id: str, stage: str, iteration: int, *overrides: str, force: bool = False) -> Rerun:
    return rerun(home, run_id, stage, iteration, force=force, overrides=overrides, progress=Progress(quiet=True))


def carried_out(home: Home, plan: Rerun) -> Outcome:
    assert plan.fork is not None
    return train(plan.config, home, plan.fork)


@pytest.mark.parametrize("stage", ["generate", "verify", "persist", "learn"])
def test_what_would_be_the_same_makes_nothing(stage: str, finished: Finished, copied: Home) -> None:
    before = counts(copied)
    plan = again(copied, finished.outcome.run_id, stage, 1)
    assert plan.fork is None
    assert "the same" in plan.why or "unchanged" in plan.why
    assert counts(copied) == before


@pytest.fixture
def problems(problem_file: Path, tmp_path: Path) -> Path:
    """The six problems in a file that may be edited."""
    path = tmp_path / "problems.jsonl"
    path.write_bytes(problem_file.read_bytes())
    return path


def mend(problems: Path, home: Home, trajectory_id: str) -> None:
    """Make the answer of a stored wrong response the gold answer of its problem."""
    (told,) = rows(home, "SELECT question, answer FROM trajectories WHERE trajectory_id = $t", t=trajectory_id)
    lines = [json.loads(line) for line in problems.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if line["question"] == told["question"]:
            line["answer"] = told["answer"]
    problems.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def late(home: Home, run_id: str) -> tuple[str, int, int]:
    """(id, own round, first round that used it) of a wrong response of one answer that was drawn later than it could.

    Whoever makes its answer the gold one flips it, whoever gave the same answer and whoever was right: none of them was
    used earlier.
    """
    told = rows(
        home,
        """
        SELECT t.trajectory_id, t.problem_id, t.iteration, t.status, t.answer, min(p.iteration) AS used
        FROM run_trajectories AS t
        LEFT JOIN update_members AS m USING (trajectory_id)
        LEFT JOIN policies AS p ON p.policy_id = m.policy_id
        WHERE t.run_id = $run
        GROUP BY ALL
        ORDER BY t.iteration, t.trajectory_id
        """,
        run=run_id,
    )
    for one in (row for row in told if row["status"] == "incorrect" and row["answer"] is not None and row["used"]):
        same = [row for row in told if row["problem_id"] == one["problem_id"]]
        flipped = [row for row in same if row["status"] == "correct" or row["answer"] == one["answer"]]
        used, own = min(row["used"] or ROUNDS for row in flipped), min(row["iteration"] for row in flipped)
        if used > own + 1:
            return one["trajectory_id"], own, used
    raise AssertionError("no response was drawn later than in the round after its own: take another seed")


@pytest.mark.long
def test_a_mended_gold_answer_opens_a_fork_from_its_round(
    small: Config, problems: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(small, f"problems.0.path={problems}")
    run_id = train(config, home).run_id
    history = lineage(home, run_id)
    flipped = value(
        home,
        "SELECT trajectory_id FROM run_trajectories WHERE run_id = $run AND iteration = 1 AND status = 'incorrect' "
        "AND answer IS NOT NULL ORDER BY ALL LIMIT 1",
        run=run_id,
    )
    mend(problems, home, flipped)
    plan = again(home, run_id, "verify", 1)
    assert plan.fork is not None
    assert plan.fork.iteration == 1
    assert "rewards of round 1 are others now" in plan.why
    with sampled(monkeypatch) as seen:
        done = carried_out(home, plan)
    assert done.rounds == ROUNDS
    assert "generate@1" not in done.executed  # the responses of its round are its parent's
    assert {"persist@1", "learn@1"} <= set(done.executed)
    assert len(seen) == 2 * BATCH  # rounds 2 and 3, by policies that are new
    assert lineage(home, run_id) == history  # nothing rewrites history
    assert lineage(home, done.run_id)[0] == history[0]
    reward = "SELECT reward_used FROM replay WHERE run_id = $run AND trajectory_id = $t"
    assert value(home, reward, run=run_id, t=flipped) == 0
    assert value(home, reward, run=done.run_id, t=flipped) == 1
    assert again(home, done.run_id, "verify", 1).fork is None  # there it stands


@pytest.mark.long
def test_learning_again_runs_the_updates_that_used_the_row_and_what_follows(
    small: Config, problems: Path, home: Home
) -> None:
    """Updates of draws alone: a row may be drawn rounds after its own, and the rounds between need no learning."""
    config = changed(
        small,
        f"problems.0.path={problems}",
        "objective.updates={on_policy: 0, off_policy: 1}",
        "replay={capacity: 64, excludes_fresh: true}",
        "rollouts.prompts_per_iteration=6",
    )
    run_id = train(config, home).run_id
    flipped, own_round, first_used = late(home, run_id)
    mend(problems, home, flipped)
    assert again(home, run_id, "learn", own_round - 1).fork is None if own_round else True
    plan = again(home, run_id, "learn", first_used)
    assert plan.fork is not None
    assert plan.fork.iteration == own_round
    done = carried_out(home, plan)
    learned = sorted(stage for stage in done.executed if stage.startswith("learn@"))
    assert learned == [f"learn@{iteration}" for iteration in range(first_used, ROUNDS)]
    assert lineage(home, done.run_id)[:first_used] == lineage(home, run_id)[:first_used]
    assert lineage(home, done.run_id)[first_used] != lineage(home, run_id)[first_used]


def test_force_samples_a_round_anew(finished: Finished, copied: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = again(copied, finished.outcome.run_id, "generate", 3, force=True)
    assert plan.fork is not None
    assert dict(plan.fork.forced) == {"generate@3": 1}
    assert "whose responses are new" in plan.why
    with sampled(monkeypatch) as seen:
        done = carried_out(copied, plan)
    assert len(seen) == BATCH + 3 * 2  # the round, and three evaluation problems with the policy that it gives
    assert lineage(copied, done.run_id)[:3] == lineage(copied, finished.outcome.run_id)[:3]


def test_another_setting_is_a_fork_from_that_round(finished: Finished, copied: Home) -> None:
    plan = again(copied, finished.outcome.run_id, "verify", 2, "reward.extraction=lenient")
    assert plan.fork is not None
    assert plan.fork.iteration == 2
    assert plan.config.reward.extraction == "lenient"


def test_a_plan_is_kept_as_json_and_read_again(finished: Finished, copied: Home) -> None:
    plan = again(copied, finished.outcome.run_id, "generate", 3, force=True)
    assert Rerun.from_json(json.loads(json.dumps(plan.as_json()))) == plan


@pytest.mark.parametrize(
    ("stage", "iteration", "force", "error", "message"),
    [
        ("verify", 4, False, StoreError, "has learned 4 rounds, 0 to 3"),
        ("verify", 1, True, ConfigError, "force has no meaning for verify"),
        ("score", 1, False, ConfigError, "generate, verify, persist, learn"),
    ],
)
def test_what_cannot_be_done_again_is_said(
    stage: str, iteration: int, force: bool, error: type[Exception], message: str, finished: Finished, copied: Home
) -> None:
    with pytest.raises(error, match=message):
        again(copied, finished.outcome.run_id, stage, iteration, force=force)


def test_an_unknown_run_is_said(copied: Home) -> None:
    with pytest.raises(StoreError, match="no run nobody"):
        again(copied, "nobody", "verify", 0)
