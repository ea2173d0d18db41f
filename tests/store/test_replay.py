"""The window is a pure function of what was admitted; draws are uniform, without replacement and stateless."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from store_example import FORK, RUN, Example, add_run, batch_record, names, part_of

from reval_core.config_replay import ReplayConfig
from reval_core.errors import ConfigError
from reval_core.store import Store, replay
from reval_core.store.connection import Connections
from reval_core.store.draws import Drawn, Window, generator, uniform
from reval_core.store.replay import Entry


def _admit(
    store: Store, run_id: str, iteration: int, generation: int = 0, order: Sequence[int] = (0, 1, 2, 3)
) -> list[str]:
    """A round of four trajectories, admitted to a run in an order of theirs; returns their ids so."""
    batch = batch_record(iteration, generation=generation)
    ids = [names(batch)[place] for place in order]
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


def test_a_window_may_be_counted_in_rounds_or_have_no_end(store: Store) -> None:
    _forked(store, ROUNDS)
    with store.read() as connection:
        two = replay.window(connection, FORK, 3, ReplayConfig(capacity=2, unit="rounds"))
        assert _ids(replay.entries_of(connection, FORK, two)) == _of((2, 1), (3, 1))
        whole = replay.window(connection, FORK, 3, ReplayConfig(capacity=None))
        assert whole.size == 16
        before = replay.window(connection, FORK, 3, ReplayConfig(capacity=6, excludes_fresh=True))
        assert _ids(replay.entries_of(connection, FORK, before)) == _of((2, 1))[-2:]
        assert replay.window(connection, "nobody", 3, ReplayConfig()).size == 0


def test_a_draw_is_the_same_whenever_it_is_made(store: Store) -> None:
    _forked(store, ROUNDS)
    settings: dict[str, Any] = {"capacity": 12, "size": 5, "seed": 3}
    drawn = store.draw(RUN, 3, update=1, **settings)
    assert store.draw(RUN, 3, update=1, **settings) == drawn
    assert set(_ids(drawn)) <= set(_of((1, 0), (2, 0), (3, 0)))
    assert [entry.reward for entry in drawn] == [float(entry.position % 2) for entry in drawn]
    with store.read() as connection:
        several = replay.draw(connection, RUN, 3, ReplayConfig(capacity=12), size=5, seed=3, updates=[0, 1, 2])
    assert several[1] == drawn
    assert several[0] != several[2]


def test_a_draw_does_not_depend_on_the_databases_threads_or_the_order_of_insertion(
    store: Store, tmp_path: Path
) -> None:
    _forked(store, ROUNDS)
    other = Store(tmp_path / "other" / "reval.duckdb")
    other.prepare()
    _forked(other, ROUNDS[::-1])
    drawn = []
    for path in (store.path, other.path):
        for threads in (1, 2, 4):
            with Connections(path, threads=threads).read() as connection:
                how = ReplayConfig(capacity=10)
                drawn.append(replay.draw(connection, FORK, 3, how, size=6, seed=0, updates=[2]))
    assert all(entries == drawn[0] for entries in drawn)


def test_whole_groups_are_drawn_until_the_size_is_reached(store: Store) -> None:
    """Each round has two groups of two; a window of seven entries cuts the group of its eighth."""
    _forked(store, ROUNDS)
    how = ReplayConfig(capacity=7)
    for update in range(20):
        with store.read() as connection:
            (drawn,) = replay.draw(connection, RUN, 3, how, size=3, seed=0, updates=[update], whole_groups=True)
            everything = replay.draw(connection, RUN, 3, how, size=99, seed=0, updates=[update], whole_groups=True)
        assert sorted(Counter(entry.group_id for entry in drawn).values()) == [2, 2]
        assert sorted(_ids(everything[0])) == sorted(_of((2, 0), (3, 0))[2:])


def test_a_group_is_found_wherever_its_responses_stand(store: Store) -> None:
    """An offline selection is admitted by trajectory id, which scatters groups; a window of six cuts two of them."""
    with store.write() as connection:
        add_run(connection, RUN)
    first, second = (_admit(store, RUN, iteration, order=(0, 2, 1, 3)) for iteration in range(2))
    for capacity, expected in ((None, [*first, *second]), (6, second), (4, second)):
        with store.read() as connection:
            (drawn,) = replay.draw(
                connection, RUN, 1, ReplayConfig(capacity=capacity), size=99, seed=0, updates=[0], whole_groups=True
            )
        assert sorted(_ids(drawn)) == sorted(expected)
        groups = [entry.group_id for entry in drawn]
        assert groups[0::2] == groups[1::2]


def test_priorities_are_the_residuals_of_the_last_use(example: Example) -> None:
    """In the example's round 2 all that was used has a known residual; what the fork used does not count."""
    with example.store.read() as connection:
        found = replay.window(connection, RUN, 2, ReplayConfig(capacity=None))
        residuals = replay._residuals(connection, RUN, 2, found)
        entries = replay.entries_of(connection, RUN, found)
    last: dict[str, float] = {}
    members = example.store.query(
        "SELECT trajectory_id, residual FROM update_members WHERE run_id = $run AND iteration < 2 "
        "ORDER BY iteration, update_index, position",
        run=RUN,
    )
    for row in members.to_pylist():
        last[row["trajectory_id"]] = row["residual"]
    assert last
    expected = [last.get(entry.trajectory_id, np.nan) for entry in entries]
    np.testing.assert_array_equal(residuals, expected)


