"""From curves to tables, with numbers worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from reval_core.experiments import tables
from reval_core.experiments.experiment import Experiment, load_experiment
from reval_core.experiments.results import Results, choose, compared
from reval_core.home import Home
from tasks.compared import write_results


def curve(*values: float, drift: float | None = None) -> list[dict[str, Any]]:
    """An evaluation after each round, 1000 tokens and 2 seconds a round."""
    return [
        {"rounds": n, "tokens": 1000 * n, "seconds": 2.0 * n, "value": value, "drift": drift}
        for n, value in enumerate(values)
    ]


CURVES = {
    "grpo.lr0.0001.s7": curve(0.2, 0.3, 0.4, 0.5),
    "grpo.lr0.0003.s7": curve(0.2, 0.5, 0.5, 0.4),
    "grpo.lr0.0003.s0": curve(0.2, 0.4, 0.6, 0.6),
    "grpo.lr0.0003.s1": curve(0.2, 0.2, 0.2, 0.2),
    "reval.s0": curve(0.2, 0.6, 0.8, 0.8, drift=1.5),
    "reval.s1": curve(0.2, 0.6, 0.3, 0.6, drift=2.5),
}


@pytest.fixture
def trial(folder: Path, tree: dict[str, Any]) -> Experiment:
    (folder / "trial.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return load_experiment(folder / "trial.yaml")


@pytest.fixture
def results(trial: Experiment) -> Results:
    return compared(trial, {"grpo": choose(trial, "grpo", CURVES), "reval": {}}, CURVES)


def test_the_best_point_is_chosen_by_the_rule(trial: Experiment) -> None:
    # means after learning began: 0.4 and 0.467
    assert choose(trial, "grpo", CURVES) == {"optimizer.lr": 3e-4}
    slow = CURVES | {"grpo.lr0.0001.s7": curve(0.2, 0.0, 0.0, 0.9, 0.9), "grpo.lr0.0003.s7": curve(0.2, *[0.5] * 4)}
    assert choose(trial, "grpo", slow) == {"optimizer.lr": 3e-4}  # 0.45 and 0.5
    by_end = trial.model_copy(update={"tune_by": "final"})
    assert choose(by_end, "grpo", slow) == {"optimizer.lr": 1e-4}  # 0.6 and 0.5
    even = CURVES | {"grpo.lr0.0003.s7": CURVES["grpo.lr0.0001.s7"]}
    assert choose(trial, "grpo", even) == {"optimizer.lr": 1e-4}  # the first


def test_the_first_evaluation_counts_where_learning_had_begun(trial: Experiment) -> None:
    # a run with evaluation.before: false, and one that is evaluated once, at its end
    late = {name: curve(0.2, *values)[1:] for name, values in (("grpo.lr0.0001.s7", [0.9, 0.1]),)}
    late["grpo.lr0.0003.s7"] = curve(0.2, 0.0, 0.45)[2:]
    assert choose(trial, "grpo", late) == {"optimizer.lr": 1e-4}  # 0.5 and 0.45
    assert choose(trial.model_copy(update={"tune_by": "final"}), "grpo", late) == {"optimizer.lr": 1e-4}


def test_arms_over_their_seeds(results: Results) -> None:
    grpo, reval = results.arms
    assert grpo.finals == pytest.approx({0: 1.6 / 3, 1: 0.2})
    assert reval.finals == pytest.approx({0: 2.2 / 3, 1: 0.5})
    assert reval.difference is not None
    assert reval.difference.value == pytest.approx(0.25)  # 0.2 and 0.3
    assert grpo.difference is None
    assert [at.value.value for at in reval.curve] == pytest.approx([0.2, 0.6, 0.55, 0.7])
    assert (reval.curve[2].tokens, reval.curve[2].seconds, reval.curve[2].drift) == (2000, 4.0, 2.0)
    assert reval.fall.value == pytest.approx(0.15)
    assert reval.drift is not None
    assert reval.drift.value == 2.0
    assert grpo.drift is None


def test_thresholds(results: Results) -> None:
    grpo, reval = (arm.reached[0.5] for arm in results.arms)
    assert (grpo["rounds"].count, grpo["rounds"].of, grpo["rounds"].first) == (1, 2, 1)  # 0.4 and 0.6 average 0.5
    assert grpo["rounds"].median is None
    assert (reval["rounds"].count, reval["rounds"].median, reval["tokens"].median) == (1, None, None)


def test_the_page_says_who_never_got_there(results: Results) -> None:
    page = tables.markdown(results)
    assert "| grpo | 1 of 2 | not by half [1, 1] |" in page
    assert "| grpo | lr0.0003 | 0.467 | chosen |" in page
    assert "0.250" in page
    assert "not reported above" in page


def test_files_for_programs(results: Results) -> None:
    data = json.loads(tables.as_json(results))
    assert data["experiment"]["name"] == "trial"
    assert data["arms"][1]["reached"]["0.5"]["rounds"]["count"] == 1
    head, *rows = tables.arms_csv(results).splitlines()
    assert head.startswith("arm,point,seeds,final,final_low")
    assert len(rows) == 2
    assert len(tables.curves_csv(results).splitlines()) == 1 + 2 * 4


def test_everything_is_written_beside_each_other(results: Results, tmp_path: Path) -> None:
    folder = write_results(Home(tmp_path), results)
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "results.md",
        "results.json",
        "arms.csv",
        "curves.csv",
        "by-rounds.png",
        "drift.svg",
        "results.html",
    }
    page = (folder / "results.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4 and "<img" not in page
    for told in ("minus grpo", "To 0.5", "0.250 [-0.385", "By tokens", "lr0.0003"):
        assert told in page
