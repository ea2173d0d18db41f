"""Tables of an experiment's results: Markdown for people, CSV for spreadsheets, JSON with everything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from reval_core.experiments.results import COSTS, Arm, Results
from reval_core.experiments.statistics import Mean, Reached

Row = Sequence[str]
UNITS = {"rounds": "rounds", "tokens": "k tokens", "seconds": "seconds"}


def markdown(results: Results) -> str:
    """The page of an experiment."""
    experiment = results.experiment
    seeds = len(experiment.seeds)
    parts = [
        f"# {experiment.name}",
        experiment.about.strip(),
        f"{results.metric} over {seeds} seeds; in brackets the 95 % interval of the mean over seeds (Student's t)."
        if seeds > 1
        else f"{results.metric}, one seed, so without intervals.",
        "## Final value",
        FINAL,
        _table(*final_table(results)),
    ]
    for threshold in experiment.thresholds:
        parts += [f"## To {threshold:g}", REACHED, _table(*threshold_table(results, threshold))]
    if results.tried:
        by = "all evaluations" if experiment.tune_by == "curve" else "the last three evaluations"
        parts += [
            "## Grids",
            f"Mean over {by}, on the seeds {', '.join(map(str, experiment.tuning_seeds))}, not reported above.",
            _table(
                ("arm", "point", "score", ""),
                [(one.arm, one.point, str(one.score), "chosen" if one.chosen else "") for one in results.tried],
            ),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


FINAL = (
    "The mean of a run's last three evaluations. Differences are between the same seeds. The fall is the largest one "
    "below the best that the run had been; the drift is the mean log π − log π_ref of fresh responses near the end, "
    "in nats."
)
REACHED = (
    "The first evaluation after learning began from which two in a row average at least this much, in rounds, "
    "thousands of response tokens and seconds of training. Median over all seeds, first and last seed in brackets; a "
    "seed that never got there counts as later than the others. The ratio is the baseline's rounds over these."
)


def final_table(results: Results) -> tuple[Row, list[Row]]:
    """Head and rows: the final value of each arm."""
    base = results.experiment.baseline
    head = ["arm", "point", "seeds", "final", *([f"minus {base}"] if base else []), "fall", "drift"]
    rows: list[Row] = [
        [
            arm.name,
            arm.point,
            str(len(arm.seeds)),
            str(arm.final),
            *([str(arm.difference or "")] if base else []),
            f"{arm.fall.value:.3f}",
            "" if arm.drift is None else f"{arm.drift.value:.2f}",
        ]
        for arm in results.arms
    ]
    return head, rows


def threshold_table(results: Results, threshold: float) -> tuple[Row, list[Row]]:
    """Head and rows: what each arm needed to get there."""
    base = next((arm for arm in results.arms if arm.name == results.experiment.baseline), None)
    head = [
        "arm",
        "reached by",
        *(UNITS[cost] for cost in COSTS),
        *(["ratio"] if base else []),
    ]
    rows: list[Row] = []
    for arm in results.arms:
        found = arm.reached[threshold]
        cells = [_reached(found[cost], 1000 if cost == "tokens" else 1) for cost in COSTS]
        ratio = [_ratio(base, arm, threshold)] if base else []
        rows.append([arm.name, f"{found['rounds'].count} of {found['rounds'].of}", *cells, *ratio])
    return head, rows


def _reached(found: Reached, unit: float) -> str:
    if found.first is None or found.last is None:
        return "not reached"
    median = "not by half" if found.median is None else f"{found.median / unit:.4g}"
    return f"{median} [{found.first / unit:.4g}, {found.last / unit:.4g}]"


def _ratio(base: Arm, arm: Arm, threshold: float) -> str:
    """Of the medians; nothing where one of them is unknown."""
    other, own = base.reached[threshold]["rounds"].median, arm.reached[threshold]["rounds"].median
    return f"{other / own:.2f}" if other is not None and own else ""


def as_json(results: Results) -> str:
    """Everything, with the experiment itself."""
    data = {
        "experiment": results.experiment.model_dump(mode="json", exclude={"base"}),
        "arms": [asdict(arm) for arm in results.arms],
        "tried": [asdict(one) for one in results.tried],
    }
    return json.dumps(data, indent=2) + "\n"


def arms_csv(results: Results) -> str:
    """One row per arm and threshold; one per arm without thresholds."""
    head = ["arm", "point", "seeds", *_mean_head("final"), *_mean_head("difference"), "largest_fall", "drift"]
    head += ["threshold", "reached_by", *(f"median_{cost}" for cost in COSTS)]
    rows = []
    for arm in results.arms:
        known: list[Any] = [arm.name, arm.point, len(arm.seeds), *_mean_cells(arm.final), *_mean_cells(arm.difference)]
        known += [arm.fall.value, arm.drift.value if arm.drift else None]
        for threshold, found in arm.reached.items() or [(None, None)]:
            reached = [None] * 4 if found is None else [found["rounds"].count, *(found[c].median for c in COSTS)]
            rows.append([*known, threshold, *reached])
    return _csv(head, rows)


def curves_csv(results: Results) -> str:
    """One row per arm and evaluation."""
    head = ["arm", "point", "rounds", "tokens", "seconds", *_mean_head("value"), "drift"]
    rows = [
        [arm.name, arm.point, at.rounds, at.tokens, at.seconds, *_mean_cells(at.value), at.drift]
        for arm in results.arms
        for at in arm.curve
    ]
    return _csv(head, rows)


def _mean_head(name: str) -> list[str]:
    return [name, f"{name}_low", f"{name}_high"]


def _mean_cells(mean: Mean | None) -> list[float | None]:
    return [None] * 3 if mean is None else [mean.value, mean.low, mean.high]


def _csv(head: Row, rows: Iterable[Sequence[Any]]) -> str:
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return page.getvalue()


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