def test_every_trajectory_is_used_k_times_in_the_long_run() -> None:
    """Batch B, window M = 4 B, K = 8 updates of B (one fresh, seven drawn): K uses in steady state.

    A trajectory is drawn with probability B / M in each of 7 updates of each of M / B rounds, and once fresh:
    1 + 7 = 8. Before the window is full it is smaller: round t has t + 1 batches in it.
    """
    batch, rounds, held, replays = 32, 60, 4, 7
    uses = np.ones((rounds, batch))
    for iteration in range(rounds):
        newest = np.arange(max(0, iteration + 1 - held), iteration + 1)
        window = Window(newest, np.full(len(newest), batch))
        for update in range(replays):
            drawn = uniform(window, batch, generator(0, iteration, update), iteration=iteration)
            np.add.at(uses, window.locate(drawn.places), 1)
    mean = uses.mean(axis=1)
    assert mean[held - 1 : rounds - held + 1].mean() == pytest.approx(8, abs=0.1)
    # the first batch: 1 + 7 (1 + 1/2 + 1/3 + 1/4), the second: 1 + 7 (1/2 + 1/3 + 1/4 + 1/4)
    assert mean[0] == pytest.approx(1 + 7 * 25 / 12, abs=1.0)
    assert mean[1] == pytest.approx(1 + 7 * 16 / 12, abs=1.0)
    assert uses.sum() == rounds * (1 + replays) * batch


def ones_own(window: Window, size: int, rng: np.random.Generator, *, iteration: int, every: int) -> Drawn:
    """Every so many places, from the newest on."""
    places = np.arange(window.size)[::-1][::every][:size]
    return Drawn(places, np.full(len(places), 0.5))


def test_strategies_by_name(store: Store) -> None:
    _forked(store, ROUNDS)
    own: dict[str, Any] = {"capacity": 8, "draw": f"{__name__}:ones_own", "draw_args": {"every": 3}}
    drawn = store.draw(RUN, 3, size=2, seed=0, update=0, **own)
    assert [(entry.iteration, entry.position, entry.weight) for entry in drawn] == [(3, 3, 0.5), (3, 0, 0.5)]
    with pytest.raises(ConfigError, match="Did you mean 'uniform'"):
        replay.strategy(ReplayConfig(draw="unifrom"))
    with pytest.raises(ConfigError, match=r"draw_args do not fit the draw 'recency': .*half_life"):
        replay.strategy(ReplayConfig(draw="recency"))


@pytest.mark.parametrize(
    ("draw", "arguments"),
    [("recency", {"half_life": "abc"}), ("recency", {"half_life": 0}), ("prioritised", {"alpha": -1.0})],
)
def test_arguments_that_do_not_work_are_refused_before_anything_is_sampled(
    draw: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"replay\.draw_args"):
        replay.probe(ReplayConfig(draw=draw, draw_args=arguments))
    replay.probe(ReplayConfig(draw="prioritised"))
