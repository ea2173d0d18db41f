"""Colours and running sums, worked out by hand."""

import numpy as np

from reval_core.browsing.figures import HEIGHT, MOST_POINTS, TOP, WIDTH, running_sum, shades


def test_shades() -> None:
    assert shades(np.array([1.0, -1.0, 0.0, 0.25, -0.25, 1e-9])) == ["p6", "n6", "z", "p3", "n3", "z"]
    assert shades(np.zeros(2)) == ["z", "z"]
    assert shades(np.array([])) == []


def points(values: list[float]) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in running_sum(np.array(values)).points.split()]  # type: ignore[misc]


def test_a_running_sum_begins_at_zero_and_spans_the_figure() -> None:
    line = running_sum(np.array([1.0, -3.0, 2.0, 1.0]))  # 0, 1, -2, 0, 1
    found = points([1.0, -3.0, 2.0, 1.0])
    heights = [y for _, y in found]
    assert heights[0] == heights[3] == line.zero
    assert heights[1] == heights[4] == TOP == min(heights)
    assert heights[2] == max(heights) == HEIGHT - 34
    assert (found[0][0], found[-1][0]) == (62, WIDTH - 10)
    assert [label for _, label in line.levels] == ["-2", "0", "1"]
    assert [label for _, label in line.places] == ["0", "1", "2", "3", "4"]


def test_a_long_one_has_no_more_points_than_are_seen() -> None:
    found = points([0.5] * 30_000)
    assert len(found) == MOST_POINTS
    assert found[-1] == (WIDTH - 10, TOP)


def test_nothing_at_all_is_a_flat_line() -> None:
    assert {y for _, y in points([0.0, 0.0])} == {running_sum(np.zeros(2)).zero}
