"""Draws from a window: exact, uniform or in stated proportions, and a function of seed, iteration and update alone."""

from itertools import permutations

import numpy as np
import pytest

from reval_core.errors import ConfigError
from reval_core.store.draws import Window, generator, prioritised, recency, uniform

TRIALS = 6000


def window(*counts: int, skipped: int = 0, residuals: list[float] | None = None) -> Window:
    found = None if residuals is None else np.array(residuals)
    return Window(np.arange(len(counts)), np.array(counts, np.int64), skipped, found)


def test_a_place_is_found_in_its_round() -> None:
    # the window begins at the third entry of round 4, and round 6 had no entry
    found = Window(np.array([4, 5, 7]), np.array([2, 3, 1]), skipped=2)
    assert found.size == 6
    iterations, positions = found.locate(np.array([0, 1, 2, 4, 5]))
    assert iterations.tolist() == [4, 4, 5, 5, 7]
    assert positions.tolist() == [2, 3, 0, 2, 0]
    assert found.ages(7).tolist() == [3, 3, 2, 2, 2, 0]


def test_a_window_before_an_iteration() -> None:
    found = Window(np.array([4, 5, 7]), np.array([2, 3, 1]), 2, np.arange(6.0)).before(7)
    assert (found.size, found.skipped, found.residuals.tolist()) == (5, 2, [0, 1, 2, 3, 4])
    assert found.before(4).size == 0


def test_a_draw_is_held_by_its_values() -> None:
    drawn = uniform(window(40, 60), 8, generator(3, 5, 2), iteration=5)
    assert drawn.places.tolist() == HELD
    assert uniform(window(100), 8, generator(3, 5, 2), iteration=5).places.tolist() == HELD  # wherever they lie
    for other in ((4, 5, 2), (3, 6, 2), (3, 5, 1)):
        assert uniform(window(100), 8, generator(*other), iteration=5).places.tolist() != HELD


HELD = [93, 70, 84, 4, 60, 31, 20, 82]


@pytest.mark.parametrize("size", [0, 1, 5, 6, 9])
def test_no_place_comes_twice_and_a_small_window_is_taken_whole(size: int) -> None:
    for draw, arguments in ((uniform, {}), (recency, {"half_life": 2.0}), (prioritised, {})):
        found = window(2, 4, residuals=[1.0, np.nan, -3.0, 0.0, 2.0, np.nan])
        drawn = draw(found, size, generator(0, 1, 0), iteration=1, **arguments)
        assert len(drawn.places) == len(drawn.weights) == min(size, 6)
        assert len(set(drawn.places.tolist())) == min(size, 6)


def test_an_empty_window_gives_nothing() -> None:
    for draw, arguments in ((uniform, {}), (recency, {"half_life": 2.0}), (prioritised, {})):
        found = Window(np.array([], np.int64), np.array([], np.int64), residuals=np.array([]))
        assert draw(found, 4, generator(0, 0, 0), iteration=0, **arguments).places.size == 0


def test_every_ordered_draw_is_equally_likely() -> None:
    """All 4 * 3 ordered pairs of four places; chi-squared with 11 degrees of freedom, 0.1 % point 31.3."""
    counts = dict.fromkeys(permutations(range(4), 2), 0)
    for update in range(TRIALS):
        counts[tuple(uniform(window(1, 3), 2, generator(0, 0, update), iteration=0).places.tolist())] += 1
    expected = TRIALS / 12
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 31.3


def test_the_odds_of_recency_halve_with_every_half_life() -> None:
    """One entry of each of four rounds; ages 3, 2, 1, 0 have odds 1, 2, 4, 8 of 15. 3 degrees of freedom, 16.3."""
    counts = np.zeros(4)
    for update in range(TRIALS):
        counts[recency(window(1, 1, 1, 1), 1, generator(0, 0, update), iteration=3, half_life=1.0).places[0]] += 1
    expected = TRIALS * np.array([1, 2, 4, 8]) / 15
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_priorities_and_their_importance_weights() -> None:
    """|residual| 1, 3 and one never used: priorities 1, 3, 3 of 7 at alpha 1; chi-squared with 2 degrees, 13.8."""
    found = window(3, residuals=[-1.0, 3.0, np.nan])
    options = {"alpha": 1.0, "beta": 0.5, "floor": 1e-9}
    counts = np.zeros(3)
    for update in range(TRIALS):
        counts[prioritised(found, 1, generator(0, 0, update), iteration=1, **options).places[0]] += 1
    expected = TRIALS * np.array([1, 3, 3]) / 7
    assert ((counts - expected) ** 2 / expected).sum() < 13.8
    drawn = prioritised(found, 3, generator(0, 0, 0), iteration=1, **options)
    # (N * p) ** -1/2 is (3/7) ** -1/2 and (9/7) ** -1/2; the greatest one becomes 1
    weights = dict(zip(drawn.places.tolist(), drawn.weights.tolist(), strict=True))
    assert weights == pytest.approx({0: 1.0, 1: 3**-0.5, 2: 3**-0.5})
    unweighted = prioritised(found, 3, generator(0, 0, 0), iteration=1, alpha=1.0, beta=0.0).weights
    assert unweighted.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("options", [{"alpha": 2.0}, {"beta": -0.1}, {"floor": 0.0}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="prioritised"):
        prioritised(window(1, residuals=[1.0]), 1, generator(0, 0, 0), iteration=0, **options)
    with pytest.raises(ConfigError, match="half_life"):
        recency(window(1), 1, generator(0, 0, 0), iteration=0, half_life=0.0)
