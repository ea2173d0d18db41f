"""An experiment's file and the configurations of its cells."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from reval_core.errors import ConfigError
from reval_core.experiments.experiment import Experiment, load_experiment

ROOT = Path(__file__).resolve().parents[2]


def load(folder: Path, tree: dict[str, Any]) -> Experiment:
    path = folder / "trial.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return load_experiment(path)


def test_the_later_setting_counts(folder: Path, tree: dict[str, Any]) -> None:
    trial = load(folder, tree)
    grpo, reval = (trial.cell(name, trial.arms[name].points()[-1], 1) for name in ("grpo", "reval"))
    assert (grpo.name, grpo.config.run.name, grpo.config.run.seed) == ("grpo.lr0.0003.s1", "trial.grpo.lr0.0003.s1", 1)
    assert (grpo.config.objective.use, grpo.config.optimizer.lr) == ("grpo", 3e-4)
    assert grpo.config.objective.updates.on_policy == 4
    assert (reval.name, reval.config.optimizer.lr, reval.config.run.iterations) == ("reval.s1", 2e-4, 3)
    assert reval.config.model.threads == 1
    assert reval.config.limits.stalled_s is None


def test_a_grid_is_searched_on_seeds_of_its_own(folder: Path, tree: dict[str, Any]) -> None:
    tree["arms"]["grpo"]["tune"]["objective.clip_high"] = [0.2, 0.28]
    trial = load(folder, tree)
    assert trial.tuned() == ["grpo"]
    assert [cell.name for cell in trial.tuning_cells()] == [
        "grpo.lr0.0001-clip_high0.2.s7",
        "grpo.lr0.0001-clip_high0.28.s7",
        "grpo.lr0.0003-clip_high0.2.s7",
        "grpo.lr0.0003-clip_high0.28.s7",
    ]
    assert len(trial.every_cell()) == 4 + 4 * 2 + 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": [1]}, "seed: unknown key"),
        ({"baseline": "dpo"}, "none of the arms: grpo, reval"),
        ({"tuning_seeds": [1]}, "seed 1 is in seeds and in tuning_seeds"),
        ({"tuning_seeds": []}, "'grpo' has a grid"),
        ({"seeds": [0, 0]}, "stands twice"),
        ({"name": "two words"}, "name:"),
        ({"arms": {"a b": {}}, "baseline": None}, "letters, digits"),
        ({"arms": {"x": {"tune": {"optimizer.lr": []}}}, "baseline": None}, "a list without values"),
        ({"arms": {"x": {"set": {"optimiser.lr": 1}}}, "baseline": None}, "arm x is not usable"),
        ({"set": {"problems.7.limit": 1}}, "arm grpo: problems.7.limit"),
        ({"metric": {"benchmark": "aime24", "name": "avg@2"}}, "none of evaluation.benchmarks: arithmetic"),
        ({"metric": {"benchmark": "arithmetic", "name": "avg@4"}}, "evaluation.samples_per_problem is 2"),
        ({"metric": {"benchmark": "arithmetic", "name": "acc@2"}}, "'acc@2' is none of avg@2, pass@2, maj@2, right_by"),
        ({"metric": {"benchmark": "arithmetic", "name": "accuracy"}}, "'accuracy' is none of avg@2"),
        ({"set": {"evaluation.after": False}}, "evaluation.after is false"),
        ({"set": {"rollouts.deadline_s": 5.0}}, "rollouts.deadline_s cuts by the clock"),
        ({"base": "nowhere.yaml"}, "no configuration file"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, tree: dict[str, Any], change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(folder, tree | change)
    assert said in str(raised.value)


def test_one_problem_alone(folder: Path, tree: dict[str, Any]) -> None:
    tree["metric"]["benchmark"] = "problem"
    trial = load(folder, tree | {"problems": {"hard": {"base_pass_rate": 0.1}}})
    hard = trial.on_problem("hard", "it's 1+1=?")
    config = hard.cell("reval", {}, 0).config
    assert hard.name == "trial-hard"
    assert config.run.name == "trial-hard.reval.s0"
    assert config.problems[0].filter == "question = 'it''s 1+1=?'"
    assert config.evaluation.benchmarks == ("problem",)
    assert config.evaluation.files["problem"].filter == config.problems[0].filter


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_ones_can_be_used(path: Path) -> None:
    shipped = load_experiment(path)
    assert shipped.name == path.stem
    assert shipped.about
    assert len(shipped.seeds) >= (2 if shipped.name == "tiny" else 5)
