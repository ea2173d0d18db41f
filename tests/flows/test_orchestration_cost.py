"""benchmarks/orchestration.py: its ledger, and that flow and plain loop give the same weights."""

import json
import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "orchestration.py"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The ledger's clock, which goes on when it is told to."""
    now = np.zeros(2)
    monkeypatch.setitem(SCRIPT["Ledger"].begin.__globals__, "_now", lambda: now.copy())
    return now


def test_an_inner_part_is_taken_out_of_the_outer_one(clock: Any) -> None:
    ledger = SCRIPT["Ledger"]()
    ledger.begin()
    clock += 1
    with ledger.part("Prefect"):
        clock += 2
        with ledger.part("store", closed=True):
            clock += 4
        clock += 8
    assert {name: seconds.tolist() for name, seconds in ledger.end().items()} == {
        "the rest": [1, 1],
        "Prefect": [10, 10],
        "store": [4, 4],
    }


def test_what_is_inside_a_closed_part_is_a_cost_of_it(clock: Any) -> None:
    ledger = SCRIPT["Ledger"]()
    ledger.begin()
    with ledger.part("MLflow", closed=True), ledger.part("store", closed=True):
        clock += 1
    assert ledger.end()["MLflow"].tolist() == [1, 1]


def test_other_threads_and_the_time_between_rounds_are_not_counted(clock: Any) -> None:
    ledger = SCRIPT["Ledger"]()

    def elsewhere() -> None:
        with ledger.part("store"):
            clock[:] += 1

    with ledger.part("store"):
        clock += 1
    ledger.begin()
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert {name: seconds.tolist() for name, seconds in ledger.end().items()} == {"the rest": [1, 1]}


def test_only_the_time_that_items_take_is_the_generators(clock: Any) -> None:
    class Engine:
        def sample(self) -> Any:
            for item in range(3):
                clock[:] += 1
                yield item

    ledger = SCRIPT["Ledger"]()
    ledger.time_items(Engine, "sample", "sample")
    ledger.begin()
    for _ in Engine().sample():
        clock += 10
    assert {name: seconds.tolist() for name, seconds in ledger.end().items()} == {
        "the rest": [30, 30],
        "sample": [3, 3],
    }


@pytest.mark.long
def test_flow_and_plain_loop_give_the_same_weights(base_folder: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    settings = {
        "model.path": base_folder,
        "rollouts.prompts_per_iteration": 4,
        "rollouts.rollouts_per_prompt": 2,
        "replay.capacity": 16,
        "checkpoint.every": 2,
    }
    given = [argument for key, value in settings.items() for argument in ("--set", f"{key}={value}")]
    command = [sys.executable, "benchmarks/orchestration.py", "--rounds", "4", "--no-starts", "--json", str(result)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    done = subprocess.run([*command, *given], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.exists(), done.stderr
    found = json.loads(result.read_text())
    assert found["differences"] == []
    assert found["table"]["rounds"] == 4
    assert "Losses, policies and weights of the two: the same." in done.stdout
    for name in SCRIPT["WORK"]:
        assert all(found["table"]["parts"][name][loop]["mean"][0] > 0 for loop in ("flow", "plain"))
    # each part was met: a renamed function would be counted elsewhere
    assert {
        "Prefect's task runs",
        "store: reads",
        "store: commits",
        "settle and snapshot",
        "MLflow",
        "Prefect's page",
        "health",
        "line on the terminal",
        "watcher",
        "checksum of the weights",
        "checkpoint (every 10th round)",
    } <= {name for name, part in found["table"]["parts"].items() if part["flow"]["mean"][0] > 0}
