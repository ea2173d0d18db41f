"""Experiments from file to tables: cells computed once, merged, taken over from elsewhere, gone on with when killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from small_run import rows, tree, value

import tasks.compared
from flows import experiment as flow
from flows.cell import run_cell
from flows.cli import main
from reval_core.errors import ConfigError, RevalError
from reval_core.experiments.experiment import Cell, Experiment, load_experiment
from reval_core.experiments.results import Results
from reval_core.home import Home
from reval_core.store import Store, contents
from tasks.cell import cell_root
from tasks.progress import Progress

QUIET = Progress(quiet=True)


@pytest.fixture(scope="session")
def trial_file(
    base_folder: Path, problem_file: Path, benchmark_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two arms, one with a grid, one reported seed: four cells of two rounds of eight responses."""
    folder = tmp_path_factory.mktemp("trial")
    base = tree(base_folder, problem_file)
    base["run"]["iterations"] = 2
    base["evaluation"] = {"benchmarks": [str(benchmark_file)], "samples_per_problem": 2, "every": 1}
    (folder / "base.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    trial = {
        "name": "trial",
        "base": "base.yaml",
        "arms": {
            "reval": {},
            "grpo": {
                "set": {"objective.use": "grpo", "objective.updates": {"on_policy": 1, "off_policy": 0}},
                "tune": {"optimizer.lr": [1e-3, 2e-3]},
            },
        },
        "seeds": [0],
        "tuning_seeds": [1],
        "baseline": "grpo",
        "metric": {"benchmark": str(benchmark_file), "name": "avg@2"},
        "thresholds": [0.01],
    }
    path = folder / "trial.yaml"
    path.write_text(yaml.safe_dump(trial, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def trial(trial_file: Path) -> Experiment:
    return load_experiment(trial_file)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cells run in this process, without the seconds that a fresh one takes; which were."""
    names: list[str] = []

    def run(self: object, cell: Cell, root: Path) -> None:
        names.append(cell.name)
        run_cell(cell.config, Home(root), QUIET)

    monkeypatch.setattr(flow.Processes, "run", run)
    return names


def run_experiment(trial: Experiment, home: Home) -> Results:
    (results,) = flow.run_experiment.fn(trial, home, QUIET)
    return results


@pytest.mark.long
def test_an_experiment_from_its_file_to_its_tables(
    trial: Experiment, home: Home, computed: list[str], trial_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run_experiment(trial, home)
    chosen = results.arms[1].point
    assert computed == ["grpo.lr0.001.s1", "grpo.lr0.002.s1", "reval.s0", f"grpo.{chosen}.s0"]
    assert [at.rounds for at in results.arms[0].curve] == [0, 1, 2]
    assert results.arms[0].curve[-1].tokens > 0
    assert results.arms[0].curve[1].drift is not None
    written = {path.name for path in (home.root / "experiments" / "trial" / "results").iterdir()}
    assert written >= {"results.md", "results.json", "arms.csv", "curves.csv", "by-rounds.png", "by-tokens.svg"}

    # all runs stand in the one store, with their rounds, evaluations and responses
    names = {row["run_name"] for row in rows(home, "SELECT DISTINCT run_name FROM rounds")}
    assert names == {f"trial.{name}" for name in computed}
    assert value(home, "SELECT count(*) FROM rounds") == 4 * 2
    assert value(home, "SELECT count(DISTINCT (run_id, iteration)) FROM evaluations") == 4 * 3
    assert value(home, "SELECT count(*) FROM trajectories WHERE completion IS NULL") == 0
    assert {row["s"] for row in rows(home, "SELECT status AS s FROM runs")} == {"completed"}
    folder = value(
        home,
        "SELECT folder FROM store.policies WHERE policy_id = (SELECT last_policy_id FROM runs WHERE run_name = $name)",
        name="trial.reval.s0",
    )
    assert (home.root / folder / "model.safetensors").is_file()

    # again, also without the roots of the cells: nothing is computed, nothing is added
    before = digests(home)
    computed.clear()
    shutil.rmtree(home.root / "experiments" / "trial" / "cells")
    monkeypatch.setattr(tasks.compared, "figures", lambda results: {})
    assert run_experiment(load_experiment(trial_file), home) == results
    assert computed == []
    assert digests(home) == before


def digests(home: Home) -> dict[str, tuple[int, int]]:
    with Store(home.database).read() as connection:
        return contents.row_digests(connection)


@pytest.mark.long
def test_a_cell_that_fails_holds_up_no_other_and_is_gone_on_with(
    trial: Experiment, home: Home, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = flow.Processes.run

    def failing(self: flow.Processes, cell: Cell, root: Path) -> None:
        if cell.arm == "grpo":
            raise RevalError("no more memory")
        good(self, cell, root)

    with monkeypatch.context() as patch:
        patch.setattr(flow.Processes, "run", failing)
        with pytest.raises(RevalError, match=r"2 of 3 cells of trial failed(?s:.*)grpo.lr0.001.s1: no more memory"):
            run_experiment(trial, home)
    assert computed == ["reval.s0"]
    assert value(home, "SELECT count(*) FROM store.leases WHERE pid != 0") == 0
    cells = [trial.cell("grpo", trial.arms["grpo"].points()[0], 1)]
    flow.run_cells(trial, cells, home, QUIET, 1)
    assert computed == ["reval.s0", "grpo.lr0.001.s1"]


@pytest.mark.long
def test_cells_of_another_machine_are_taken_in(
    trial: Experiment, home: Home, computed: list[str], tmp_path: Path
) -> None:
    other = Home(tmp_path / "other")
    Store(other.database).prepare()
    wanted = [cell for _, cell in flow.named([trial], "reval.*")]
    there = flow.run_cells(trial, wanted, other, QUIET, 1)
    computed.clear()
    with pytest.raises(ConfigError, match="lies no cell of trial"):
        flow.take_in([trial], home.models, home)
    assert flow.take_in([trial], other.root, home) == ["reval.s0"]
    assert flow.take_in([trial], other.root, home) == []
    Store(home.database).prepare()
    here = flow.run_cells(trial, wanted, home, QUIET, 1)
    assert here["reval.s0"].curve == there["reval.s0"].curve
    assert value(home, "SELECT count(*) FROM rounds") == 2
    assert computed == [], "it was found whole"
    assert value(home, "SELECT max(attempts) FROM runs") == 1


def test_a_pattern_that_names_no_cell(trial: Experiment) -> None:
    with pytest.raises(ConfigError, match="No cell is called 'dpo\\*'"):
        flow.named([trial], "dpo*")
    assert [cell.name for _, cell in flow.named([trial], "trial/grpo.*.s0")] == ["grpo.lr0.001.s0", "grpo.lr0.002.s0"]


def test_the_problem_with_the_wanted_pass_rate(trial: Experiment, home: Home, problem_file: Path) -> None:
    levels = {"candidates": {"path": str(problem_file), "samples": 4}, "problems": {"easy": {"base_pass_rate": 1.0}}}
    levels["metric"] = {"benchmark": "problem", "name": "avg@2"}
    asked = Experiment.model_validate(trial.model_dump() | levels)
    Store(home.database).prepare()
    (easy,) = flow.alone(asked, home, QUIET)
    rates = rows(
        home,
        "SELECT question, avg((status = 'correct')::INT) AS rate FROM trajectories GROUP BY question ORDER BY rate",
    )
    best = {row["question"] for row in rates if row["rate"] == rates[-1]["rate"]}
    assert len(rates) == 6
    assert easy.set["problems"][0]["filter"].split("'")[1] in best
    (again,) = flow.alone(asked, home, QUIET)
    assert again == easy
    assert value(home, "SELECT count(DISTINCT evaluation_id) FROM evaluations") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "pol_1"], "Name a second policy, or an experiment"),
        (["compare", "TRIAL", "--samples", "3"], "the rest stands in its file"),
        (["compare", "a", "b", "--plan"], "are for an experiment"),
        (["compare", "nowhere.yaml"], "no configuration file"),
    ],
)
def test_what_does_not_go_together_is_said(
    arguments: list[str], said: str, trial_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    given = [str(trial_file) if word == "TRIAL" else word for word in arguments]
    monkeypatch.setattr("sys.argv", ["reval", *given])
    with pytest.raises(SystemExit):
        main()
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.long
def test_a_kill_in_the_middle_costs_what_was_under_way(trial_file: Path, home: Home) -> None:
    raw = yaml.safe_load(trial_file.read_text(encoding="utf-8"))
    raw["set"] = {"run.iterations": 20}
    longer = trial_file.with_name("longer.yaml")
    longer.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    program = "from flows.cli import main; main()"
    command = [sys.executable, "-c", program, "compare", str(longer), "--cell", "reval.s0"]
    root = cell_root(home, "trial", load_experiment(longer).cell("reval", {}, 0))
    first = subprocess.Popen(command, env=environment_of(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not Home(root).database.exists() or not trained(root):
        assert first.poll() is None
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = subprocess.run(command, env=environment_of(home), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "reval.s0" in done.stdout
    assert value(home, "SELECT count(*) FROM rounds") == 20
    assert value(home, "SELECT max(attempts) FROM runs") == 2


def environment_of(home: Home) -> dict[str, str]:
    return {**os.environ, "REVAL_HOME": str(home.root), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def trained(root: Path) -> bool:
    return bool(Store(Home(root).database).query("SELECT 1 FROM store.replay_entries LIMIT 1").num_rows)
