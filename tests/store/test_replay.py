"""The window is a pure function of what was admitted; draws are uniform, without replacement and stateless."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from store_example import FORK, RUN, add_run, batch_record, names, part_of

from reval_core.errors import ConfigError
from reval_core.store import Store, replay
from reval_core.store.connection import Connections
from reval_core.store.replay import Entry


def _admit(store: Store, run_id: str, iteration: int, generation: int = 0) -> list[str]:
    """A round of four trajectories, admitted to a run; returns their ids in order."""
    batch = batch_record(iteration, generation=generation)
    ids = names(batch)
    entries = pa.table(
        {
            "position": range(4),
            "trajectory_id": ids,
            "gold_digest": ["gld"] * 4,
            "reward_used": [0.0, 1.0, 0.0, 1.0],
        },
        schema=replay.ENTRY_SCHEMA,
    )
    with store.write() as connection:
        replay.admit(connection, run_id, iteration, "ver_1", entries)
    store.append_batch(batch, part_of(batch))
    return ids


def _forked(store: Store, order: Sequence[tuple[str, int, int]]) -> None:
    """A run and its fork at iteration 2; rounds are admitted in the given order of insertion."""
    with store.write() as connection:
        add_run(connection, RUN)
        add_run(connection, FORK, RUN, 2)
    for run_id, iteration, generation in order:
        _admit(store, run_id, iteration, generation)


ROUNDS = [(RUN, 0, 0), (RUN, 1, 0), (RUN, 2, 0), (RUN, 3, 0), (FORK, 2, 1), (FORK, 3, 1)]


def _ids(entries: Sequence[Entry]) -> list[str]:
    return [entry.trajectory_id for entry in entries]


def _of(*rounds: tuple[int, int]) -> list[str]:
    return [name for iteration, generation in rounds for name in names(batch_record(iteration, generation=generation))]


def test_the_window_is_the_last_entries_oldest_first(store: Store) -> None:
    _forked(store, ROUNDS)
    assert _ids(store.window(RUN, 3, capacity=100)) == _of((0, 0), (1, 0), (2, 0), (3, 0))
    assert _ids(store.window(RUN, 3, capacity=6)) == _of((2, 0), (3, 0))[-6:]
    window = store.window(RUN, 0, capacity=3)
    assert [(e.iteration, e.position, e.reward) for e in window] == [(0, 1, 1.0), (0, 2, 0.0), (0, 3, 1.0)]


def test_the_future_is_not_in_the_window(store: Store) -> None:
    _forked(store, ROUNDS)
    assert _ids(store.window(RUN, 1, capacity=100)) == _of((0, 0), (1, 0))


def test_a_fork_sees_its_ancestors_up_to_the_fork_then_its_own(store: Store) -> None:
    _forked(store, ROUNDS)
    assert _ids(store.window(FORK, 3, capacity=100)) == _of((0, 0), (1, 0), (2, 1), (3, 1))
    assert _ids(store.window(FORK, 1, capacity=100)) == _ids(store.window(RUN, 1, capacity=100))


def test_a_fork_of_a_fork_cuts_the_chain_again(store: Store) -> None:
    _forked(store, ROUNDS)
    with store.write() as connection:
        add_run(connection, "run-c", FORK, 3)
        add_run(connection, "run-d", FORK, 1)
    assert _ids(store.window("run-c", 9, capacity=100)) == _of((0, 0), (1, 0), (2, 1))
    assert _ids(store.window("run-d", 9, capacity=100)) == _of((0, 0))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_window_does_not_depend_on_the_order_of_insertion(store: Store, seed: int) -> None:
    order = [ROUNDS[index] for index in np.random.default_rng(seed).permutation(len(ROUNDS))]
    _forked(store, order)
    assert _ids(store.window(FORK, 3, capacity=7)) == _of((0, 0), (1, 0), (2, 1), (3, 1))[-7:]
    assert _ids(store.window(RUN, 3, capacity=7)) == _of((2, 0), (3, 0))[-7:]


def test_admitting_twice_changes_nothing(store: Store) -> None:
    _forked(store, ROUNDS)
    before = store.window(RUN, 3, capacity=100)
    _admit(store, RUN, 2)
    assert store.window(RUN, 3, capacity=100) == before


def _entries(count: int, iteration: int = 0, group: int = 4) -> list[Entry]:
    return [Entry(iteration, i, f"trj_{iteration}_{i}", 0.0, f"group_{iteration}_{i // group}") for i in range(count)]


def test_a_draw_is_the_same_whenever_it_is_made(store: Store) -> None:
    _forked(store, ROUNDS)
    settings = {"capacity": 12, "size": 5, "seed": 3, "update": 1}
    drawn = store.draw(RUN, 3, **settings)
    assert store.draw(RUN, 3, **settings) == drawn
    assert replay.draw(store.window(RUN, 3, 12), 5, seed=3, iteration=3, update=1) == drawn
    places = [(s, t, u) for s in (0, 1) for t in (0, 1) for u in (0, 1)]
    others = [replay.draw(_entries(64), 8, seed=s, iteration=t, update=u) for s, t, u in places]
    assert len({tuple(_ids(other)) for other in others}) == 8


def test_a_draw_is_held_by_its_values() -> None:
    # another numpy or another order here would be another run under the same name
    drawn = replay.draw(_entries(8), 8, seed=0, iteration=0, update=0)
    assert [entry.position for entry in drawn] == [3, 2, 1, 6, 0, 7, 4, 5]


def test_a_draw_does_not_depend_on_the_databases_threads(store: Store) -> None:
    _forked(store, ROUNDS)
    drawn = []
    for threads in (1, 2, 4):
        with Connections(store.path, threads=threads).read() as connection:
            window = replay.window(connection, FORK, 3, 10)
        drawn.append(_ids(replay.draw(window, 6, seed=0, iteration=3, update=2)))
    assert drawn[0] == drawn[1] == drawn[2]


def test_a_draw_takes_no_entry_twice_and_a_small_window_whole() -> None:
    entries = _entries(20)
    for update in range(50):
        drawn = replay.draw(entries, 15, seed=0, iteration=1, update=update)
        assert len(set(_ids(drawn))) == 15
    assert sorted(_ids(replay.draw(entries, 99, seed=0, iteration=1, update=0))) == sorted(_ids(entries))
    assert replay.draw([], 4, seed=0, iteration=0, update=0) == []


def test_draws_are_uniform_over_entries_and_places() -> None:
    entries, size, draws = _entries(40), 10, 4000
    drawn = [replay.draw(entries, size, seed=5, iteration=i // 8, update=i % 8) for i in range(draws)]
    counts = Counter(entry.position for some in drawn for entry in some)
    expected = draws * size / len(entries)
    # a draw without replacement has variance n p (1 - p), so the usual sum is scaled by 1 / (1 - p)
    chi_square = sum((counts[i] - expected) ** 2 / expected for i in range(40)) / (1 - size / len(entries))
    assert chi_square < 72.1  # 39 degrees of freedom, one in a thousand
    first = Counter(some[0].position for some in drawn)
    chi_square = sum((first[i] - draws / 40) ** 2 / (draws / 40) for i in range(40))
    assert chi_square < 72.1


def test_whole_groups_are_drawn_until_the_size_is_reached() -> None:
    drawn = replay.draw_groups(_entries(40), 10, seed=0, iteration=0, update=0)
    assert len(drawn) == 12  # three groups of four
    assert set(Counter(entry.group_id for entry in drawn).values()) == {4}


def test_every_trajectory_is_used_k_times_in_the_long_run() -> None:
    """Batch B, window M = 4 B, K = 8 updates of B (one fresh, seven drawn): K uses in steady state.

    A trajectory is drawn with probability B / M in each of 7 updates of each of M / B rounds, and once fresh:
    1 + 7 = 8. Before the window is full it is smaller: round t has t + 1 batches in it.
    """
    batch, rounds, held, replays = 32, 60, 4, 7
    window: list[Entry] = []
    uses: Counter[str] = Counter()
    for iteration in range(rounds):
        fresh = _entries(batch, iteration)
        window = (window + fresh)[-held * batch :]
        uses.update(_ids(fresh))
        for update in range(replays):
            uses.update(_ids(replay.draw(window, batch, seed=0, iteration=iteration, update=update)))

    def mean_of(generation: int) -> float:
        return sum(uses[f"trj_{generation}_{i}"] for i in range(batch)) / batch

    steady = range(held - 1, rounds - held + 1)
    assert sum(map(mean_of, steady)) / len(steady) == pytest.approx(8, abs=0.1)
    # the first batch: 1 + 7 (1 + 1/2 + 1/3 + 1/4), the second: 1 + 7 (1/2 + 1/3 + 1/4 + 1/4)
    assert mean_of(0) == pytest.approx(1 + 7 * 25 / 12, abs=1.0)
    assert mean_of(1) == pytest.approx(1 + 7 * 16 / 12, abs=1.0)
    assert sum(uses.values()) == rounds * (1 + replays) * batch


def test_strategies_by_name() -> None:
    assert replay.strategy("uniform", whole_groups=False) is replay.draw
    assert replay.strategy("uniform", whole_groups=True) is replay.draw_groups
    assert replay.strategy("reval_core.store.replay:draw_groups", whole_groups=False) is replay.draw_groups
    with pytest.raises(ConfigError, match="Did you mean 'uniform'"):
        replay.strategy("unifrom", whole_groups=False)
