"""Which payloads no run needs, on stores whose windows are counted by hand."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from store_example import (
    BASE,
    FORK,
    RUN,
    Example,
    add_run,
    add_update,
    batch_record,
    commit_stage,
    names,
    part_of,
)

from reval_core.config_replay import ReplayConfig
from reval_core.store import Store, lineage, outside, replay
from reval_core.store.lineage import PolicyRecord
from reval_core.store.outside import Choice, Round, Saved, Standing
from reval_core.store.trajectories import BatchRecord

# The example: RUN admits 4, 3 and 4 responses in its rounds, FORK shares the first two and admits 4 of its own. Windows
# hold 8, so both reach from round 2 back to the last response of round 0. Response 3 of round 1 was left out by both.
LEARNED = ("pol_run-a_0", "pol_run-a_1", "pol_run-a_2", "pol_run-b_2")
ALL = Saved(frozenset(LEARNED), frozenset(LEARNED))
NONE = Saved(frozenset(), frozenset())


@pytest.fixture
def house(example: Example, tmp_path: Path) -> Example:
    """The example in a root of the test's own."""
    path = tmp_path / "reval.duckdb"
    shutil.copyfile(example.store.path, path)
    return Example(Store(path), example.rounds, example.fork_round, example.evaluation)


def found(store: Store, saved: Saved = ALL, **choice: Any) -> pa.Table:
    with store.read() as connection:
        return outside.outside(connection, saved, Choice(**choice))


def ids(table: pa.Table) -> set[str]:
    return set(table.column("trajectory_id").to_pylist())


def left_over(house: Example) -> set[str]:
    """What no run needs when every policy is saved."""
    return {*names(house.rounds[0])[:3], names(house.rounds[1])[3]}


def test_what_lies_outside_every_window_may_go(house: Example) -> None:
    table = found(house.store)
    assert ids(table) == left_over(house)
    assert set(table.column("run_id").to_pylist()) == {RUN}
    assert table.column("iteration").to_pylist() == [0, 0, 0, 1]
    assert set(table.column("archive_id").to_pylist()) == {None}


def test_what_a_recovery_would_learn_from_stays(house: Example) -> None:
    first, second = names(house.rounds[0]), names(house.rounds[1])
    # RUN's round 2 would be learned again: it drew the first response of round 0 once more
    one_back = Saved(ALL.weights - {"pol_run-a_2"}, ALL.whole - {"pol_run-a_2"})
    assert ids(found(house.store, one_back)) == {first[1], first[2], second[3]}
    # FORK's round 2 would be: it drew all of round 0
    assert ids(found(house.store, Saved(ALL.weights, ALL.whole - {"pol_run-b_2"}))) == {second[3]}
    # weights without the optimizer's state are no place to learn on from
    assert ids(found(house.store, Saved(ALL.weights, frozenset()))) == {second[3]}
    assert ids(found(house.store, NONE)) == {second[3]}


def test_windows_of_all_rounds_since_the_checkpoint_stay(store: Store) -> None:
    """Windows of two rounds: that of round 1 reaches back to round 0, though nothing was drawn from there."""
    rounds = run_of_three(store, {"capacity": 8})
    for whole, gone in {("p0", "p1", "p2"): {0}, ("p1",): {0}, ("p0",): set(), (): set()}.items():
        saved = Saved(frozenset(whole), frozenset(whole))
        assert ids(found(store, saved)) == {name for round in gone for name in names(rounds[round])}, whole


def test_windows_of_one_round_leave_what_was_learned_before(store: Store) -> None:
    rounds = run_of_three(store, {"capacity": 4})
    for whole, gone in {("p2",): {0, 1}, ("p1",): {0, 1}, ("p0",): {0}, (): set()}.items():
        saved = Saved(frozenset(whole), frozenset(whole))
        assert ids(found(store, saved)) == {name for round in gone for name in names(rounds[round])}, whole


def test_a_window_without_an_end_keeps_everything(store: Store) -> None:
    run_of_three(store, {"capacity": None})
    assert found(store, Saved(frozenset({"p2"}), frozenset({"p2"}))).num_rows == 0


def test_an_offline_run_keeps_all_that_it_was_given(store: Store) -> None:
    run_of_three(store, {"capacity": 4})
    saved = Saved(frozenset({"p2"}), frozenset({"p2"}))
    assert found(store, saved).num_rows == 8
    with store.write() as connection:
        connection.execute('UPDATE store.runs SET config = json_merge_patch(config, \'{"offline": {"a": 1}}\')')
    assert found(store, saved).num_rows == 0


def test_a_window_counted_in_rounds_keeps_whole_rounds(store: Store) -> None:
    rounds = run_of_three(store, {"capacity": 2, "unit": "rounds"})
    assert ids(found(store, Saved(frozenset({"p2"}), frozenset({"p2"})))) == set(names(rounds[0]))


def test_a_fresh_batch_that_the_draws_leave_out_is_needed_in_the_next_round(store: Store) -> None:
    rounds = run_of_three(store, {"capacity": 8, "excludes_fresh": True})
    assert ids(found(store, Saved(frozenset({"p2"}), frozenset({"p2"})))) == set(names(rounds[0]))


def test_a_reference_without_a_folder_keeps_what_leads_to_it(store: Store) -> None:
    rounds = run_of_three(store, {"capacity": 4}, reference="p0")
    whole = frozenset({"p2"})
    assert ids(found(store, Saved(whole, whole))) == set(names(rounds[1]))  # p0 was learned from round 0
    assert ids(found(store, Saved(whole | {"p0"}, whole))) == {*names(rounds[0]), *names(rounds[1])}


