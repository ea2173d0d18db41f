"""A whole run that two ranks learn; a rank that is killed, and one that is stuck; settings that do not go together."""

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from rank_processes import rank_processes
from small_run import Finished, changed, counts, crash_at, lineage, rows, train, value, without_mlflow, without_plots

from reval_core.config import Config
from reval_core.errors import ConfigError, LearningError
from reval_core.home import Home
from reval_core.policies.folder import OPTIMIZER, OPTIMIZER_SHARDS
from tasks.watched import StageEnded


@contextmanager
def sent(home: Home, which: int, what: signal.Signals) -> Iterator[None]:
    """A signal to a rank as soon as it learns."""

    def send() -> None:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            with suppress(FileNotFoundError, psutil.NoSuchProcess):  # the ranks delete files while we look for theirs
                for text in (home.root / "ranks").rglob(f"{which}/stderr.log"):
                    busy = "INFO update" in text.read_text()
                    for process in rank_processes() if busy else ():
                        if process.environ().get("RANK") == str(which):
                            process.send_signal(what)
                            return
            time.sleep(0.002)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture(scope="module")
def config(small: Config) -> Config:
    return changed(small, "learning.ranks=2", "objective.reference_reset_every=2")


@pytest.fixture(scope="module")
def learned(config: Config, environment: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    home = Home(tmp_path_factory.mktemp("ranks"))
    with pytest.MonkeyPatch.context() as patch, without_mlflow(patch), without_plots(patch):
        return Finished(config, home, train(config, home))


@pytest.mark.long
def test_a_run_of_two_ranks_is_that_of_one_process_but_for_rounding(
    learned: Finished, config: Config, home: Home, quick: None
) -> None:
    assert rank_processes() == []
    assert not list((learned.home.root / "ranks").iterdir())
    alone = train(changed(config, "learning.ranks=1", "run.iterations=1"), home)
    run_id = learned.outcome.run_id
    assert alone.run_id == run_id  # how many ranks is no part of what a run is
    losses = "SELECT loss, grad_norm FROM store.updates WHERE policy_id = $id ORDER BY update_index"
    first, of_ranks = lineage(home, run_id)[0], lineage(learned.home, run_id)[0]
    assert first[1] == of_ranks[1]
    for one, two in zip(rows(home, losses, id=first[1]), rows(learned.home, losses, id=first[1]), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    checkpoint = learned.home.policies / lineage(learned.home, run_id)[1][1]
    assert (checkpoint / OPTIMIZER_SHARDS / "optimizer.safetensors.index.json").exists()
    assert not (checkpoint / OPTIMIZER).exists()
    assert json.loads(value(learned.home, "SELECT versions FROM attempts"))["ranks"] == 2

    # one process goes on with a run that two ranks began, and two ranks after it
    assert train(changed(config, "learning.ranks=1", "run.iterations=5"), learned.home).run_id == run_id
    assert train(changed(config, "run.iterations=6"), learned.home).run_id == run_id
    assert len(lineage(learned.home, run_id)) == 6


@pytest.mark.long
def test_a_killed_rank_fails_the_stage_and_the_same_command_goes_on_to_the_same_bits(
    learned: Finished, config: Config, home: Home, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with crash_at(monkeypatch, "learn", 2, "after"):  # two rounds since, of which none is a checkpoint
        train(changed(config, "checkpoint.every=10"), home)
    before = counts(home)
    # until the stage learns round 3, policies 0 to 2 are learned again, which must come to the recorded bits
    with sent(home, 1, signal.SIGKILL), pytest.raises(LearningError) as failure:
        train(changed(config, "checkpoint.every=10"), home)
    assert re.search(r"Rank 1 of 2 was killed by signal 9\. The last lines of its log:\n.*INFO", str(failure.value))
    assert rank_processes() == []
    after = counts(home)
    assert after["updates"] == before["updates"]
    assert after["policies"] == before["policies"]
    attempts = rows(home, "SELECT status, message FROM attempts ORDER BY attempt")
    assert attempts[1]["status"] == "failed"
    assert "Rank 1 of 2" in attempts[1]["message"]
    done = train(changed(config, "checkpoint.every=10"), home)
    assert lineage(home, done.run_id) == lineage(learned.home, learned.outcome.run_id)[:4]


@pytest.mark.long
def test_a_stuck_rank_ends_with_the_stage_that_the_watcher_ends(config: Config, home: Home, quick: None) -> None:
    long = "objective.updates.off_policy=40"  # the signal has to come before the last update
    limited = changed(config, long, "run.iterations=1", "limits.stalled_s=40", "limits.grace_s=60")
    with sent(home, 0, signal.SIGSTOP), pytest.raises(StageEnded, match="learn of round 0 was ended by the watcher"):
        train(limited, home)
    assert rank_processes() == []
    assert len(lineage(home, train(limited, home).run_id)) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learning.ranks=2", "model.lora={rank: 4}"], "model.lora learns adapters"),
        (["learning.ranks=2", "optimizer.use=adamw_8bit"], "'adamw' only, not 'adamw_8bit'"),
        (["learning.ranks=3", "learning.nodes=2", "learning.rendezvous=host:1"], "in equal parts"),
        (["learning.ranks=4", "learning.nodes=2"], "set learning.rendezvous"),
        (["learning.ranks=4", "learning.nodes=2", "learning.rendezvous=host"], "rendezvous"),
        (["learning.ranks=4", "learning.nodes=2", "learning.rendezvous=host:1"], "set learning.folder"),
    ],
)
def test_what_does_not_go_together_is_said(small: Config, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(small, *overrides)


def test_a_model_that_cannot_be_spread_is_refused(small: Config, home: Home, tmp_path: Path, quick: None) -> None:
    import shutil

    folder = Path(shutil.copytree(small.model.path, tmp_path / "other"))
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"model_type": "opt"}))
    with pytest.raises(ConfigError, match="cannot be spread over ranks"):
        train(changed(small, "learning.ranks=2", f"model.path={folder}"), home)
