"""What the named queries answer on the example database, computed by hand from its three rounds and its fork."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from store_example import BASE, FORK, RUN, Example, batch_record, begin, names, part_of, play, verdict_rows

from reval_core.errors import StoreError
from reval_core.store import Store, evaluations, trajectories


def answer(store: Store, query: str, *columns: str, **values: Any) -> list[tuple[Any, ...]]:
    """Some columns of a named query's rows."""
    return [tuple(row[name] for name in columns) for row in store.query(query, **values).to_pylist()]


@pytest.fixture
def altered(example: Example, tmp_path: Path) -> Store:
    """A copy of the example to change."""
    return Store(shutil.copy(example.store.path, tmp_path / "altered.duckdb"))


@pytest.fixture
def oddities(store: Store) -> Store:
    """One run: responses that are short, wordy and alike in round 0; ungraded ones in round 1."""
    begin(store)
    wordy = "so " * 24 + r"\boxed{0} \boxed{0}"
    texts = (r"\boxed{0}", wordy, r"plainly \boxed{1}", r"plainly \boxed{1}")
    first, second = batch_record(0), batch_record(1, ("prb_2", "prb_3"), policy_id="pol_run-a_0")
    play(
        store,
        RUN,
        first,
        BASE,
        (1, 1, 1, 1),
        names(first)[:1],
        lengths=(2, 100, 50, 50),
        texts=texts,
        answers=("0", "0", "1", "1"),
    )
    statuses = ("timeout", "timeout", "rejected", "correct")
    play(
        store,
        RUN,
        second,
        "pol_run-a_0",
        (0, 0, 0, 1),
        names(first)[:1],
        lengths=(9, 9, 9, 9),
        statuses=statuses,
    )
    return store


def test_learning_curve(example: Example) -> None:
    found = answer(
        example.store, "learning_curve", "iteration", "accuracy", "loss", "tokens_so_far", "seconds", run=RUN
    )
    assert found == [(0, 0.25, 3.0, 14, 10.0), (1, 0.5, 3.0, 26, 10.0), (2, 0.75, 3.0, 50, 10.0)]


def test_sample_efficiency_is_the_moment_at_which_a_round_begins(example: Example) -> None:
    columns = ("run_id", "tokens_before", "trajectories_before", "updates_before", "accuracy", "accuracy_of_last_five")
    assert answer(example.store, "sample_efficiency", *columns) == [
        (RUN, 0, 0, 0, 0.25, 0.25),
        (RUN, 14, 4, 2, 0.5, 0.375),
        (RUN, 26, 8, 4, 0.75, 0.5),
        (FORK, 0, 0, 0, 0.25, 0.25),
        (FORK, 14, 4, 2, 0.5, 0.375),
        (FORK, 26, 8, 4, 0.0, 0.25),
    ]


def test_tokens_to_accuracy_names_the_first_round_that_reached_it(example: Example) -> None:
    rows = example.store.query("tokens_to_accuracy").to_pylist()
    reached = {(row["run_id"], row["accuracy_at_least"]): (row["tokens"], row["iteration"]) for row in rows}
    assert reached[RUN, 0.2] == (0, 0)
    assert reached[RUN, 0.7] == (26, 2)
    assert (FORK, 0.7) not in reached


def test_runs_by_setting_puts_runs_side_by_side(example: Example) -> None:
    columns = ("setting", "value", "run_id", "rounds_done", "tokens_generated", "accuracy")
    assert answer(example.store, "runs_by_setting", *columns) == [
        ("objective.beta", "0.1", RUN, 3, 50, 0.5),
        ("objective.beta", "0.2", FORK, 3, 30, 0.25),
    ]
    found = answer(example.store, "runs_by_setting", "value", "run_id", setting="replay.capacity")
    assert found == [("8", RUN), ("8", FORK)]


