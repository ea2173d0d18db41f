from collections import Counter

import numpy as np
import pytest

from reval_core.problems.schedule import epoch_order

POOL = [(f"prb_{index}", 1.0) for index in range(200)]


def test_an_epoch_has_every_problem_once() -> None:
    order = epoch_order(POOL, seed=0, epoch=0)
    assert sorted(order) == sorted(name for name, _ in POOL)


def test_the_order_is_the_same_whenever_it_is_asked_for() -> None:
    assert epoch_order(POOL, seed=3, epoch=2) == epoch_order(POOL, seed=3, epoch=2)
    assert epoch_order(POOL[::-1], seed=3, epoch=2) == epoch_order(POOL, seed=3, epoch=2)
    # held by its beginning: another order would be another run under the same name
    assert epoch_order(POOL[:5], seed=0, epoch=0) == ["prb_3", "prb_1", "prb_4", "prb_2", "prb_0"]


def test_the_order_differs_by_epoch_and_seed() -> None:
    orders = {tuple(epoch_order(POOL, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_every_place_is_equally_likely() -> None:
    places = np.array([epoch_order(POOL[:20], seed=0, epoch=epoch).index("prb_0") for epoch in range(2000)])
    counts = np.bincount(places, minlength=20)
    chi_square = ((counts - 100) ** 2 / 100).sum()
    assert chi_square < 43.8  # 99.9 % of chi-square with 19 degrees of freedom


def test_a_whole_weight_is_how_often_a_problem_comes() -> None:
    order = epoch_order([*POOL[:10], ("often", 2.0), ("most", 3.0)], seed=0, epoch=0)
    counts = Counter(order)
    assert (counts["often"], counts["most"], counts["prb_0"], len(order)) == (2, 3, 1, 15)


def test_half_a_weight_takes_each_problem_every_second_epoch() -> None:
    pool = [(name, 0.5) for name, _ in POOL]
    epochs = [set(epoch_order(pool, seed=1, epoch=epoch)) for epoch in range(4)]
    assert epochs[0] | epochs[1] == {name for name, _ in POOL}
    assert epochs[0].isdisjoint(epochs[1])
    assert epochs[0] == epochs[2]
    assert 70 < len(epochs[0]) < 130  # 100, give or take 4 standard deviations of 7.1


@pytest.mark.parametrize(("weight", "expected"), [(0.25, 25), (1.5, 150), (2.1, 210)])
def test_a_fraction_is_met_over_the_epochs(weight: float, expected: int) -> None:
    counts: Counter[str] = Counter()
    for epoch in range(100):
        counts.update(epoch_order([("a", weight), ("b", weight)], seed=0, epoch=epoch))
    assert abs(counts["a"] - expected) <= 1
    assert abs(counts["b"] - expected) <= 1


def test_a_new_problem_leaves_the_others_in_their_order() -> None:
    before = epoch_order(POOL, seed=0, epoch=0)
    after = epoch_order([*POOL, ("new", 1.0)], seed=0, epoch=0)
    assert [name for name in after if name != "new"] == before
