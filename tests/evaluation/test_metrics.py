"""Estimates against numbers worked out by hand, by brute force and by theory."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reval_core.evaluation.metrics import (
    Estimate,
    avg_at_k,
    bootstrap_average,
    bootstrap_mean,
    bootstrap_ratio,
    maj_at_k,
    majority_scores,
    paired_difference,
    pass_at_k,
    pass_scores,
    summarise,
    vote_key,
)

CORRECT = [[True, False, False, False], [True, True, False, False], [False] * 4, [True] * 4]
ANSWERS: list[list[str | None]] = [
    ["1", "2", "2", None],
    ["7", "7", "3", "3"],
    [None] * 4,
    ["5", " 5", "$5$", "5."],
]


def test_avg_is_the_mean_over_problems() -> None:
    assert avg_at_k(CORRECT).value == pytest.approx(7 / 16)


def test_pass_of_two_by_hand() -> None:
    # 1 - C(wrong, 2) / C(4, 2) with 3, 2, 4 and 0 wrong samples.
    assert pass_scores(np.array(CORRECT), 2) == pytest.approx([1 / 2, 5 / 6, 0, 1])
    assert pass_at_k(CORRECT, 2).value == pytest.approx((1 / 2 + 5 / 6 + 0 + 1) / 4)


def test_pass_of_one_is_avg_and_pass_of_k_is_any() -> None:
    assert pass_at_k(CORRECT, 1).value == pytest.approx(avg_at_k(CORRECT).value)
    assert pass_at_k(CORRECT).value == pytest.approx(3 / 4)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
@settings(max_examples=60, deadline=None)
def test_pass_is_the_share_of_subsets_with_a_right_sample(row: list[bool], data: st.DataObject) -> None:
    j = data.draw(st.integers(1, len(row)))
    subsets = list(combinations(row, j))
    expected = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_scores(np.array([row]), j)[0] == pytest.approx(expected)


def test_pass_does_not_overflow_for_many_samples() -> None:
    correct = np.zeros((1, 4096), dtype=bool)
    correct[0, 0] = True
    assert pass_scores(correct, 1024)[0] == pytest.approx(1024 / 4096)


@pytest.mark.parametrize("j", [0, 5, -1])
def test_pass_beyond_the_samples_is_refused(j: int) -> None:
    with pytest.raises(ValueError, match="1 <= j <= 4"):
        pass_at_k(CORRECT, j)


def test_majority_by_hand() -> None:
    # 2 wins and is wrong; 7 (right) and 3 tie; nobody votes; four spellings of 5 are one answer.
    assert majority_scores(np.array(CORRECT), ANSWERS) == pytest.approx([0, 1 / 2, 0, 1])
    assert maj_at_k(CORRECT, ANSWERS).value == pytest.approx(3 / 8)


def test_none_does_not_vote() -> None:
    assert maj_at_k([[True, False, False]], [["4", None, None]]).value == 1.0


def test_three_way_tie_gives_each_a_third_in_any_order() -> None:
    correct = np.array([[True, False, False], [False, False, True]])
    assert majority_scores(correct, [["a", "b", "c"], ["c", "b", "a"]]) == pytest.approx([1 / 3, 1 / 3])


def test_equal_answers_with_other_verdicts_count_by_their_mean() -> None:
    assert maj_at_k([[True, True, False, False]], [["9", "9", "9.0", "1"]]).value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.50", "1/2"),
        (".5", "2/4"),
        ("7.", "07"),
        ("-3", "-6/2"),
        ("+4", "4.0"),
        (r"\dfrac{1}{2}", r"\frac {1}{2}"),
        (r"\left( 1,\, 2 \right)", "(1,2)"),
        ("$x+1$", "x + 1"),
        ("-0", "0"),
        ("$5$.", "5"),
    ],
)
def test_equal_answers_have_one_key(one: str, other: str) -> None:
    assert vote_key(one) == vote_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000", "1000"),
        ("x", "X"),
        ("1/0", "0"),
        (r"\leftarrow", "arrow"),
        ("1e3", "1000"),
        ("12", "21"),
    ],
)
def test_other_answers_keep_their_own_key(one: str, other: str) -> None:
    assert vote_key(one) != vote_key(other)


def test_key_of_a_huge_number_is_its_text() -> None:
    assert vote_key("9" * 100_000) == "9" * 100_000


@pytest.mark.parametrize("table", [[[True], [True, False]], {"a": [True], "b": []}])
def test_ragged_tables_are_refused(table: object) -> None:
    with pytest.raises(ValueError, match="same number of samples"):
        avg_at_k(table)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "no problems"),
        ([[], []], "no samples"),
        ([[0.5, 1.0]], "truth values"),
        ([["yes", "no"]], "truth values"),
        (np.zeros((2, 2, 2)), "truth values"),
        ([True, False], "flat row"),
    ],
)
def test_unusable_tables_are_refused(table: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        avg_at_k(table)  # type: ignore[arg-type]


def test_answers_must_have_the_layout_of_the_verdicts() -> None:
    with pytest.raises(ValueError, match="layout"):
        maj_at_k([[True, False]], [["1"]])
    with pytest.raises(ValueError, match="both be mappings"):
        maj_at_k({"p": [True]}, [["1"]])
    with pytest.raises(ValueError, match="'q'"):
        maj_at_k({"p": [True]}, {"p": ["1"], "q": ["1"]})


def test_mappings_are_matched_by_problem() -> None:
    correct = {"p": [True, True, False], "q": [False, False, True]}
    answers = {"q": ["1", "1", "2"], "p": ["4", "4", "5"]}
    assert maj_at_k(correct, answers).value == 0.5
    assert paired_difference({"p": [True], "q": [False]}, {"q": [False], "p": [True]}) == Estimate(0.0, 0.0, 0.0)


def test_interval_is_the_same_each_time_and_holds_the_value() -> None:
    correct = np.random.default_rng(1).random((50, 4)) < 0.4
    first = avg_at_k(correct)
    assert first == avg_at_k(correct.copy())
    assert 0 < first.low < first.value < first.high < 1


def test_interval_has_the_width_of_the_central_limit() -> None:
    scores = np.random.default_rng(2).normal(0.3, 2.0, size=4000)
    estimate = bootstrap_mean(scores)
    half = 1.96 * scores.std() / np.sqrt(len(scores))
    assert estimate.value == pytest.approx(scores.mean())
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.06)
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.06)


def test_interval_covers_the_truth_about_19_times_in_20() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        rate = rng.beta(2, 2, size=60)  # a population of problems with mean 0.5
        estimate = avg_at_k(rng.random((60, 4)) < rate[:, None])
        covered += estimate.low <= 0.5 <= estimate.high
    assert 0.90 <= covered / 200 <= 0.985


def test_all_solved_or_none_is_no_certainty() -> None:
    # of n problems that are solved with probability p all are solved with p**n; at the bound that is 2.5 %
    solved = avg_at_k([[True, True]] * 5)
    assert (solved.value, solved.high) == (1.0, 1.0)
    assert solved.low**5 == pytest.approx(0.025)
    none = pass_at_k([[False, False]] * 5)
    assert (none.value, none.low) == (0.0, 0.0)
    assert (1 - none.high) ** 5 == pytest.approx(0.025)
    assert avg_at_k([[True, False]] * 5) == Estimate(0.5, 0.5, 0.5)
    assert paired_difference([[True]] * 5, [[True]] * 5) == Estimate(0.0, 0.0, 0.0)


def test_a_ratio_by_hand_and_its_interval() -> None:
    parts, wholes = np.array([1.0, 0.0, 4.0]), np.array([2.0, 1.0, 4.0])
    estimate = bootstrap_ratio(parts, wholes)
    assert estimate.value == 5 / 7
    assert 0.0 <= estimate.low < 5 / 7 < estimate.high <= 1.0
    assert bootstrap_ratio(wholes, wholes).low == pytest.approx(0.025 ** (1 / 3))
    with pytest.raises(ValueError, match="wholes above 0"):
        bootstrap_ratio(np.array([0.0]), np.array([0.0]))


def test_scores_must_be_finite() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores"):
        bootstrap_mean(np.array([1.0, np.nan]))


def test_paired_difference_by_hand_and_narrower_than_unpaired() -> None:
    rng = np.random.default_rng(4)
    hard = rng.random(300)
    before = rng.random((300, 8)) < hard[:, None]
    after = before.copy()
    after[:30] = True
    difference = paired_difference(after, before)
    assert difference.value == pytest.approx(avg_at_k(after).value - avg_at_k(before).value)
    assert difference.low > 0
    width = avg_at_k(after).high - avg_at_k(after).low
    assert difference.high - difference.low < 0.6 * width


def test_paired_difference_takes_scores_and_other_k() -> None:
    assert paired_difference([[True, False]], [[True] * 4]).value == -0.5
    pass_a, pass_b = pass_scores(np.array(CORRECT), 2), pass_scores(np.array(CORRECT), 1)
    assert paired_difference(pass_a, pass_b).value == pytest.approx(7 / 12 - 7 / 16)


def test_paired_difference_of_other_problems_is_refused() -> None:
    with pytest.raises(ValueError, match="2 on one side, 1 on the other"):
        paired_difference([[True], [True]], [[True]])
    with pytest.raises(ValueError, match="one of each"):
        paired_difference([[True]], {"p": [True]})


def test_summary_names_the_real_k() -> None:
    summary = summarise(CORRECT, ANSWERS, 4)
    assert {name: estimate.value for name, estimate in summary.items()} == pytest.approx(
        {"avg@4": 7 / 16, "pass@4": 3 / 4, "maj@4": 3 / 8}
    )
    assert list(summarise(CORRECT, None, 4)) == ["avg@4", "pass@4"]
    with pytest.raises(ValueError, match="told k = 8"):
        summarise(CORRECT, ANSWERS, 8)


def test_estimate_reads_well() -> None:
    assert str(Estimate(0.61234, 0.58, 0.6449)) == "0.612 [0.580, 0.645]"


def test_an_average_over_benchmarks_is_the_mean_of_their_means() -> None:
    one, other = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.5, 0.5])
    found = bootstrap_average([one, other])
    assert found.value == (0.75 + 0.5) / 2
    alone = bootstrap_mean(one)
    # the second has no spread, so the interval is half as wide as the first one's, around the mean of both
    assert (found.low - 0.25, found.high - 0.25) == pytest.approx((alone.low / 2, alone.high / 2))
    assert bootstrap_average([one]) == alone
    wide, narrow = bootstrap_mean(np.arange(30) % 2.0), bootstrap_average([np.arange(30) % 2.0] * 2)
    assert narrow.high - narrow.low < 0.85 * (wide.high - wide.low)  # two of one size are resampled apart
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_average([])
