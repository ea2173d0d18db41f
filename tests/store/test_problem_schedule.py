"""Which problems an iteration draws: planned once, an epoch at a time, shared along the chain."""

from collections.abc import Sequence

import duckdb
import pytest
from store_example import FORK, RUN, add_run

from reval_core.store import Store, schedule

FIRST = ["a", "b", "c", "d", "e"]
SECOND = ["e", "d", "c", "b", "a"]
THIRD = ["c", "a", "b", "e", "d"]
CHANGED = ["x", "y", "z"]


def _plan(
    connection: duckdb.DuckDBPyConnection, run_id: str, iteration: int, count: int, epochs: Sequence[list[str]]
) -> list[str]:
    """What a run does when an iteration asks for its problems; ``epochs`` are the orders by epoch."""
    planned = schedule.planned_round(connection, run_id, iteration)
    if planned is not None:
        return planned
    first, reach, epoch = schedule.schedule_state(connection, run_id, iteration)
    while reach < first + count:
        schedule.plan_epoch(connection, run_id, iteration, epoch, reach, epochs[epoch])
        reach, epoch = reach + len(epochs[epoch]), epoch + 1
    return schedule.plan_round(connection, run_id, iteration, first, count)


def test_rounds_go_through_the_epochs_without_a_gap(store: Store) -> None:
    with store.write() as connection:
        add_run(connection, RUN)
        drawn = [_plan(connection, RUN, t, 3, [FIRST, SECOND, THIRD]) for t in range(4)]
        assert drawn == [["a", "b", "c"], ["d", "e", "e"], ["d", "c", "b"], ["a", "c", "a"]]
        assert schedule.planned_round(connection, RUN, 4) is None


def test_a_planned_round_stays_whatever_the_problems_are_later(store: Store) -> None:
    with store.write() as connection:
        add_run(connection, RUN)
        first = _plan(connection, RUN, 0, 3, [FIRST])
        assert _plan(connection, RUN, 0, 3, [CHANGED]) == first
        # the epoch that was begun is finished, only the next one changes
        assert _plan(connection, RUN, 1, 3, [CHANGED, CHANGED]) == ["d", "e", "x"]


def test_a_round_may_span_several_epochs(store: Store) -> None:
    with store.write() as connection:
        add_run(connection, RUN)
        assert _plan(connection, RUN, 0, 12, [FIRST, SECOND, THIRD]) == [*FIRST, *SECOND, "c", "a"]


def test_a_fork_shares_the_rounds_before_it_and_goes_on_in_their_epoch(store: Store) -> None:
    with store.write() as connection:
        add_run(connection, RUN)
        shared = [_plan(connection, RUN, t, 3, [FIRST, SECOND, THIRD]) for t in range(4)]
        add_run(connection, FORK, RUN, 2)
        assert [schedule.planned_round(connection, FORK, t) for t in range(3)] == [*shared[:2], None]
        # epoch 1 was planned at iteration 1, before the fork, so it is shared; its next problems come first
        assert _plan(connection, FORK, 2, 4, [FIRST, SECOND, CHANGED]) == ["d", "c", "b", "a"]
        # epoch 2 was planned by the parent at iteration 3, after the fork: the fork plans its own
        assert _plan(connection, FORK, 3, 2, [FIRST, SECOND, CHANGED]) == ["x", "y"]
        assert [schedule.planned_round(connection, RUN, t) for t in range(4)] == shared


def test_a_fork_with_other_round_sizes_leaves_no_gap(store: Store) -> None:
    with store.write() as connection:
        add_run(connection, RUN)
        _plan(connection, RUN, 0, 4, [FIRST, SECOND])
        _plan(connection, RUN, 1, 4, [FIRST, SECOND])
        add_run(connection, FORK, RUN, 1)
        assert _plan(connection, FORK, 1, 1, [FIRST, CHANGED]) == ["e"]
        assert _plan(connection, FORK, 2, 2, [FIRST, CHANGED]) == ["x", "y"]


@pytest.mark.parametrize("fork", [0, 1])
def test_a_fork_is_not_moved_by_what_its_parent_plans_afterwards(store: Store, fork: int) -> None:
    with store.write() as connection:
        add_run(connection, RUN)
        _plan(connection, RUN, 0, 3, [FIRST])
        add_run(connection, FORK, RUN, fork)
        _plan(connection, RUN, 1, 9, [FIRST, SECOND, THIRD])
        drawn = [_plan(connection, FORK, t, 3, [FIRST, CHANGED, THIRD]) for t in (0, 1)]
        assert drawn == [["a", "b", "c"], ["d", "e", "x"]]
