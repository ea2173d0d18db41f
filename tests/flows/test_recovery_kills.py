"""SIGKILL at every stage's commit: one run, whose every start is killed at the next boundary, until none is left.

The starts are forked from a process that has loaded the libraries, so eighteen of them take seconds. They are without
MLflow and Prefect's server; `test_recovery_chain.py` and `test_processes.py` kill the whole command.
"""

import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from small_run import changed, responses, rows, train, value, without_mlflow, without_plots

from benchmarks.recovery import TABLES
from reval_core.config import Config
from reval_core.home import Home
from reval_core.rollouts.transformers_engine import TransformersEngine
from reval_core.upkeep import StageName
from tasks.run import Run
from tasks.services import configure
from tasks.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.long]
START_S = 480.0
"""Seconds that one start may take, on a machine that is busy."""
ORDER = ("evaluate", "generate", "verify", "score", "persist", "learn", "checkpoint", "rescore", "report")
"""The stages as they come first: the evaluation of the base, the first round, the reset of the reference, the end."""


def start(config: dict[str, Any], root: Path, journal: Path, boundary: tuple[str, str] | None) -> None:
    """One start in a process of its own, which SIGKILL ends at the first such boundary that it comes to."""
    configure(Home(root))
    link, remember, sample = Stage._link, Run.remember, TransformersEngine.sample

    def end(name: str, moment: str) -> None:
        if (name, moment) == boundary:
            os.kill(os.getpid(), signal.SIGKILL)

    def linked(self: Any, connection: Any, here: Any, slot: Any, stage_key: str, *, executed: bool) -> None:
        link(self, connection, here, slot, stage_key, executed=executed)
        if executed:
            end(self.name, "before")  # in the transaction

    def remembered(self: Run, slot: Any, output: Any, *, executed: bool) -> None:
        if executed:
            end(slot[1], "after")
        remember(self, slot, output, executed=executed)

    def sampled(self: Any, requests: Any, settings: Any) -> Iterator[Any]:
        for done in sample(self, requests, settings):
            note = [done.request.problem_id, done.request.sample_index, done.request.seed]
            with open(journal, "a") as file:
                file.write(json.dumps(note) + "\n")
            yield done

    with pytest.MonkeyPatch.context() as patch, without_mlflow(patch), without_plots(patch):
        patch.setattr(Stage, "_link", linked)
        patch.setattr(Run, "remember", remembered)
        patch.setattr(TransformersEngine, "sample", sampled)
        train(Config.model_validate(config), Home(root))


@pytest.mark.usefixtures("quick")
def test_a_kill_before_and_after_every_commit_generates_nothing_again(
    small: Config, benchmark_file: Path, home: Home, tmp_path: Path
) -> None:
    assert set(ORDER) == set(get_args(StageName))
    config = changed(
        small,
        "run.iterations=2",
        "objective.reference_reset_every=1",
        "evaluation.before=true",
        "evaluation.after=true",
        f"evaluation.benchmarks=['{benchmark_file}']",
        "limits.stalled_s=null",
    )
    undisturbed = Home(tmp_path / "undisturbed")
    expected = train(config, undisturbed)

    fork = multiprocessing.get_context("forkserver")
    fork.set_forkserver_preload(["flows.train", "flows.learn"])
    journal = tmp_path / "sampled"
    boundaries = [(name, moment) for name in ORDER for moment in ("before", "after")]
    for boundary in (*boundaries, None):
        process = fork.Process(target=start, args=(config.model_dump(mode="json"), home.root, journal, boundary))
        process.start()
        process.join(START_S)
        assert process.exitcode == (0 if boundary is None else -signal.SIGKILL), boundary

    for name, query in TABLES.items():
        assert rows(home, f"{query} ORDER BY ALL") == rows(undisturbed, f"{query} ORDER BY ALL"), name
    assert responses(home) == responses(undisturbed)
    noted = Counter(journal.read_text().splitlines())
    # an evaluation's noise is the same for each policy, so those of two policies are noted alike
    evaluated = value(home, "SELECT count(*) FROM trajectories WHERE purpose = 'evaluation'") // 2
    assert noted.total() == value(home, "SELECT count(*) FROM trajectories")
    assert sum(count == 2 for count in noted.values()) == evaluated
    statuses = Counter(row["status"] for row in rows(home, "SELECT status FROM attempts"))
    assert statuses == {"crashed": len(boundaries), "completed": 1}
    assert value(home, "SELECT count(*) FROM store.leases WHERE pid != 0") == 0
    again = train(config, home)
    assert again.executed == ()
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (again.checkpoint / name).read_bytes() == (expected.checkpoint / name).read_bytes()
