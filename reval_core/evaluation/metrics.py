"""Accuracy of k samples per problem, with 95 % intervals over problems.

Three numbers answer three questions about a policy that was sampled k times on each problem: avg@k
(how often is one sample right), pass@j (how often is one of j samples right, j <= k) and maj@k (how
often is the most frequent answer right). Each is a mean over problems of one score per problem, and
its interval comes from resampling the problems (percentile bootstrap). A problem's score carries
the noise of its own k samples, so the interval covers both: other problems and other samples.

The bootstrap draws depend on nothing but the number of problems, so an interval is the same
whenever it is computed again. Where all problems were solved, or none, resampling them shows no
width, and the exact binomial bound over n problems stands in its place (0.975 and 1 of 146 problems).
One problem, or scores that are equal in between, give an interval of width zero: that is no certainty.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
"""One number per problem, [n_problems]."""

CorrectTable = NDArray[Any] | Sequence[Sequence[bool]] | Mapping[str, Sequence[bool]]
"""Verdicts [n_problems, k] in any of three forms; a mapping goes from problem id to k verdicts."""

AnswerTable = Sequence[Sequence[str | None]] | Mapping[str, Sequence[str | None]]
"""Extracted answers in the layout of the verdicts; None is a sample without an answer."""

RESAMPLES = 2000
SEED = 20240
LEVEL = 0.95
_CELLS = 1 << 22  # resampled problems held in memory at a time


@dataclass(frozen=True)
class Estimate:
    """A mean over problems and the two ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """The estimate with three decimals, such as ``0.612 [0.580, 0.645]``."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def avg_at_k(correct: CorrectTable) -> Estimate:
    """Mean accuracy of one sample.

    Args:
        correct: verdicts [n_problems, k].

    Raises:
        ValueError: the table is ragged, empty or not made of truth values.
    """
    return share_of(_verdicts(correct).mean(axis=1))


def pass_at_k(correct: CorrectTable, j: int | None = None) -> Estimate:
    """Probability that at least one of j samples is right, without bias from k samples.

    Args:
        correct: verdicts [n_problems, k].
        j: samples that are allowed, 1 <= j <= k; by default k.

    Raises:
        ValueError: j is out of range, or the table is ragged, empty or not made of truth values.
    """
    verdicts = _verdicts(correct)
    return share_of(pass_scores(verdicts, verdicts.shape[1] if j is None else j))


def maj_at_k(correct: CorrectTable, answers: AnswerTable) -> Estimate:
    """Accuracy of the most frequent of k answers; see `majority_scores` for ties.

    Args:
        correct: verdicts [n_problems, k].
        answers: extracted answers in the same layout; both as mappings by problem id or both in the
            same order.

    Raises:
        ValueError: the two tables differ in shape or problems, or one of them is ragged or empty.
    """
    return share_of(majority_scores(_verdicts(correct), _aligned_answers(correct, answers)))


def summarise(correct: CorrectTable, answers: AnswerTable | None, k: int) -> dict[str, Estimate]:
    """The three estimates under the names that people write: ``avg@4``, ``pass@4``, ``maj@4``.

    Args:
        correct: verdicts [n_problems, k].
        answers: extracted answers in the same layout; None (a reward that extracts no answers)
            leaves out maj@k.
        k: samples per problem that were asked for; a table of another width is an error.

    Raises:
        ValueError: a table is ragged or empty, or its width is not k.
    """
    width = _verdicts(correct).shape[1]
    if width != k:
        raise ValueError(f"summarise was told k = {k}, but the verdicts hold {width} samples for each problem")
    summary = {f"avg@{k}": avg_at_k(correct), f"pass@{k}": pass_at_k(correct)}
    if answers is not None:
        summary[f"maj@{k}"] = maj_at_k(correct, answers)
    return summary


def paired_difference(a: CorrectTable | Scores, b: CorrectTable | Scores) -> Estimate:
    """Mean of a minus b over the same problems, with the interval of the difference.

    Both sides are resampled together, so the interval is usually much narrower than the two
    separate intervals suggest: an interval without 0 says that a and b differ on problems like
    these.

    Args:
        a: verdicts [n_problems, k], or one score per problem [n_problems] (as pass_scores gives).
        b: the same for the other policy; its k may be another. Two mappings are matched by problem
            id, anything else by position.

    Raises:
        ValueError: the sides do not hold the same problems, or only one of them is a mapping.
    """
    if isinstance(a, Mapping) != isinstance(b, Mapping):
        raise ValueError("paired_difference needs two mappings by problem id or two arrays, not one of each")
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        _same_problems(a, b)
        b = {problem: b[problem] for problem in a}
    left, right = _scores(a), _scores(b)
    if left.shape != right.shape:
        raise ValueError(
            f"paired_difference needs the same problems: {len(left)} on one side, {len(right)} on the other"
        )
    return bootstrap_mean(left - right)


def pass_scores(correct: NDArray[np.bool_], j: int) -> Scores:
    """Per problem, the unbiased estimate of the probability that one of j samples is right.

    1 - C(k - c, j) / C(k, j) with c right samples among k: Chen et al. 2021, "Evaluating Large
    Language Models Trained on Code", equation 1, written as a product so that no binomial
    overflows. With fewer than j wrong samples a factor is 0.

    Args:
        correct: verdicts [n_problems, k].
        j: samples that are allowed, 1 <= j <= k.
    """
    k = correct.shape[1]
    if not 1 <= j <= k:
        raise ValueError(f"pass@{j} cannot be estimated from {k} samples for each problem; choose 1 <= j <= {k}")
    wrong = k - correct.sum(axis=1)  # [n]
    step = np.arange(j)  # draw i is wrong too with probability (wrong - i) / (k - i)
    none_right: Scores = (np.maximum(wrong[:, None] - step, 0) / (k - step)).prod(axis=1)
    return 1.0 - none_right


def majority_scores(correct: NDArray[np.bool_], answers: Sequence[Sequence[str | None]]) -> Scores:
    """Per problem, the expected correctness of the answer that most samples gave.

    Answers vote by their `vote_key`; None does not vote. When several answers share the lead,
    each wins with equal probability and the score is the expectation, so no order of samples or
    answers is favoured. (Likewise equal answers with different verdicts, after a timeout say, count
    by their mean.) Nobody voting scores 0.

    Args:
        correct: verdicts [n_problems, k].
        answers: extracted answers [n_problems, k].
    """
    scores = np.zeros(len(correct))
    for row, given in enumerate(answers):
        keys = [None if answer is None else vote_key(answer) for answer in given]
        votes = Counter(key for key in keys if key is not None)
        if votes:
            most = max(votes.values())
            # Leading answers have equally many samples: the plain mean weighs them alike.
            leads = [key is not None and votes[key] == most for key in keys]
            scores[row] = correct[row, leads].mean()
    return scores


_SPACING = re.compile(r"\s+|\\[,;:! ]|\\(?:left|right)(?![A-Za-z])")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,60}(?:/0*[1-9][0-9]{0,59})?|[0-9]{0,60}\.[0-9]{1,60}|[0-9]{1,60}\.)")


def vote_key(answer: str) -> str:
    """The form in which equal answers are the same text: no spacing, dollar signs or full stop.

    Plain numbers become lowest fractions (``0.50``, ``.5`` and ``2/4`` are one vote), and
    ``\\dfrac`` and ``\\tfrac`` are ``\\frac``. Anything further would need the grader; two forms
    that stay apart only split a vote.
    """
    text = _SPACING.sub("", answer).removesuffix(".").strip("$").removesuffix(".")
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return str(Fraction(text)) if _NUMBER.fullmatch(text) else text


def bootstrap_mean(scores: Scores) -> Estimate:
    """Mean of one score per problem, with its percentile interval over 2,000 resamples.

    Args:
        scores: finite numbers [n_problems].

    Raises:
        ValueError: there are no problems, or a score is not finite.
    """
    n = len(scores)
    if n == 0:
        raise ValueError("no problems: an accuracy needs at least one")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {n} scores are not finite")
    means = np.concatenate([scores[rows].mean(axis=1) for rows in _resampled(n)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=float(scores.mean()), low=float(low), high=float(high))


def bootstrap_ratio(parts: Scores, wholes: Scores) -> Estimate:
    """Sum of the parts over the sum of the wholes, with its percentile interval over resampled problems.

    Args:
        parts: one number per problem [n_problems], such as right answers by right steps.
        wholes: what they are parts of [n_problems], all above 0, such as right answers.

    Raises:
        ValueError: there are no problems, or a whole is not above 0.
    """
    if len(parts) == 0 or len(parts) != len(wholes) or not (wholes > 0).all():
        raise ValueError("a ratio needs at least one problem, and wholes above 0")
    ratios = np.concatenate([parts[rows].sum(axis=1) / wholes[rows].sum(axis=1) for rows in _resampled(len(parts))])
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return _widened(Estimate(float(parts.sum() / wholes.sum()), float(low), float(high)), len(parts))


def bootstrap_average(benchmarks: Sequence[Scores]) -> Estimate:
    """Mean over benchmarks of each one's mean over problems, with its interval; problems are resampled within each.

    A benchmark that was solved whole, or not at all, adds no width: the exact bound is for one benchmark alone.

    Args:
        benchmarks: one score per problem between 0 and 1 of each benchmark, at least one.

    Raises:
        ValueError: there is no benchmark, or one without problems.
    """
    if not benchmarks or any(len(scores) == 0 for scores in benchmarks):
        raise ValueError("an average over benchmarks needs at least one, and problems in each")
    means = np.zeros(RESAMPLES)
    for place, scores in enumerate(benchmarks):  # two of one size are resampled apart
        means += np.concatenate([scores[rows].mean(axis=1) for rows in _resampled(len(scores), SEED + place)])
    low, high = np.quantile(means / len(benchmarks), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(np.mean([scores.mean() for scores in benchmarks])), float(low), float(high))


def share_of(scores: Scores) -> Estimate:
    """Mean of one score per problem between 0 and 1, an estimate of a probability, with its interval.

    Args:
        scores: [n_problems].
    """
    return _widened(bootstrap_mean(scores), len(scores))


def _widened(estimate: Estimate, n: int) -> Estimate:
    """Resampling n problems that were all solved, or none of them, gives no width; the exact binomial bound does."""
    bound = ((1 - LEVEL) / 2) ** (1 / n)
    if estimate.value == estimate.low == 1.0:
        return Estimate(1.0, bound, 1.0)
    if estimate.value == estimate.high == 0.0:
        return Estimate(0.0, 0.0, 1.0 - bound)
    return estimate


def _resampled(n: int, seed: int = SEED) -> Iterator[NDArray[np.int64]]:
    """Indices of 2,000 resamples of n problems, some resamples [rows, n] at a time."""
    generator = np.random.Generator(np.random.PCG64(seed))
    rows = max(1, _CELLS // n)
    for start in range(0, RESAMPLES, rows):
        yield generator.integers(0, n, size=(min(rows, RESAMPLES - start), n))


def _verdicts(correct: CorrectTable) -> NDArray[np.bool_]:
    """The table as bool [n_problems, k]."""
    rows = list(correct.values()) if isinstance(correct, Mapping) else list(correct)
    if not rows:
        raise ValueError("no problems: an accuracy needs at least one")
    if np.ndim(rows[0]) == 0:
        raise ValueError("verdicts must be laid out as [n_problems, k], not as one flat row")
    widths = sorted({len(row) for row in rows})
    if len(widths) > 1:
        raise ValueError(f"every problem needs the same number of samples, but there are rows of {widths}")
    if widths == [0]:
        raise ValueError("no samples: every problem needs at least one")
    table = np.asarray(rows)
    if table.ndim != 2 or table.dtype.kind not in "biuf" or not np.isin(table, (0, 1)).all():
        raise ValueError("verdicts must be truth values (or 0 and 1) laid out as [n_problems, k]")
    return table.astype(bool)


def _scores(side: CorrectTable | Scores) -> Scores:
    """One float per problem from verdicts [n, k] or scores [n]."""
    rows = list(side.values()) if isinstance(side, Mapping) else list(side)
    if rows and np.ndim(rows[0]) == 0:
        return np.asarray(rows, dtype=np.float64)
    accuracy: Scores = _verdicts(rows).mean(axis=1)
    return accuracy


def _aligned_answers(correct: CorrectTable, answers: AnswerTable) -> list[Sequence[str | None]]:
    """The rows of answers in the order of the verdicts, checked for shape."""
    if isinstance(correct, Mapping) != isinstance(answers, Mapping):
        raise ValueError("verdicts and answers must both be mappings by problem id or both be sequences")
    if isinstance(correct, Mapping) and isinstance(answers, Mapping):
        _same_problems(correct, answers)
        rows = [answers[problem] for problem in correct]
        verdicts = list(correct.values())
    else:
        rows, verdicts = list(answers), list(correct)  # type: ignore[arg-type]
    if [len(row) for row in rows] != [len(row) for row in verdicts]:
        raise ValueError("answers must have the layout of the verdicts: one answer or None for each sample")
    return rows


def _same_problems(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    apart = sorted(a.keys() ^ b.keys())
    if apart:
        raise ValueError(f"{len(apart)} problems are on one side only, such as {apart[0]!r}")
