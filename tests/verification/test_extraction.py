"""Finding the answer in a completion, and doing it in linear time."""

from __future__ import annotations

import time

import pytest

from reval_core.verification.extraction import boxes, closing_boxes, extract
from reval_core.verification.verdict import Extraction


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("so \\boxed{42}.", "42"),
        ("\\boxed{10} and then \\boxed{42}", "42"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\boxed{42}}", "{42}"),
        ("\\fbox{7}", "7"),
        ("\\boxed {7}", "7"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("\\boxed{3} but \\boxed{4", "3"),
        ("<think>\\boxed{1}</think> \\boxed{2}", "2"),
        ("<think>\\boxed{1}</think> done", None),
        ("\\boxed{1", None),
        ("\\boxed{}", None),
        ("the answer is 42", None),
        ("", None),
    ],
)
def test_boxed(completion: str, answer: str | None) -> None:
    assert extract(completion, "boxed") == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("\\boxed{42} is the answer", "42"),
        ("Final answer: -3.5", "-3.5"),
        ("Therefore $x \\gt 5$ is the solution.", "x \\gt 5"),
        ("The answer is $\\sqrt{16}$", "\\sqrt{16}"),
        ("She has 5 eggs and sells 3.\n#### 15", "15"),
        ('{"reasoning": "...", "answer": "106"}', "106"),
        ("<answer>42</answer>", "42"),
        ("She makes $9 * 2 = $18 every day, so 18", "18"),
        ("-10/9", "-10/9"),
        ("so the result is \\boxed{4", None),
    ],
)
def test_lenient(completion: str, answer: str | None) -> None:
    assert extract(completion, "lenient") == answer


def test_adjacent_boxes_are_a_list_only_when_their_number_fits() -> None:
    text = "$k = \\boxed{45}$ and $n = \\boxed{2}$"
    assert closing_boxes(text, 2) == "45, 2"
    assert closing_boxes(text, 3) is None
    assert closing_boxes("\\boxed{1}" * 50, 2) is None
    assert [content for _, _, content in boxes("\\boxed{1} \\boxed{2}")] == ["1", "2"]


HOSTILE_UNITS = [
    "\\boxed{",
    "\\boxed{1}",
    "$x=1$, ",
    "$",
    "{",
    "}",
    "\\(",
    "\\\\boxed{",
    "1,000,",
    "answer is ",
    "answer",
    "$$ ",
    "\\[ ",
    " \n",
    "####",
    '"answer":"',
    "<answer>",
    "9",
    "and or ",
    "\\text{",
    "A ",
    "answer: (A",
]


@pytest.mark.parametrize("mode", ["boxed", "lenient"])
@pytest.mark.parametrize("unit", HOSTILE_UNITS)
def test_extraction_time_is_linear(unit: str, mode: Extraction) -> None:
    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        best = float("inf")
        for _ in range(3):
            begun = time.perf_counter()
            extract(text, mode)
            best = min(best, time.perf_counter() - begun)
        return best

    # quadratic work would make this ratio 64; the constant pardons noise on tiny times
    assert seconds(400_000) < 24 * (seconds(50_000) + 0.002)