def test_pass_rates_change_over_the_run(example: Example) -> None:
    columns = ("problem_id", "responses", "pass_rate", "pass_rate_first", "pass_rate_last", "change")
    assert answer(example.store, "pass_rate_by_problem", *columns, run=RUN) == [
        ("prb_3", 2, 0.0, 0.0, 0.0, None),
        ("prb_1", 4, 0.25, 0.0, 0.5, 0.5),
        ("prb_0", 4, 0.75, 0.5, 1.0, 0.5),
        ("prb_2", 2, 1.0, 1.0, 1.0, None),
    ]


def test_never_solved(example: Example) -> None:
    columns = ("problem_id", "responses", "rounds", "truncated_share")
    assert answer(example.store, "never_solved", *columns, run=RUN) == [("prb_3", 2, 1, 0.5)]
    assert answer(example.store, "never_solved", *columns, run=FORK) == [("prb_1", 4, 2, 0.0), ("prb_3", 2, 1, 0.5)]


def test_problems_solved_so_far(example: Example) -> None:
    columns = ("iteration", "problems_seen", "problems_solved", "solved_share", "first_seen_now", "first_solved_now")
    assert answer(example.store, "problems_solved", *columns, run=RUN) == [
        (0, 2, 1, 0.5, 2, 1),
        (1, 4, 2, 0.5, 2, 1),
        (2, 4, 3, 0.75, 0, 1),
    ]


def test_groups_without_signal(example: Example) -> None:
    columns = ("iteration", "groups", "all_right", "all_wrong", "without_signal_share", "responses_with_signal")
    assert answer(example.store, "groups_without_signal", *columns, run=RUN) == [
        (0, 2, 0, 1, 0.5, 2),
        (1, 2, 1, 1, 1.0, 0),
        (2, 2, 1, 0, 0.5, 2),
    ]


def test_answer_diversity(example: Example, oddities: Store) -> None:
    columns = ("iteration", "groups", "answers_mean", "one_answer_share", "repeated_share")
    assert answer(example.store, "answer_diversity", *columns, run=RUN) == [(i, 2, 2.0, 0.0, 0.0) for i in range(3)]
    # both groups gave one answer twice, and one of them in the same words
    assert answer(oddities, "answer_diversity", *columns)[0] == (0, 2, 1.0, 1.0, 0.25)


def test_suspected_reward_hacking(oddities: Store) -> None:
    found = answer(oddities, "suspected_reward_hacking", "suspicion", "response_tokens", "tokens_median", "boxes")
    assert found == [("repeats, many boxes", 100, 51.0, 2), ("short", 2, 51.0, 1)]
    (repeated,) = answer(oddities, "suspected_reward_hacking", "repeated")[0]
    assert repeated == pytest.approx(1 - 2 / 26)


def test_truncation_by_round(example: Example) -> None:
    columns = ("truncated", "truncated_share", "correct_share_truncated", "truncated_learned_from", "tokens_p95")
    first, second, third = answer(example.store, "truncation_by_round", *columns, run=RUN)
    assert first == (0, 0.0, None, 0, 5)
    assert second == (1, 0.25, 0.0, 0, 3)
    assert third == (0, 0.0, None, 0, 6)
    assert answer(example.store, "truncation_by_round", "correct_share_others", run=RUN)[1] == (pytest.approx(2 / 3),)


def test_reward_by_length_in_tenths(example: Example) -> None:
    columns = ("tenth", "tokens_from", "tokens_to", "responses", "correct_share")
    found = answer(example.store, "reward_by_length", *columns, run=RUN)
    assert [(low, high, n) for _, low, high, n, _ in found] == [
        (2, 3, 2),
        (3, 3, 2),
        (3, 3, 1),
        (3, 3, 1),
        (4, 4, 1),
        (5, 5, 1),
        *[(6, 6, 1)] * 4,
    ]
    assert found[4] == (5, 4, 4, 1, 0.0)
    assert sum(share for *_, share in found[6:]) == 3


def test_verdict_shares(example: Example) -> None:
    columns = ("iteration", "status", "tier", "responses", "share", "response_tokens_mean")
    assert answer(example.store, "verdict_shares", *columns, run=RUN)[:2] == [
        (0, "incorrect", "exact", 3, 0.75, 4.0),
        (0, "correct", "exact", 1, 0.25, 2.0),
    ]


