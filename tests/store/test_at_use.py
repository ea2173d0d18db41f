"""What is decided when a trajectory is used: the baseline of its reward, and the successes that join its update."""

from typing import Any

import pyarrow as pa
import pytest
from store_example import FORK, RUN, add_run, batch_record, names, part_of

from reval_core.config_replay import ReplayConfig
from reval_core.store import Store, baselines, replay, successes
from reval_core.store.replay import Entry

ROUNDS = {
    # prb_0 twice, then prb_1 twice; the same two problems every round
    (RUN, 0): [1.0, 1.0, 0.0, 0.0],
    (RUN, 1): [0.0, 0.0, 1.0, 0.0],
    (RUN, 2): [1.0, 0.0, 0.0, 0.0],
    (FORK, 2): [0.0, 0.0, 1.0, 1.0],
}


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three rounds of a run, and a fork of it at the third; tests only read it."""
    store = Store(tmp_path_factory.mktemp("at_use") / "reval.duckdb")
    store.prepare()
    with store.write() as connection:
        add_run(connection, RUN)
        add_run(connection, FORK, RUN, 2)
    for (run_id, iteration), rewards in reversed(ROUNDS.items()):
        batch = batch_record(iteration, generation=run_id == FORK)
        columns = {"position": range(4), "trajectory_id": names(batch), "gold_digest": ["gld"] * 4}
        table = pa.table({**columns, "reward_used": rewards}, schema=replay.ENTRY_SCHEMA)
        with store.write() as connection:
            replay.admit(connection, run_id, iteration, "ver_1", table)
        store.append_batch(batch, part_of(batch))
    return store


def _round(store: Store, run_id: str, iteration: int) -> list[Entry]:
    with store.read() as connection:
        return replay.entries(connection, run_id, iteration)


def _relative(store: Store, run_id: str, iteration: int, *updates: list[Entry], **how: Any) -> list[list[float]]:
    with store.read() as connection:
        found = baselines.relative(connection, run_id, iteration, updates, ReplayConfig(**how))
    assert [[e.trajectory_id for e in update] for update in found] == [[e.trajectory_id for e in u] for u in updates]
    return [[entry.reward for entry in update] for update in found]


def test_the_baseline_of_a_problem_is_the_mean_of_all_that_is_stored_of_it_so_far(rounds: Store) -> None:
    first = _round(rounds, RUN, 0)
    assert _relative(rounds, RUN, 0, first, baseline="problem") == [[0.0, 0.0, 0.0, 0.0]]
    # prb_0 had 2 of 4, prb_1 had 1 of 4: the same entries, two rounds later
    assert _relative(rounds, RUN, 1, first, baseline="problem") == [[0.5, 0.5, -0.25, -0.25]]
    again = _relative(rounds, RUN, 2, first, _round(rounds, RUN, 2)[2:], baseline="problem")
    assert again == [pytest.approx([0.5, 0.5, -1 / 6, -1 / 6]), pytest.approx([-1 / 6, -1 / 6])]


def test_a_fork_has_the_baseline_of_its_own_chain(rounds: Store) -> None:
    fresh = _relative(rounds, FORK, 2, _round(rounds, FORK, 2), baseline="problem")
    assert fresh == [pytest.approx([-1 / 3, -1 / 3, 0.5, 0.5])]


def test_the_baseline_of_a_round_is_the_same_for_all(rounds: Store) -> None:
    updates = _round(rounds, RUN, 0), _round(rounds, RUN, 1)
    assert _relative(rounds, RUN, 1, *updates, baseline="round") == [
        [0.75, 0.75, -0.25, -0.25],
        [-0.25] * 2 + [0.75, -0.25],
    ]
    assert _relative(rounds, RUN, 9, updates[0], baseline="round") == [
        [0.75, 0.75, -0.25, -0.25]
    ]  # round 2 is the newest


def test_a_share_of_the_baseline_leaves_more_to_the_right_ones(rounds: Store) -> None:
    first = _round(rounds, RUN, 0)
    assert _relative(rounds, RUN, 1, first, baseline="round", baseline_share=0.5) == [[0.875, 0.875, -0.125, -0.125]]
    of_problem = _relative(rounds, RUN, 1, first, baseline="problem", baseline_share=0.5)
    assert of_problem == [[0.75, 0.75, -0.125, -0.125]]


def test_without_a_baseline_rewards_are_as_admitted(rounds: Store) -> None:
    assert _relative(rounds, RUN, 2, _round(rounds, RUN, 1), [], baseline="none") == [ROUNDS[RUN, 1], []]
    assert _relative(rounds, RUN, 2, [], baseline="problem") == [[]]


def _joined(store: Store, run_id: str, iteration: int, *updates: list[Entry], most: int) -> list[list[Entry]]:
    with store.read() as connection:
        found = successes.joined(connection, run_id, iteration, updates, most)
    assert [update[: len(u)] for update, u in zip(found, updates, strict=True)] == [list(u) for u in updates]
    return [update[len(u) :] for update, u in zip(found, updates, strict=True)]


def _where(entries: list[Entry]) -> list[tuple[int, int]]:
    return [(entry.iteration, entry.position) for entry in entries]


def test_an_all_wrong_group_brings_the_newest_successes_of_its_problem(rounds: Store) -> None:
    first, second, third = (_round(rounds, RUN, iteration) for iteration in range(3))
    # at round 1 prb_0 is all wrong and was right twice; the update of round 0 holds no wrong group with a success
    joined = _joined(rounds, RUN, 1, second, first[:2], most=2)
    assert [_where(part) for part in joined] == [[(0, 1), (0, 0)], []]
    assert [entry.problem_id for entry in joined[0]] == ["prb_0", "prb_0"]
    assert [_where(part) for part in _joined(rounds, RUN, 1, second, most=1)] == [[(0, 1)]]
    # one of the group is enough, and at round 2 there is a newer success; prb_1 is all wrong in rounds 0 and 2
    assert _where(_joined(rounds, RUN, 2, second[:1], most=2)[0]) == [(2, 0), (0, 1)]
    assert _where(_joined(rounds, RUN, 2, [third[3], first[2]], most=5)[0]) == [(1, 2)]


def test_no_trajectory_joins_an_update_that_holds_it(rounds: Store) -> None:
    first, second = _round(rounds, RUN, 0), _round(rounds, RUN, 1)
    assert _where(_joined(rounds, RUN, 1, [second[0], first[1]], most=5)[0]) == [(0, 0)]


def test_nothing_joins_before_there_is_a_success_or_when_none_is_wanted(rounds: Store) -> None:
    first, second = _round(rounds, RUN, 0), _round(rounds, RUN, 1)
    assert _joined(rounds, RUN, 0, first, most=3) == [[]]  # the success of prb_1 lies in the future
    assert _joined(rounds, RUN, 1, second, [], most=0) == [[], []]
    assert _joined(rounds, RUN, 1, most=3) == []


def test_the_successes_of_a_fork_are_of_its_chain(rounds: Store) -> None:
    fresh = _round(rounds, FORK, 2)
    assert _where(_joined(rounds, FORK, 2, fresh, most=5)[0]) == [(0, 1), (0, 0)]  # not round 2 of the other
