"""What may come between a kill and the next start: an upgrade, another attempt, lost files, new settings, a backup."""

import importlib.metadata
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import (
    BATCH,
    ROUNDS,
    Finished,
    Reval,
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
from reval_core.errors import LeaseLost
from reval_core.home import Home
from reval_core.identity import LEARNING_VERSION
from reval_core.learning.learner import Learner
from reval_core.policies.materialise import Policies

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick")]
LEARNING = ("reval_core.environment", "reval_core.policies.materialise", "reval_core.store.lineage")
"""Where LEARNING_VERSION is read."""


@contextmanager
def upgraded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A later LEARNING_VERSION, and another release of a library that bits depend on."""
    version_of = importlib.metadata.version
    with monkeypatch.context() as patch:
        for module in LEARNING:
            patch.setattr(f"{module}.LEARNING_VERSION", LEARNING_VERSION + 1)
        patch.setattr("importlib.metadata.version", lambda name: "99.0" if name == "torch" else version_of(name))
        yield


@pytest.mark.parametrize("stage", ["verify", "learn"])
def test_a_run_that_was_killed_and_upgraded_goes_on_from_what_is_stored(
    stage: str,
    small: Config,
    finished: Finished,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Killed in round 1 after it was sampled, with no checkpoint: round 0 is learned again, under the new version."""
    config = changed(small, "run.iterations=2")
    with crash_at(monkeypatch, stage, 1, "before"):
        train(config, home)
    before = counts(home)
    caplog.clear()
    with upgraded(monkeypatch), sampled(monkeypatch) as seen:
        done = train(config, home)
    assert seen == []
    assert counts(home)["trajectories"] == before["trajectories"] == 2 * BATCH
    assert "generate@1" not in done.executed
    assert "learn@1" in done.executed
    run_id = finished.outcome.run_id
    assert done.run_id == run_id
    first, second = lineage(home, run_id)
    undisturbed = lineage(finished.home, run_id)
    assert first == undisturbed[0]  # what is committed keeps its name
    assert second[1] != undisturbed[1][1]  # what is learned by another version is another policy,
    assert second[2] == undisturbed[1][2]  # here with the same weights, since only the number was raised
    change = f"LEARNING_VERSION {LEARNING_VERSION} -> {LEARNING_VERSION + 1}; torch"
    assert f"goes on under other versions: {change}" in caplog.text
    (event,) = rows(home, "SELECT iteration, message FROM events WHERE kind = 'changed versions'")
    assert event["iteration"] == 1
    assert event["message"].startswith(change)
    with upgraded(monkeypatch):
        assert train(config, home).executed == ()


def test_a_library_that_rounds_otherwise_gives_another_realisation_and_samples_nothing_anew(
    small: Config, finished: Finished, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rounded(self: Learner, loss: float) -> tuple[float, float, bool]:
        done = step(self, loss)
        with torch.no_grad():
            next(self.model.parameters()).add_(1e-6)
        return done

    with crash_at(monkeypatch, "learn", 1, "before"):
        train(small, home)
    before, step = responses(home), Learner.step
    with upgraded(monkeypatch), sampled(monkeypatch) as seen, monkeypatch.context() as patch:
        patch.setattr(Learner, "step", rounded)
        done = train(small, home)
        assert train(small, home).executed == ()
    assert len(seen) == len(set(seen)) == (ROUNDS - 2) * BATCH
    assert [row for row in responses(home) if row in before] == before
    first, *later = lineage(home, done.run_id)
    assert first == lineage(finished.home, done.run_id)[0]
    (other,) = rows(home, "SELECT policy_id, weights_checksum, logprob_drift FROM store.realisations")
    assert other["policy_id"] == first[1]
    assert other["weights_checksum"] != first[2]
    # where a processor samples no right answer in round 0, the gradient is rounding alone: Adam makes whole steps of it
    assert 0.0 < other["logprob_drift"] < 1.0
    assert len({checksum for *_, checksum in later} - {row[2] for row in lineage(finished.home, done.run_id)}) == 3


def test_of_two_attempts_at_one_stage_one_writes(
    small: Config, finished: Finished, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that was stuck in round 0 while another did all the work wakes up, and its result is dropped."""
    config = changed(small, "run.iterations=2")
    learn, woken = Policies.learn, []

    def stuck(self: Policies, step: Any) -> Any:
        result = learn(self, step)
        if not woken:
            woken.append(True)
            train(config, home)
            woken.append(counts(home))
        return result

    with monkeypatch.context() as patch, sampled(monkeypatch) as seen:
        patch.setattr(Policies, "learn", stuck)
        with pytest.raises(LeaseLost, match="another attempt, which has finished; this attempt's result is dropped"):
            train(config, home)
    assert counts(home) == woken[1]
    assert len(seen) == len(set(seen)) == 2 * BATCH
    run_id = finished.outcome.run_id
    assert lineage(home, run_id) == lineage(finished.home, run_id)[:2]
    statuses = [row["status"] for row in rows(home, "SELECT status FROM attempts ORDER BY attempt")]
    assert statuses == ["failed", "completed"]
    assert train(config, home).executed == ()


def test_a_killed_run_that_lost_its_checkpoint_learns_all_rounds_again(
    small: Config, finished: Finished, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with crash_at(monkeypatch, "persist", 3, "before"):
        train(small, home)
    (saved,) = [path for path in home.policies.iterdir() if path.is_dir()]
    shutil.rmtree(saved)
    with sampled(monkeypatch) as seen:
        done = train(small, home)
    assert seen == []
    assert done.executed == ("persist@3", "learn@3", "checkpoint@3", "report@3")
    run_id = finished.outcome.run_id
    assert lineage(home, run_id) == lineage(finished.home, run_id)
    assert responses(home) == responses(finished.home)


def test_other_settings_under_the_same_name_are_a_run_of_its_own_that_shares_what_is_the_same(
    small: Config, finished: Finished, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first round's batch depends on the base policy and on no setting of the objective, so it is taken over."""
    config = changed(small, "run.iterations=2")
    with crash_at(monkeypatch, "persist", 1, "before"):
        train(config, home)
    run_id = finished.outcome.run_id
    of_the_old = f"SELECT * FROM store.stage_links WHERE run_id = '{run_id}' ORDER BY ALL"
    before, links = responses(home), rows(home, of_the_old)
    with sampled(monkeypatch) as seen:
        other = train(changed(config, "objective.beta=0.2"), home)
    assert other.run_id.startswith("small-")
    assert other.run_id != run_id
    assert len(seen) == BATCH  # of the second round
    assert [name for name in other.executed if name.endswith("@0")] == ["persist@0", "learn@0"]
    assert rows(home, of_the_old) == links
    assert [row for row in responses(home) if row in before] == before
    with sampled(monkeypatch) as seen:
        done = train(config, home)  # the old command goes on with the old run
    assert seen == []
    assert done.run_id == run_id
    assert lineage(home, run_id) == lineage(finished.home, run_id)[:2]


@pytest.mark.parametrize("place", ["new root", "same root"])
def test_after_an_older_backup_is_restored_only_what_it_lacks_is_sampled_and_comes_out_the_same(
    place: str,
    reval: Reval,
    small: Config,
    finished: Finished,
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backup of round 1, in the place of a store that has four rounds; its later policies may still lie there."""
    with crash_at(monkeypatch, "verify", 1, "after"):
        train(small, home)
    monkeypatch.setenv("REVAL_HOME", str(home.root))
    assert reval("store", "backup", str(tmp_path / "backup"))[0] == 0
    train(small, home)
    later = responses(home)
    if place == "same root":
        for file in home.root.glob("reval.duckdb*"):
            file.unlink()
        shutil.copy(tmp_path / "backup" / "reval.duckdb", home.database)
    else:
        shutil.rmtree(home.root)
        assert reval("store", "restore", str(tmp_path / "backup"))[0] == 0
    assert value(home, "SELECT count(*) FROM trajectories") == 2 * BATCH
    with sampled(monkeypatch) as seen:
        done = train(small, home)
    query = "SELECT t.seed FROM store.trajectories AS t JOIN store.batches USING (batch_id) WHERE round < 2"
    kept = {row["seed"] for row in rows(home, query)}
    assert len(seen) == len(set(seen)) == (ROUNDS - 2) * BATCH
    assert not {seed for *_, seed in seen} & kept
    assert responses(home) == later == responses(finished.home)  # ids, seeds and tokens
    assert lineage(home, done.run_id) == lineage(finished.home, finished.outcome.run_id)
    weights = "model.safetensors"
    assert (done.checkpoint / weights).read_bytes() == (finished.outcome.checkpoint / weights).read_bytes()
