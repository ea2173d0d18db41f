"""What a run saw of a response: the verdict and the reward that it used, whatever others found before or after."""

import pytest
from store_example import (
    BASE,
    FORK,
    RUN,
    Example,
    add_run,
    admit,
    batch_record,
    begin,
    commit_stage,
    grade,
    learn,
    names,
    part_of,
    play,
)

from reval_core.store import Store, stages
from reval_core.store.trajectories import BatchRecord


def _seen(store: Store, run: str) -> list[tuple[object, ...]]:
    found = store.query(
        "SELECT status, reward, reward_used, gold, verifier_id FROM run_trajectories "
        "WHERE run_id = $run AND iteration = 0 ORDER BY problem_id, sample_index",
        run=run,
    )
    return [tuple(row.values()) for row in found.to_pylist()]


@pytest.fixture
def forked(store: Store) -> BatchRecord:
    """A run's round 0 under ver_1, and a fork of it at round 0 that shares the responses and grades them by ver_2."""
    begin(store)
    batch = batch_record()
    play(store, RUN, batch, BASE, (1, 0, 0, 0), names(batch), lengths=(2, 3, 4, 5))
    with store.write() as connection:
        add_run(connection, FORK, RUN, 0, verifier="ver_2")
        stages.link(connection, FORK, 0, "generate", "", f"generate_{RUN}_0", executed=False, attempt=1)
    grade(store, FORK, batch, (1, 1, 1, 0), verifier="ver_2")
    admit(store, FORK, batch, (1, 1, 1, 0), verifier="ver_2")
    learn(store, FORK, batch, BASE, names(batch)[:1])
    return batch


def test_a_fork_at_another_reward_sees_its_own_verdicts_and_its_parent_the_old_ones(
    store: Store, forked: BatchRecord
) -> None:
    assert _seen(store, RUN) == [
        ("correct", 1.0, 1.0, "0", "ver_1"),
        ("incorrect", 0.0, 0.0, "0", "ver_1"),
        ("incorrect", 0.0, 0.0, "1", "ver_1"),
        ("incorrect", 0.0, 0.0, "1", "ver_1"),
    ]
    assert [(status, used) for status, _, used, _, _ in _seen(store, FORK)] == [
        ("correct", 1.0),
        ("correct", 1.0),
        ("correct", 1.0),
        ("incorrect", 0.0),
    ]


def test_named_queries_and_rounds_tell_the_same_of_a_fork(store: Store, forked: BatchRecord) -> None:
    for run, right in ((RUN, 0.25), (FORK, 0.75)):
        (row,) = store.query("SELECT * FROM rounds WHERE run_id = $run", run=run).to_pylist()
        assert (row["accuracy"], row["reward_mean"], row["correct_share"]) == (right, right, right)
        shares = {row["status"]: row["share"] for row in store.query("verdict_shares", run=run).to_pylist()}
        assert shares == {"correct": right, "incorrect": 1 - right}
    assert store.query("never_solved", run=FORK).num_rows == 0
    assert store.query("never_solved", run=RUN).column("problem_id").to_pylist() == ["prb_1"]


def test_uses_are_those_of_the_runs_own_chain(store: Store, forked: BatchRecord) -> None:
    found = store.query(
        "SELECT run_id, times_used, last_used_round, staleness FROM run_trajectories WHERE trajectory_id = $name "
        "ORDER BY run_id",
        name=names(forked)[1],
    )
    assert [tuple(row.values()) for row in found.to_pylist()] == [(RUN, 2, 0, 0), (FORK, 1, 0, 0)]


def test_a_gold_that_was_mended_and_put_back_before_admission_leaves_one_truth(store: Store) -> None:
    begin(store)
    batch = batch_record()
    mended = ["gld_prb_0", "gld_prb_0", "gld_mended", "gld_mended"]
    store.append_batch(batch, part_of(batch), run_id=RUN, attempt=1)
    with store.write() as connection:
        generated = {"batch_id": batch.batch_id, "policy_id": BASE, "trajectories": 4, "tokens": 14, "truncated": 0}
        commit_stage(connection, RUN, 0, "generate", generated)
    grade(store, RUN, batch, (1, 0, 0, 0))
    grade(store, RUN, batch, (1, 0, 1, 1), golds=mended)  # linked later than the grading that is admitted
    before_admission = [status for status, *_ in _seen(store, RUN)]
    admit(store, RUN, batch, (1, 0, 0, 0), dropped=(3,))
    learn(store, RUN, batch, BASE, names(batch)[:1])
    assert before_admission == ["correct", "incorrect", "correct", "correct"]
    (row,) = store.query("SELECT * FROM rounds").to_pylist()
    assert (row["accuracy"], row["correct_share"], row["incorrect_share"]) == (0.25, 0.25, 0.75)
    assert row["reward_mean"] == pytest.approx(1 / 3)
    # the third by the gold answer that it was admitted with; the fourth was left out and has no such thing
    assert [(status, used) for status, _, used, _, _ in _seen(store, RUN)] == [
        ("correct", 1.0),
        ("incorrect", 0.0),
        ("incorrect", 0.0),
        ("correct", None),
    ]


def test_verdicts_that_came_after_admission_change_nothing(example: Example) -> None:
    # ver_2 found all of round 0 right, and a mended gold answer the third response
    found = [status for status, *_ in _seen(example.store, RUN)]
    assert found == ["correct", "incorrect", "incorrect", "incorrect"]
    assert example.trajectory(0, 2)["status"] == "correct"  # the newest, in trajectories


def test_a_response_that_was_left_out_shows_its_verdict_and_no_reward(example: Example) -> None:
    (row,) = example.store.query(
        "SELECT * FROM run_trajectories WHERE run_id = $run AND trajectory_id = $name",
        run=RUN,
        name=names(example.rounds[1])[3],
    ).to_pylist()
    assert (row["truncated"], row["admitted"], row["status"], row["reward_used"]) == (True, False, "incorrect", None)
    assert (row["times_used"], row["last_used_round"], row["staleness"]) == (0, None, None)


def test_there_is_one_row_for_each_run_and_response_of_its_chain(example: Example) -> None:
    found = example.store.query(
        "SELECT run_id, owner_run_id, iteration, count(*) AS n, count(DISTINCT trajectory_id) AS responses "
        "FROM run_trajectories GROUP BY ALL ORDER BY ALL"
    )
    rounds = [(RUN, RUN, 0), (RUN, RUN, 1), (RUN, RUN, 2), (FORK, RUN, 0), (FORK, RUN, 1), (FORK, FORK, 2)]
    assert [tuple(row.values()) for row in found.to_pylist()] == sorted((*key, 4, 4) for key in rounds)


def test_a_response_that_is_not_graded_yet_is_there_without_a_verdict(store: Store) -> None:
    begin(store)
    batch = batch_record()
    store.append_batch(batch, part_of(batch), run_id=RUN, attempt=1)
    with store.write() as connection:
        commit_stage(connection, RUN, 0, "generate", {"batch_id": batch.batch_id, "policy_id": BASE})
    assert _seen(store, RUN) == [(None, None, None, None, None)] * 4


def test_a_configuration_value_and_a_problems_own_column_can_be_filtered(example: Example) -> None:
    found = example.store.query(
        "SELECT run_id, count(*) AS n FROM run_trajectories WHERE (config ->> '$.objective.beta')::DOUBLE = 0.2 "
        "AND (problem_metadata ->> 'level')::INTEGER >= 2 GROUP BY run_id"
    )
    assert found.to_pylist() == [{"run_id": FORK, "n": 4}]