def test_ungraded_answers_with_their_reason(oddities: Store) -> None:
    columns = ("status", "details", "responses", "problems", "seconds_most")
    assert answer(oddities, "ungraded", *columns) == [
        ("timeout", "", 2, 1, 0.02),
        ("rejected", "too long", 1, 1, 0.03),
    ]


def test_verifiers_are_compared_on_the_same_gold_answer(example: Example) -> None:
    columns = ("first_version", "second_version", "first_status", "second_status", "agree", "responses", "share")
    assert answer(example.store, "verifier_disagreement", *columns) == [
        (1, 2, "incorrect", "correct", False, 3, 0.75),
        (1, 2, "correct", "correct", True, 1, 0.25),
    ]


def test_verifiers_are_compared_by_the_gold_answer_and_not_by_its_digest(example: Example, altered: Store) -> None:
    """A reward of one's own is graded on the whole row, so its digest of the same gold answer is another one."""
    with altered.write() as connection:
        other = "* REPLACE ('row_' || gold_digest AS gold_digest)"
        connection.execute(f"INSERT INTO store.golds SELECT {other} FROM store.golds")
        connection.execute("UPDATE store.verdicts SET gold_digest = 'row_' || gold_digest WHERE verifier_id = 'ver_2'")
    assert altered.query("verifier_disagreement") == example.store.query("verifier_disagreement")


def test_changed_verdicts_lists_all_verdicts_of_what_is_disputed(example: Example) -> None:
    disputed = set(example.store.query("changed_verdicts").column("trajectory_id").to_pylist())
    assert disputed == set(names(example.rounds[0])[1:])


def test_the_window_is_cut_at_the_runs_capacity(example: Example) -> None:
    columns = ("age", "trajectories", "uses_mean", "uses_most", "never_used")
    assert answer(example.store, "buffer_age_and_reuse", *columns, run=RUN) == [
        (0, 4, 1.0, 1, 0),
        (1, 3, 2.0, 3, 0),
        (2, 1, 2.0, 2, 0),
    ]


def test_expected_uses_through_the_warm_up(example: Example) -> None:
    columns = ("generated_round", "trajectories", "uses_mean", "uses_expected", "still_held_share", "steady_state")
    # drawn: 4 of 4, then 3 of 7, then 3 of 8; at last the window holds one of the first round's four
    assert answer(example.store, "expected_uses", *columns, run=RUN) == [
        (0, 4, 2.75, pytest.approx(1 + 1 + 3 / 7 + 3 / 8 / 4), 0.25, 2.0),
        (1, 3, 2.0, pytest.approx(1 + 3 / 7 + 3 / 8), 1.0, 2.0),
        (2, 4, 1.0, pytest.approx(1 + 3 / 8), 1.0, 2.0),
    ]


def test_a_window_may_be_counted_in_rounds(altered: Store) -> None:
    with altered.write() as connection:
        config = """json_merge_patch(config, '{"replay": {"capacity": 2, "unit": "rounds"}}')"""
        connection.execute(f"UPDATE store.runs SET config = {config} WHERE run_id = $run", {"run": RUN})
    held = answer(altered, "buffer_age_and_reuse", "age", "trajectories", run=RUN)
    assert held == [(0, 4), (1, 3)]
    # drawn: 4 of the 4, then 3 of the 7, then 3 of the 7 of the last two rounds
    columns = ("generated_round", "uses_expected", "still_held_share")
    assert answer(altered, "expected_uses", *columns, run=RUN) == [
        (0, pytest.approx(1 + 1 + 3 / 7), 0.0),
        (1, pytest.approx(1 + 3 / 7 + 3 / 7), 1.0),
        (2, pytest.approx(1 + 3 / 7), 1.0),
    ]


