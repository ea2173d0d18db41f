"""Against numbers worked out by hand, and printed tables of Student's distribution."""

import pytest

from reval_core.experiments.statistics import (
    final,
    first_reached,
    largest_fall,
    mean_interval,
    paired_difference,
    reached,
    t_quantile,
)


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (30, 2.042)]
)
def test_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert t_quantile(freedom) == pytest.approx(expected, abs=5e-4)
    assert t_quantile(freedom, 0.5) < 1.001


def test_a_mean_with_its_interval() -> None:
    # 1, 2, 3, 4, 5: mean 3, standard deviation sqrt(10 / 4), half width 2.776 * 1.5811 / sqrt(5) = 1.963
    found = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.value, found.count) == (3.0, 5)
    assert found.low == pytest.approx(1.037, abs=1e-3)
    assert found.high == pytest.approx(4.963, abs=1e-3)
    assert str(found) == "3.000 [1.037, 4.963]"


def test_one_value_has_no_interval() -> None:
    found = mean_interval([0.5])
    assert (found.value, found.low, found.high) == (0.5, None, None)
    assert str(found) == "0.500"
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


def test_differences_are_taken_seed_by_seed() -> None:
    # the differences are 0.1, 0.1, 0.4: mean 0.2, deviation sqrt(0.06 / 2), half width 4.303 * 0.1732 / sqrt(3) = 0.430
    found = paired_difference({0: 0.6, 1: 0.3, 2: 0.9, 9: 5.0}, {0: 0.5, 1: 0.2, 2: 0.5, 8: 0.0})
    assert found is not None
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(-0.2303, abs=1e-3)
    assert found.count == 3
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_a_threshold_is_reached_by_two_in_a_row() -> None:
    assert first_reached([0.1, 0.96, 0.2, 0.9, 1.0, 1.0], 0.95) == 3
    assert first_reached([0.9, 1.0], 0.95) == 0
    assert first_reached([0.1, 0.2], 0.95) is None
    assert first_reached([1.0], 0.95) is None


def test_a_seed_that_never_reaches_it_counts_as_later_than_all() -> None:
    found = reached([4.0, None, 2.0, 6.0, None])
    assert (found.count, found.of, found.median, found.first, found.last) == (3, 5, 6.0, 2.0, 6.0)
    assert reached([4.0, None, None]).median is None
    assert reached([4.0, 8.0]).median == 6.0
    assert reached([4.0, None]).median is None
    none = reached([None, None])
    assert (none.count, none.median, none.first) == (0, None, None)


def test_final_and_fall() -> None:
    assert final([0.0, 0.7, 0.8, 0.9]) == pytest.approx(0.8)
    assert final([0.5]) == 0.5
    assert largest_fall([0.2, 0.8, 0.5, 0.9, 0.7]) == pytest.approx(0.3)
    assert largest_fall([0.1, 0.2, 0.3]) == 0.0
