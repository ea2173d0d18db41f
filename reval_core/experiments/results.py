"""What came out of an experiment: for each arm its curve, its final value, and how soon it reached the thresholds.

The rules, in one place:

- *final*: the mean of a run's last three evaluations;
- *reached*: the first evaluation after learning began from which two in a row average at least the threshold. It costs
  the rounds, response tokens and training seconds up to there. A seed that never does counts as later than all that do;
- *mean curve*: over seeds at each evaluation; tokens and seconds of its points are means over seeds, too;
- *difference*: of an arm and the baseline on the same seed, then the mean over seeds.
"""

from __future__ import annotations

import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reval_core.experiments.experiment import Experiment, Point
from reval_core.experiments.statistics import (
    Mean,
    Reached,
    final,
    first_reached,
    largest_fall,
    mean_interval,
    paired_difference,
    reached,
)

Curve = Sequence[Mapping[str, float]]
"""A cell's evaluations: rounds, tokens, seconds, value, drift (None where unknown)."""
COSTS = ("rounds", "tokens", "seconds")


@dataclass(frozen=True)
class At:
    """A point of an arm's mean curve."""

    rounds: float
    tokens: float
    seconds: float
    value: Mean
    drift: float | None
    """Mean over the seeds that have one, in nats."""


@dataclass(frozen=True)
class Arm:
    """One arm over its seeds."""

    name: str
    point: str
    """What was chosen in its grid."""
    seeds: tuple[int, ...]
    curve: tuple[At, ...]
    finals: Mapping[int, float]
    """By seed."""
    final: Mean
    difference: Mean | None
    """To the baseline's final value, paired by seed; None of the baseline, or without one."""
    reached: Mapping[float, Mapping[str, Reached]]
    """Threshold to rounds, tokens and seconds."""
    fall: Mean
    """Largest fall below an earlier evaluation of the same run."""
    drift: Mean | None
    """Of the last evaluation that has one: an estimate of KL(pi || pi_ref) in nats."""


@dataclass(frozen=True)
class Tried:
    """A point of a grid."""

    arm: str
    point: str
    score: Mean
    chosen: bool


@dataclass(frozen=True)
class Results:
    """An experiment that is done."""

    experiment: Experiment
    arms: tuple[Arm, ...]
    tried: tuple[Tried, ...]

    @property
    def metric(self) -> str:
        """Benchmark and metric, for headings."""
        return f"{self.experiment.metric.benchmark} {self.experiment.metric.name}"


def choose(experiment: Experiment, arm: str, curves: Mapping[str, Curve]) -> Point:
    """The best point of an arm's grid by its tuning seeds; of equally good ones the first of the grid.

    Args:
        experiment: whose arm it is.
        arm: its name.
        curves: of the tuning cells, by the cells' names.
    """
    return max(experiment.arms[arm].points(), key=lambda point: _score(experiment, arm, point, curves).value)


def compared(experiment: Experiment, points: Mapping[str, Point], curves: Mapping[str, Curve]) -> Results:
    """All arms at their points.

    Args:
        experiment: what was compared.
        points: the point of each arm that is reported.
        curves: of every cell that was computed, by the cells' names.
    """
    finals = {
        arm: {cell.seed: final(_values(curves[cell.name])) for cell in experiment.cells(arm, point)}
        for arm, point in points.items()
    }
    arms = tuple(_arm(experiment, name, point, curves, finals) for name, point in points.items())
    tried = tuple(
        Tried(
            name,
            experiment.cell(name, point, experiment.tuning_seeds[0]).point,
            _score(experiment, name, point, curves),
            point == points[name],
        )
        for name in experiment.tuned()
        for point in experiment.arms[name].points()
    )
    return Results(experiment, arms, tried)


def _arm(
    experiment: Experiment,
    name: str,
    point: Point,
    curves: Mapping[str, Curve],
    finals: Mapping[str, Mapping[int, float]],
) -> Arm:
    cells = experiment.cells(name, point)
    own = [curves[cell.name] for cell in cells]
    base = experiment.baseline
    drifts = [last for last in (_last_drift(curve) for curve in own) if last is not None]
    return Arm(
        name=name,
        point=cells[0].point,
        seeds=experiment.seeds,
        curve=tuple(_at(rows) for rows in zip(*own, strict=True)),
        finals=finals[name],
        final=mean_interval(list(finals[name].values())),
        difference=None if base in (None, name) else paired_difference(finals[name], finals[base]),
        reached={threshold: _costs(own, threshold) for threshold in experiment.thresholds},
        fall=mean_interval([largest_fall(_values(curve)) for curve in own]),
        drift=mean_interval(drifts) if drifts else None,
    )


def _at(rows: Sequence[Mapping[str, float]]) -> At:
    """The seeds' evaluations after the same round."""
    drifts = [row["drift"] for row in rows if row["drift"] is not None]
    return At(
        rounds=plain.fmean(row["rounds"] for row in rows),
        tokens=plain.fmean(row["tokens"] for row in rows),
        seconds=plain.fmean(row["seconds"] for row in rows),
        value=mean_interval([row["value"] for row in rows]),
        drift=plain.fmean(drifts) if drifts else None,
    )


def _costs(curves: Sequence[Curve], threshold: float) -> dict[str, Reached]:
    learned = [[row for row in curve if row["rounds"] > 0] for curve in curves]
    places = [(curve, first_reached(_values(curve), threshold)) for curve in learned]
    return {cost: reached([None if place is None else curve[place][cost] for curve, place in places]) for cost in COSTS}


def _score(experiment: Experiment, arm: str, point: Point, curves: Mapping[str, Curve]) -> Mean:
    """How good a point is, over the tuning seeds; what was measured before learning is no merit of it."""
    own = [
        _values([row for row in curves[experiment.cell(arm, point, seed).name] if row["rounds"] > 0])
        for seed in experiment.tuning_seeds
    ]
    return mean_interval([plain.fmean(values) if experiment.tune_by == "curve" else final(values) for values in own])


def _values(curve: Curve) -> list[float]:
    return [row["value"] for row in curve]


def _last_drift(curve: Curve) -> float | None:
    return next((row["drift"] for row in reversed(curve) if row["drift"] is not None), None)
