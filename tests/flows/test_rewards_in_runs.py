"""Rewards of one's own, responses that are left out, and rewards that fail, in a run."""

from pathlib import Path

import pytest
from small_run import BATCH, changed, rows, sampled, train, without_mlflow, without_plots

from reval_core.config import Config
from reval_core.errors import VerificationError
from reval_core.home import Home

ENDLESS = '''
"""An engine whose responses never end by themselves."""

from reval_core.rollouts import Sample


class Endless:
    name, copies_weights = "endless/1", False

    def __init__(self, **settings): ...
    def load(self, policy_id, model): ...
    def sleep(self): ...
    def close(self): ...

    def sample(self, requests, settings):
        token = next(token for token in range(9) if token not in settings.stop_ids)
        for request in requests:
            yield Sample(request, (token,) * settings.max_new_tokens, "length", -1.0)
'''

REWARDS = '''
"""Rewards of a user."""


def brevity(problem, completions, *, scale):
    """Shorter is better, and a question's first digit counts."""
    return [int(problem.question[0]) - scale * len(completion) for completion in completions]


brevity.version = 3


def broken(problem, completions):
    """Never gives a number."""
    raise ArithmeticError("no luck today")
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rewards.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("quick", "module")
def test_a_real_valued_reward_of_ones_own(small: Config, home: Home) -> None:
    config = changed(
        small, "run.iterations=1", "reward.use=own_rewards:brevity", "reward.args={scale: 0.25}",
        "reward.transform=raw", "reward.workers=1",
    )  # fmt: skip
    done = train(config, home)
    told = rows(home, "SELECT question, completion, status, reward, reward_used FROM trajectories")
    assert len(told) == BATCH
    for row in told:
        expected = int(row["question"][0]) - 0.25 * len(row["completion"])
        assert row["reward"] == row["reward_used"] == expected
        assert row["status"] == ("correct" if expected > 0 else "incorrect")
    learned = rows(home, "SELECT reward FROM update_members WHERE update_index = 0")
    assert sorted(row["reward"] for row in learned) == sorted(row["reward_used"] for row in told)
    (verifier,) = rows(home, "SELECT name, settings FROM store.verifiers")
    assert verifier["name"] == "own_rewards:brevity"
    assert done.rounds == 1


@pytest.mark.usefixtures("quick", "module")
def test_a_reward_that_fails_stops_the_run_and_keeps_its_verdicts(
    small: Config, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(small, "run.iterations=1", "reward.use=own_rewards:broken", "reward.workers=1")
    with pytest.raises(VerificationError, match=r"8 of 8 answers .* could not be graded .*max_failure_share = 0.05"):
        train(config, home)
    verdicts = rows(home, "SELECT status, details FROM verdicts")
    assert [row["status"] for row in verdicts] == ["error"] * BATCH
    assert all("no luck today" in row["details"] for row in verdicts)
    assert rows(home, "SELECT * FROM replay") == []
    (attempt,) = rows(home, "SELECT status, message FROM attempts")
    assert attempt["status"] == "failed"
    assert attempt["message"].startswith("VerificationError: 8 of 8")

    with sampled(monkeypatch) as seen:
        done = train(changed(config, "reward.max_failure_share=1"), home)
    assert seen == []
    assert "generate@0" not in done.executed
    assert "verify@0" in done.executed  # a failure to grade does not stand
    assert [row["reward_used"] for row in rows(home, "SELECT reward_used FROM replay")] == [0.0] * BATCH


def test_a_run_whose_responses_are_all_dropped_keeps_its_policy(
    small: Config, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "endless_engine.py").write_text(ENDLESS)
    monkeypatch.syspath_prepend(str(tmp_path))
    engine = "rollouts.engine.use=endless_engine:Endless"
    config = changed(small, "run.iterations=2", engine, "evaluation.before=false", "evaluation.after=false",
                     "reward.truncated=drop")  # fmt: skip
    with without_mlflow(monkeypatch):  # with the plots, which have nothing to show
        done = train(config, home)
    told = rows(home, "SELECT * FROM rounds ORDER BY iteration")
    assert [(row["updates"], row["truncated_share"], row["reward_mean"]) for row in told] == [(0, 1.0, 0.0)] * 2
    assert {row["policy_id"] for row in told} == {told[0]["parent_policy_id"], done.policy_id}
    assert len({row["policy_id"] for row in told}) == 1
    assert told[0]["batch_id"] != told[1]["batch_id"]  # and it goes on asking
    events = rows(home, "SELECT iteration, kind FROM events WHERE kind = 'no updates' ORDER BY iteration")
    assert [row["iteration"] for row in events] == [0]  # the second round finds the first one's (non-)work done
    assert done.report.is_file()
    with without_mlflow(monkeypatch), without_plots(monkeypatch):
        assert train(config, home).executed == ()