def test_a_policy_that_was_forked_from_keeps_what_leads_to_it(store: Store) -> None:
    rounds = run_of_three(store, {"capacity": 4})
    with store.write() as connection:
        add_run(connection, "child", "r", 1)
    whole = frozenset({"p0", "p2"})
    assert ids(found(store, Saved(whole, whole))) == set(names(rounds[1]))  # the child has no window but its parent's
    own = play(store, "child", 1, "p0", "q1", generation=1)
    whole = frozenset({"p0", "p2", "q1"})
    with store.write() as connection:
        connection.execute("UPDATE store.runs SET config = (SELECT config FROM store.runs WHERE run_id = 'r')")
    assert ids(found(store, Saved(whole, whole))) == {*names(rounds[0]), *names(rounds[1])}
    whole -= {"p0"}  # where the child begins is not saved
    assert ids(found(store, Saved(whole, whole))) == set(names(rounds[1]))
    assert set(names(own)).isdisjoint(ids(found(store, Saved(whole, whole))))


def test_a_recovery_needs_the_references_of_all_rounds_that_it_learns_again() -> None:
    rounds = tuple(Round(i, f"p{i}", under) for i, under in enumerate((BASE, "x", "y", "z")))
    run = Standing("r", None, BASE, ReplayConfig(), rounds)
    assert run.references(frozenset({"p3"})) == {"z"}
    assert run.references(frozenset({"p0", "p2"})) == {"z"}
    assert run.references(frozenset({"p0"})) == {"x", "y", "z"}
    assert run.references(frozenset()) == {BASE, "x", "y", "z"}
    without = Standing("r", None, BASE, ReplayConfig(), (Round(0, "p0", None),))
    assert without.references(frozenset()) == set()
    assert run.forked_from is None
    assert Standing("f", 2, BASE, ReplayConfig(), rounds).forked_from == "p1"
    assert Standing("f", 0, BASE, ReplayConfig(), rounds).forked_from == BASE


def test_a_round_that_is_not_learned_yet_stays(house: Example) -> None:
    before = ids(found(house.store))
    going_on = batch_record(3, policy_id="pol_run-a_2")
    house.store.append_batch(going_on, part_of(going_on), run_id=RUN, attempt=1)
    assert ids(found(house.store)) == before  # not even all of it need be there
    with house.store.write() as connection:
        commit_stage(connection, RUN, 3, "generate", {"batch_id": going_on.batch_id})
    assert ids(found(house.store)) == before


def test_a_batch_stays_for_a_new_run_that_found_it_done(house: Example) -> None:
    with house.store.write() as connection:
        add_run(connection, "another")
        commit_stage(connection, "another", 0, "generate", {"batch_id": house.rounds[0].batch_id})
    assert ids(found(house.store)) == {names(house.rounds[1])[3]}
    with house.store.write() as connection:
        commit_stage(connection, "another", 0, "learn", {"policy_id": "pol_run-a_0", "updates": 2})
    assert ids(found(house.store)) == left_over(house)


def test_evaluations_only_when_asked_and_by_age_and_run(house: Example) -> None:
    evaluated = set(names(house.evaluation)[:2])
    assert ids(found(house.store, evaluations=True)) == left_over(house) | evaluated
    assert ids(found(house.store, after_rounds=2)) == set(names(house.rounds[0])[:3])
    assert ids(found(house.store, after_rounds=3)) == set()
    assert ids(found(house.store, after_rounds=3, evaluations=True)) == evaluated  # made before round 0
    assert ids(found(house.store, run_id=FORK)) == set()
    assert ids(found(house.store, run_id=RUN)) == left_over(house)


def run_of_three(store: Store, window: dict[str, Any], reference: str = BASE) -> list[BatchRecord]:
    """A run "r" of three rounds of four responses; its policies p0, p1, p2 are learned each from its own round."""
    with store.write() as connection:
        add_run(connection, "r")
        connection.execute("UPDATE store.runs SET config = $config", {"config": {"replay": window}})
        base = PolicyRecord(BASE, "base", None, None, {}, 0, "tok_0", "sha256_0", "models/base")
        lineage.add_policy(connection, base, run_id=None, attempt=None)
    return [
        play(store, "r", 0, BASE, "p0"),
        play(store, "r", 1, "p0", "p1", reference),
        play(store, "r", 2, "p1", "p2", reference),
    ]


def play(
    store: Store, run_id: str, number: int, parent: str, policy: str, reference: str = BASE, generation: int = 0
) -> BatchRecord:
    """A round of four responses, from which alone the next policy is learned."""
    batch = batch_record(number, policy_id=parent, generation=generation)
    store.append_batch(batch, part_of(batch), run_id=run_id, attempt=1)
    with store.write() as connection:
        commit_stage(connection, run_id, number, "generate", {"batch_id": batch.batch_id, "policy_id": parent})
        replay.admit(connection, run_id, number, "ver_1", entries(batch))
        record = PolicyRecord(policy, "learned", parent, reference, {}, number + 1, "tok_0", "sha256_1", None)
        lineage.add_policy(connection, record, run_id=run_id, attempt=1)
        add_update(connection, policy, 0, "fresh", names(batch), loss=1.0, residual=1.0)
        learned = {"policy_id": policy, "reference_policy_id": reference, "updates": 1, "skipped": 0}
        commit_stage(connection, run_id, number, "learn", learned)
    return batch


def entries(batch: BatchRecord) -> pa.Table:
    rows = [
        {"position": place, "trajectory_id": name, "gold_digest": "gld", "reward_used": 1.0}
        for place, name in enumerate(names(batch))
    ]
    return pa.Table.from_pylist(rows, schema=replay.ENTRY_SCHEMA)
