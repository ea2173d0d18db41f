"""Writes what came out of an experiment: page, tables and plots under ``experiments/NAME/results``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from reval_core.config import flatten
from reval_core.experiments import tables
from reval_core.experiments.results import Arm, Results
from reval_core.home import Home
from reval_core.reporting import canvas, comparison, html
from reval_core.reporting.html import Page, Picture, Section, Table

SPENT = {
    "rounds": "generation rounds",
    "tokens": "response tokens generated",
    "seconds": "seconds of training (without evaluations)",
}


def write_results(home: Home, results: Results) -> Path:
    """Page, tables and plots; returns their folder. Written anew each time, from what is committed."""
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
    svgs = {}
    for name, figure in figures(results).items():
        svgs[name] = canvas.figure_svg(figure, text="none")
        (folder / f"{name}.svg").write_text(svgs[name], encoding="utf-8")
        (folder / f"{name}.png").write_bytes(canvas.figure_png(figure))
    (folder / "results.html").write_text(html.render_page(page_of(results, svgs)), encoding="utf-8")
    return folder


def page_of(results: Results, svgs: Mapping[str, str]) -> Page:
    """The page of an experiment: what the Markdown tells, with the figures in it.

    Args:
        results: what came out.
        svgs: figures as SVG documents, by the names of `figures`.
    """
    experiment = results.experiment
    titles = {f"by-{cost}": f"By {cost}" for cost in SPENT} | {"drift": "Drift from the reference"}
    caption = "Means over seeds; bands are 95 % intervals of the mean." if len(experiment.seeds) > 1 else "One seed."
    reached = [
        _table(f"To {threshold:g}", tables.threshold_table(results, threshold)) for threshold in experiment.thresholds
    ]
    tried = [[one.arm, one.point, str(one.score), "chosen" if one.chosen else ""] for one in results.tried]
    return Page(
        kind="ReVal experiment",
        title=experiment.name,
        identity=results.metric,
        created=" ".join(experiment.about.split()),
        facts=[
            ("Arms", len(results.arms)),
            ("Seeds", ", ".join(map(str, experiment.seeds))),
            ("Baseline", experiment.baseline or "none"),
            ("Metric", results.metric),
        ],
        sections=[
            Section("Final value", tables.FINAL, tables=[_table("", tables.final_table(results))]),
            Section("Figures", pictures=[Picture(titles[name], caption, svg) for name, svg in svgs.items()]),
            Section("Thresholds", tables.REACHED, tables=reached),
            Section("Grids", tables=[Table("", ["arm", "point", "score", ""], tried)] if tried else []),
            Section("Settings", settings=flatten(experiment.model_dump(mode="json"))),
        ],
    )


def _table(title: str, told: tuple[tables.Row, list[tables.Row]]) -> Table:
    return Table(title, *told)


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
