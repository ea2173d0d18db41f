"""The reward that learning uses, by hand."""

import pytest

from reval_core.config import RewardConfig
from reval_core.store.trajectories import GradedRow
from reval_core.verification import Verdict
from tasks.grading import failure_share
from tasks.persist import rewards


def row(problem: str, index: int, reward: float, *, truncated: bool = False) -> GradedRow:
    status = "correct" if reward > 0 else "incorrect"
    return GradedRow(f"{problem}{index}", problem, problem, index, truncated, "gold", status, reward, None)


BATCH = [
    row("a", 0, 1.0),
    row("a", 1, 0.0),
    row("a", 2, 1.0, truncated=True),
    row("b", 0, 0.0),
    row("b", 1, 0.0, truncated=True),
    row("b", 2, 0.0),
]
REAL = [row("a", 0, 2.5), row("a", 1, -0.5), row("b", 0, -3.0, truncated=True), row("b", 1, -1.0)]


@pytest.mark.parametrize(
    ("transform", "truncated", "expected"),
    [
        ("binary", "keep", {"a0": 1, "a1": 0, "a2": 1, "b0": 0, "b1": 0, "b2": 0}),
        ("binary", "mask_negative", {"a0": 1, "a1": 0, "a2": 0, "b0": 0, "b1": 0, "b2": 0}),
        ("binary", "drop", {"a0": 1, "a1": 0, "b0": 0, "b2": 0}),
        ("signed", "keep", {"a0": 1, "a1": -1, "a2": 1, "b0": -1, "b1": -1, "b2": -1}),
        ("signed", "mask_negative", {"a0": 1, "a1": -1, "a2": -1, "b0": -1, "b1": -1, "b2": -1}),
        ("signed", "drop", {"a0": 1, "a1": -1, "b0": -1, "b2": -1}),
        # group a has mean 2/3, then 1/3 with the truncated one wrong, then 1/2 without it; group b has mean 0
        ("centred", "keep", {"a0": 1 / 3, "a1": -2 / 3, "a2": 1 / 3, "b0": 0, "b1": 0, "b2": 0}),
        ("centred", "mask_negative", {"a0": 2 / 3, "a1": -1 / 3, "a2": -1 / 3, "b0": 0, "b1": 0, "b2": 0}),
        ("centred", "drop", {"a0": 0.5, "a1": -0.5, "b0": 0, "b2": 0}),
    ],
)
def test_right_and_wrong(transform: str, truncated: str, expected: dict[str, float]) -> None:
    found = rewards(BATCH, RewardConfig(transform=transform, truncated=truncated))
    assert {row.trajectory_id: reward for row, reward in found} == pytest.approx(expected)
    assert [row.trajectory_id for row, _ in found] == list(expected)  # the batch's own order


@pytest.mark.parametrize(
    ("transform", "truncated", "expected"),
    [
        ("raw", "keep", [2.5, -0.5, -3.0, -1.0]),
        ("raw", "drop", [2.5, -0.5, -1.0]),
        ("binary", "keep", [1.0, 0.0, 0.0, 0.0]),
        ("signed", "keep", [1.0, -1.0, -1.0, -1.0]),
        ("centred", "keep", [1.5, -1.5, -1.0, 1.0]),
        ("centred", "drop", [1.5, -1.5, 0.0]),
    ],
)
def test_real_numbers(transform: str, truncated: str, expected: list[float]) -> None:
    found = rewards(REAL, RewardConfig(transform=transform, truncated=truncated))
    assert [reward for _, reward in found] == pytest.approx(expected)


def test_nothing_is_left_of_a_batch_that_was_cut_whole() -> None:
    cut = [row("a", index, 1.0, truncated=True) for index in range(3)]
    for transform in ("binary", "centred", "signed", "raw"):
        assert rewards(cut, RewardConfig(transform=transform, truncated="drop")) == []


@pytest.mark.parametrize(("timeouts", "errors", "share"), [(0, 0, 0.0), (2, 3, 0.05), (6, 0, 0.06)])
def test_only_timeouts_and_errors_count_as_failures(timeouts: int, errors: int, share: float) -> None:
    others = ["correct", "incorrect", "no_answer", "rejected"] * 25
    statuses = ["timeout"] * timeouts + ["error"] * errors + others[timeouts + errors :]
    verdicts = [Verdict(status, status == "correct", 0.0, None, "custom", 0.0, "") for status in statuses]
    assert failure_share(verdicts) == pytest.approx(share)