def test_residual_by_age_counts_every_member_once(example: Example) -> None:
    found = answer(example.store, "residual_by_age", "age", "members", "residual_mean", run=RUN)
    # of the new ones 11 in fresh updates with residual 1, and 5 in replays with residual -2
    assert found == [(0, 16, 1 / 16), (1, 4, -2.0), (2, 1, -2.0)]


def test_time_and_tokens_of_what_the_run_executed_itself(example: Example) -> None:
    rows = {row["stage"]: row for row in example.store.query("time_per_stage", run=FORK).to_pylist()}
    assert (rows["learn"]["executed"], rows["learn"]["seconds"], rows["learn"]["share"]) == (1, 2.0, 0.2)
    assert (rows["learn"]["tokens"], rows["learn"]["tokens_per_second"]) == (2 * 9, 9.0)
    assert (rows["generate"]["tokens"], rows["generate"]["tokens_per_second"]) == (4, 2.0)
    assert (rows["verify"]["tokens"], rows["verify"]["tokens_per_second"]) == (None, None)
    assert (rows["evaluate"]["executed"], rows["evaluate"]["found_done"], rows["evaluate"]["seconds"]) == (0, 1, None)


def test_trained_on_shows_the_last_update_or_the_one_asked_for(example: Example) -> None:
    last = example.store.query("trained_on").to_pylist()
    assert {(row["policy_id"], row["update_index"], row["kind"]) for row in last} == {("pol_run-a_2", 1, "replay")}
    assert last[2]["trajectory_id"] == names(example.rounds[0])[0]
    assert (last[2]["age"], last[2]["times_used"], last[2]["status"]) == (2, 4, "correct")
    fresh = example.store.query("trained_on", policy="pol_run-a_1", update=0).to_pylist()
    assert [row["trajectory_id"] for row in fresh] == names(example.rounds[1])[:3]


def test_where_a_trajectory_was_used(example: Example) -> None:
    columns = ("run_id", "iteration", "update_index", "kind", "age", "use_number", "residual")
    used = [
        (RUN, 0, 0, "fresh", 0, 1, 1.0),
        (RUN, 0, 1, "replay", 0, 2, -2.0),
        (RUN, 1, 1, "replay", 1, 3, -2.0),
        (RUN, 2, 1, "replay", 2, 4, -2.0),
        (FORK, 2, 1, "replay", 2, 1, -2.0),
    ]
    assert answer(example.store, "where_used", *columns) == used  # the one that was used most
    assert answer(example.store, "where_used", *columns, trajectory=names(example.rounds[0])[0]) == used
    assert answer(example.store, "where_used", "kind", trajectory=names(example.rounds[2])[0]) == [("fresh",)]


def test_best_and_worst_of_the_problem_with_the_most_mixed_results(example: Example) -> None:
    rows = example.store.query("best_and_worst", run=RUN).to_pylist()
    first, third = names(example.rounds[0]), names(example.rounds[2])
    assert {row["problem_id"] for row in rows} == {"prb_0"}
    assert [row["kind"] for row in rows] == ["best"] * 3 + ["worst"]
    assert {row["trajectory_id"] for row in rows[:2]} == {first[0], third[0]}  # the likelier ones first
    assert [row["trajectory_id"] for row in rows[2:]] == [third[1], first[1]]
    other = example.store.query("best_and_worst", run=RUN, problem="prb_3").to_pylist()
    assert sorted(row["trajectory_id"] for row in other) == sorted(names(example.rounds[1])[2:])


def test_accuracy_and_lengths_by_source(example: Example) -> None:
    columns = ("source", "iteration", "responses", "problems", "accuracy")
    assert answer(example.store, "accuracy_by_source", *columns, run=RUN) == [
        ("another.jsonl", 0, 2, 1, 0.5),
        ("another.jsonl", 2, 2, 1, 1.0),
        ("train.jsonl", 0, 2, 1, 0.0),
        ("train.jsonl", 1, 4, 2, 0.5),
        ("train.jsonl", 2, 2, 1, 0.5),
    ]
    lengths = answer(example.store, "accuracy_by_source", "tokens_mean_right", "tokens_mean_wrong", run=RUN)
    assert [(right is None, wrong is None) for right, wrong in lengths] == [
        (False, False), (False, True), (True, False), (False, False), (False, False),
    ]  # fmt: skip


