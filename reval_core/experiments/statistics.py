"""Statistics over seeds: few numbers, each the outcome of a whole run.

Intervals are Student's at 95 %, over seeds. They say what other seeds of the same task and base model would give, and
nothing about other tasks. A seed that never reaches a threshold counts as later than every one that does: the median
over all seeds stands, as long as more than half have reached it, and no seed is left out.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95
LAST = 3
"""Evaluations at the end of a run whose mean is its final value."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its 95 % interval; no interval of a single seed."""

    value: float
    low: float | None
    high: float | None
    count: int

    def __str__(self) -> str:
        """With three decimals, such as ``0.612 [0.580, 0.645]``."""
        return f"{self.value:.3f}" + (f" [{self.low:.3f}, {self.high:.3f}]" if self.low is not None else "")


@dataclass(frozen=True)
class Reached:
    """How soon seeds reached a threshold, in whatever unit was asked."""

    count: int
    """Seeds that reached it."""
    of: int
    median: float | None
    """Over all seeds; None where half of them or more have not reached it."""
    first: float | None
    last: float | None
    """Of those that reached it."""


def mean_interval(values: Sequence[float]) -> Mean:
    """Mean and 95 % interval, mean ± t s / √n.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("a mean of no values")
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Mean(mean, None, None, 1)
    half = t_quantile(n - 1) * statistics.stdev(values) / math.sqrt(n)
    return Mean(mean, mean - half, mean + half, n)


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Mean | None:
    """Mean of value minus baseline over the seeds that both have; None where there is none."""
    differences = [values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())]
    return mean_interval(differences) if differences else None


def first_reached(values: Sequence[float], threshold: float) -> int | None:
    """Index of the first value from which two in a row average at least the threshold; None where there is none."""
    for index, (one, other) in enumerate(itertools.pairwise(values)):
        if (one + other) / 2 >= threshold:
            return index
    return None


def reached(found: Sequence[float | None]) -> Reached:
    """How soon, over seeds; None is a seed that never did."""
    known = sorted(value for value in found if value is not None)
    ordered = [*known, *[math.inf] * (len(found) - len(known))]
    median = statistics.median(ordered) if ordered else math.inf
    return Reached(
        count=len(known),
        of=len(found),
        median=median if math.isfinite(median) else None,
        first=known[0] if known else None,
        last=known[-1] if known else None,
    )


def final(values: Sequence[float]) -> float:
    """Mean of the last three values."""
    return statistics.fmean(values[-LAST:])


def largest_fall(values: Sequence[float]) -> float:
    """How far a run fell below the best that it had been, at its worst; 0 for one that never fell."""
    best, fall = -math.inf, 0.0
    for value in values:
        best = max(best, value)
        fall = max(fall, best - value)
    return fall


def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t for which a share `level` of Student's distribution lies between -t and t.

    Args:
        freedom: degrees of freedom, at least 1.
        level: between 0 and 1.
    """
    low, high = 0.0, 2.0
    while _within(high, freedom) < level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """Share of Student's distribution between -t and t (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= square * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
