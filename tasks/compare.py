"""Two policies on the same benchmarks under the same noise, and the paired difference with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reval_core.errors import ConfigError
from reval_core.evaluation.metrics import Estimate, majority_scores, paired_difference, pass_scores, share_of
from reval_core.home import Home
from reval_core.store import Store, evaluations
from tasks.references import Evaluated


@dataclass(frozen=True)
class Compared:
    """One metric of two policies on one benchmark."""

    benchmark: str
    metric: str
    first: float
    second: float
    difference: Estimate
    """Second minus first over the same problems, resampled together."""
    intervals: tuple[Estimate, Estimate]
    """Of first and second, each alone."""


def compare(home: Home, first: Sequence[Evaluated], second: Sequence[Evaluated]) -> list[Compared]:
    """Compare two policies' evaluations, benchmark by benchmark.

    Args:
        home: the root.
        first, second: evaluations on the same benchmarks, in the same order.

    Raises:
        ConfigError: two evaluations are not of the same problems and gold answers.
    """
    store, rows = Store(home.database), []
    for one, other in zip(first, second, strict=True):
        with store.read() as connection:
            sides = [evaluations.samples(connection, side.evaluation_id) for side in (one, other)]
        if sides[0].benchmark_id != sides[1].benchmark_id:
            raise ConfigError(
                f"{one.benchmark} had other problems or gold answers when {one.policy_id} was evaluated than when "
                f"{other.policy_id} was. Evaluate both anew with the same file."
            )
        rows += _compared(one.benchmark, *sides)
    return rows


def _compared(benchmark: str, a: evaluations.Samples, b: evaluations.Samples) -> list[Compared]:
    k = min(a.correct.shape[1], b.correct.shape[1])
    tables = {
        f"avg@{k}": (a.correct.mean(axis=1), b.correct.mean(axis=1)),
        f"pass@{k}": (pass_scores(a.correct, k), pass_scores(b.correct, k)),
        f"maj@{k}": (majority_scores(a.correct, a.answers), majority_scores(b.correct, b.answers)),
    }
    return [
        Compared(
            benchmark,
            metric,
            float(left.mean()),
            float(right.mean()),
            paired_difference(right, left),
            (share_of(left), share_of(right)),
        )
        for metric, (left, right) in tables.items()
    ]