def test_all_responses_to_a_problem_once_each(example: Example) -> None:
    """Of the run, its fork and the evaluation, training first; a shared one is not doubled."""
    rows = example.store.query("responses_to_problem", problem="prb_3").to_pylist()
    ids = [row["trajectory_id"] for row in rows]
    stored = example.store.query("SELECT trajectory_id FROM store.trajectories WHERE problem_id = 'prb_3'")
    assert sorted(ids) == sorted(stored.column(0).to_pylist())
    assert [row["purpose"] for row in rows] == ["training"] * (len(rows) - 2) + ["evaluation"] * 2
    assert {row["problem_id"] for row in example.store.query("responses_to_problem").to_pylist()} < {"prb_0", "prb_1"}


def test_evaluation_curve(example: Example) -> None:
    columns = ("benchmark", "metric", "rounds_learned", "value", "low", "high")
    assert answer(example.store, "evaluation_curve", *columns, run=FORK) == [
        ("held-out", "avg@2", 0, 0.5, 0.25, 0.75),
        ("held-out", "pass@2", 0, 1.0, 1.0, 1.0),
    ]


def test_evaluations_of_one_policy_are_not_thrown_together(altered: Store) -> None:
    """The same policy on the same benchmark again, with another k: each evaluation stands by itself."""
    batch = batch_record(0, ("prb_3",), purpose="evaluation", policy_id=BASE, sampling={"seed": 1})
    altered.append_batch(batch, part_of(batch), run_id=RUN, attempt=1)
    with altered.write() as connection:
        trajectories.add_verdicts(connection, "ver_eval", verdict_rows(batch, (1, 1)))
        evaluations.add(
            connection,
            evaluation_id="evl_again",
            policy_id=BASE,
            benchmark="held-out",
            benchmark_id="ben_0",
            batch_id=batch.batch_id,
            verifier_id="ver_eval",
            problem_count=1,
            samples_per_problem=2,
            settings={},
            metrics={"avg@2": SimpleNamespace(value=1.0, low=1.0, high=1.0)},
        )
    columns = ("evaluation_id", "samples_per_problem", "j", "pass_at_j", "problems")
    assert answer(altered, "pass_at_k", *columns, policy=BASE) == [
        ("evl_base", 2, 1, 0.5, 1),
        ("evl_base", 2, 2, 1.0, 1),
        ("evl_again", 2, 1, 1.0, 1),
        ("evl_again", 2, 2, 1.0, 1),
    ]
    columns = ("evaluation_id", "problem_id", "samples", "share_right")
    assert answer(altered, "evaluated_problems", *columns, policy=BASE) == [
        ("evl_base", "prb_3", 2, 0.5),
        ("evl_again", "prb_3", 2, 1.0),
    ]


def test_a_round_that_admitted_nothing_draws_from_the_window_before(altered: Store) -> None:
    """Its draws count for the batches that the window still holds."""
    uses = dict(answer(altered, "expected_uses", "generated_round", "uses_expected", run=RUN))
    with altered.write() as connection:
        connection.execute("DELETE FROM store.replay_entries WHERE iteration = 2 AND run_id = $run", {"run": RUN})
    left = dict(answer(altered, "expected_uses", "generated_round", "uses_expected", run=RUN))
    assert set(left) == {0, 1}
    assert left[1] >= uses[1]


def test_a_setting_that_no_run_has_is_an_error(example: Example) -> None:
    with pytest.raises(StoreError, match=r"no run has a setting objective\.bta"):
        example.store.query("runs_by_setting", setting="objective.bta")


def test_storage_lists_every_table_with_its_rows(example: Example) -> None:
    rows = {row["table_name"]: row for row in example.store.query("storage_by_table").to_pylist()}
    assert rows["trajectories"]["row_count"] == 18
    tables = example.store.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'store'")
    assert set(rows) == set(tables.column("table_name").to_pylist())
