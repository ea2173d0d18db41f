"""Normalising comes before the limits, so its cost must be bounded by the length whatever the text is."""

from __future__ import annotations

import time

import pytest

from reval_core.verification.normalise import normalise
from reval_core.verification.tiers import decide
from reval_core.verification.verdict import GradingPolicy

UNITS = [
    "1", "12", "142857", "1.", "1,", "1 ", "1,234", "'123", "²", "½", "{", "{1}", "(1", "\\text{", "\\text{a}",
    "\\over", "{1\\over", "^{", "_", "$1", "- ", "+1", "<1", "|x", "\\overline{1}", "\\sqrt", "C_", "1%", "\\quad",
    "or ", "\\circ", "√2", "m/", "\\hspace{", "\\begin{aligned}", "&", "1!", "10^", "log_1", "...", "sin(", "\\boxed{",
    "1\\text{min}",
]  # fmt: skip
FRAMES = [
    ("", ""),
    ("0.", ""),
    ("1.", "3..."),
    ("x", "\\ldots"),
    ("", " \\text{ cm}"),
    ("\\frac{", "\\over 2"),
    ("5=", "%"),
]


def seconds(text: str) -> float:
    """Processor time of a normalisation, the least of three."""
    times = []
    for _ in range(3):
        begun = time.process_time()
        normalise(text)
        times.append(time.process_time() - begun)
    return min(times)


@pytest.mark.parametrize("frame", FRAMES)
def test_normalising_takes_time_in_proportion_to_the_length(frame: tuple[str, str]) -> None:
    for unit in UNITS:
        short, long = (frame[0] + unit * (length // len(unit)) + frame[1] for length in (1_000, 8_000))
        # quadratic work would make this ratio 64; the constant pardons noise on tiny times
        assert seconds(long) < 24 * (seconds(short) + 0.004), unit


def test_a_text_of_more_than_4000_characters_is_not_looked_at() -> None:
    verdict = decide("5", "5" + " " * 3_000 + "+0" * 1_000, GradingPolicy())
    assert verdict is not None
    assert (verdict.status, verdict.tier) == ("rejected", "limits")
    long = decide("7" * 9_000, "7" * 9_000, GradingPolicy())
    assert long is not None and long.correct
    other = decide("7" * 9_000, "7" * 8_999 + "8", GradingPolicy())
    assert other is not None and other.status == "incorrect"
