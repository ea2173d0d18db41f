"""Writes what came out of an experiment: tables and plots under ``experiments/NAME/results``."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from reval_core.experiments import tables
from reval_core.experiments.results import Arm, Results
from reval_core.home import Home
from reval_core.reporting import canvas, comparison

SPENT = {
    "rounds": "generation rounds",
    "tokens": "response tokens generated",
    "seconds": "seconds of training (without evaluations)",
}


def write_results(home: Home, results: Results) -> Path:
    """Tables and plots; returns their folder. Written anew each time, from what is committed."""
    folder = home.root / "experiments" / results.experiment.name / "results"
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "results.md": tables.markdown(results),
        "results.json": tables.as_json(results),
        "arms.csv": tables.arms_csv(results),
        "curves.csv": tables.curves_csv(results),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, figure in figures(results).items():
        (folder / f"{name}.png").write_bytes(canvas.figure_png(figure))
        (folder / f"{name}.svg").write_text(canvas.figure_svg(figure), encoding="utf-8")
    return folder


def figures(results: Results) -> dict[str, Figure]:
    """The metric against each cost, and the drift where it is known."""
    arms = {_label(arm): _columns(arm) for arm in results.arms}
    drawn = {
        f"by-{cost}": comparison.curves(
            arms, cost, xlabel=label, ylabel=results.metric, thresholds=results.experiment.thresholds
        )
        for cost, label in SPENT.items()
    }
    drifts = {
        name: {"rounds": table["rounds"], "value": table["drift"], "low": table["drift"], "high": table["drift"]}
        for name, table in arms.items()
    }
    if any(value is not None for table in drifts.values() for value in table["value"]):
        drawn["drift"] = comparison.curves(
            drifts, "rounds", xlabel=SPENT["rounds"], ylabel="mean log π − log π_ref of fresh responses, nats"
        )
    return drawn


def _label(arm: Arm) -> str:
    return f"{arm.name} ({arm.point})" if arm.point else arm.name


def _columns(arm: Arm) -> dict[str, list[float | None]]:
    return {
        "rounds": [at.rounds for at in arm.curve],
        "tokens": [at.tokens for at in arm.curve],
        "seconds": [at.seconds for at in arm.curve],
        "value": [at.value.value for at in arm.curve],
        "low": [at.value.low for at in arm.curve],
        "high": [at.value.high for at in arm.curve],
        "drift": [at.drift for at in arm.curve],
    }
