"""Named queries run as they are on a real database and answer what they say."""

from pathlib import Path

import pytest
from store_example import FORK, RUN, Example, names

from reval_core.errors import StoreError
from reval_core.store import Store
from reval_core.store.sqlfiles import description, query_names, query_text


@pytest.mark.parametrize("name", query_names())
def test_a_named_query_runs_as_it_is(example: Example, empty: Store, name: str) -> None:
    assert example.store.query(name).num_columns > 1
    empty.query(name)  # an empty database gives an answer too


@pytest.mark.parametrize("name", query_names())
def test_a_named_query_says_its_question_first(name: str) -> None:
    first = query_text(name).splitlines()[0]
    assert first.startswith("-- ")
    assert first.endswith("?")
    assert description(query_text(name)).startswith(first.removeprefix("-- "))


@pytest.mark.parametrize("name", query_names())
def test_results_have_plain_numbers(example: Example, name: str) -> None:
    types = {field.name: str(field.type) for field in example.store.query(name).schema}
    assert not [column for column, kind in types.items() if kind.startswith("decimal")]


def test_the_run_that_was_active_last_is_the_default(example: Example) -> None:
    # the run's attempt ended after the fork's last stage
    assert example.store.query("SELECT newest_run() AS run").to_pylist() == [{"run": RUN}]
    assert example.store.query("learning_curve") == example.store.query("learning_curve", run=RUN)
    assert example.store.query("learning_curve", run=FORK).column("tokens_so_far").to_pylist() == [14, 26, 30]


def test_sample_efficiency_shows_runs_side_by_side(example: Example) -> None:
    rows = example.store.query("sample_efficiency").to_pylist()
    found = [(row["run_id"], row["tokens_so_far"], row["updates_so_far"], row["accuracy"]) for row in rows]
    assert found == [
        (RUN, 14, 0, 0.25),
        (RUN, 26, 2, 0.5),
        (RUN, 50, 4, 0.75),
        (FORK, 14, 0, 0.25),
        (FORK, 26, 2, 0.5),
        (FORK, 30, 4, 0.0),
    ]


def test_tokens_to_accuracy_names_the_first_round_that_reached_it(example: Example) -> None:
    rows = example.store.query("tokens_to_accuracy").to_pylist()
    reached = {(row["run_id"], row["accuracy_at_least"]): (row["tokens"], row["iteration"]) for row in rows}
    assert reached[RUN, 0.2] == (14, 0)
    assert reached[RUN, 0.7] == (50, 2)
    assert (FORK, 0.7) not in reached


def test_never_solved_and_pass_rates(example: Example) -> None:
    rows = example.store.query("never_solved").to_pylist()
    assert [(row["problem_id"], row["responses"], row["truncated_share"]) for row in rows] == [("prb_3", 2, 0.5)]
    rates = {row["problem_id"]: row for row in example.store.query("pass_rate_by_problem").to_pylist()}
    assert rates["prb_0"]["pass_rate"] == 0.75
    assert (rates["prb_0"]["pass_rate_first"], rates["prb_0"]["pass_rate_last"]) == (0.5, 1.0)


def test_the_window_is_cut_at_the_runs_capacity(example: Example) -> None:
    rows = example.store.query("buffer_age_and_reuse").to_pylist()  # capacity 8 of 11 entries
    assert [(row["age"], row["trajectories"]) for row in rows] == [(0, 4), (1, 3), (2, 1)]


def test_residual_by_age_counts_every_member_once(example: Example) -> None:
    rows = example.store.query("residual_by_age").to_pylist()
    assert [(row["age"], row["members"]) for row in rows] == [(0, 8 + 4 + 4), (1, 2 + 2), (2, 1)]


def test_time_per_stage_counts_what_the_run_executed_itself(example: Example) -> None:
    rows = {row["stage"]: row for row in example.store.query("time_per_stage", run=FORK).to_pylist()}
    assert (rows["learn"]["executed"], rows["learn"]["seconds"], rows["learn"]["share"]) == (1, 2.0, 0.2)
    assert (rows["evaluate"]["executed"], rows["evaluate"]["found_done"], rows["evaluate"]["seconds"]) == (0, 1, None)


def test_trained_on_shows_the_last_update_or_the_one_asked_for(example: Example) -> None:
    last = example.store.query("trained_on").to_pylist()
    assert {(row["policy_id"], row["update_index"], row["kind"]) for row in last} == {("pol_run-a_2", 1, "replay")}
    assert last[2]["trajectory_id"] == names(example.rounds[0])[0]
    fresh = example.store.query("trained_on", policy="pol_run-a_1", update=0).to_pylist()
    assert [row["trajectory_id"] for row in fresh] == names(example.rounds[1])[:3]


def test_changed_verdicts_lists_all_verdicts_of_what_is_disputed(example: Example) -> None:
    disputed = set(example.store.query("changed_verdicts").column("trajectory_id").to_pylist())
    assert disputed == set(names(example.rounds[0])[1:])


def test_best_and_worst_never_lists_a_response_twice(example: Example) -> None:
    rows = example.store.query("best_and_worst").to_pylist()
    listed = [row["trajectory_id"] for row in rows]
    assert sorted(listed) == sorted(names(example.rounds[2]))
    assert rows[0]["reward"] == 1.0
    assert rows[0]["behaviour_logprob"] == -3.0  # the least likely success


def test_storage_lists_every_table_with_its_rows(example: Example) -> None:
    rows = {row["table_name"]: row for row in example.store.query("storage_by_table").to_pylist()}
    assert rows["trajectories"]["row_count"] == 18
    tables = example.store.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'store'")
    assert set(rows) == set(tables.column("table_name").to_pylist())
    text = query_text("storage_by_table")
    assert not [name for name in rows if f"'store.{name}'" not in text]


def test_wrong_sql_gives_duckdbs_message(example: Example) -> None:
    with pytest.raises(StoreError, match=r"column.*rewardd|rewardd.*not found"):
        example.store.query("SELECT rewardd FROM trajectories")
    with pytest.raises(StoreError, match="syntax error"):
        example.store.query("SELEC 1")


def test_an_unknown_name_gives_the_nearest_one(example: Example) -> None:
    with pytest.raises(StoreError, match="Did you mean 'learning_curve'"):
        example.store.query("learning_curv")


def test_queries_cannot_write(example: Example) -> None:
    with pytest.raises(StoreError, match="read-only"):
        example.store.query("DELETE FROM store.runs")


def test_a_parameter_that_the_query_has_not_is_an_error(example: Example) -> None:
    with pytest.raises(StoreError, match="nonsense"):
        example.store.query("learning_curve", nonsense=1)


def test_a_missing_database_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere\.duckdb"):
        Store(tmp_path / "nowhere.duckdb").query("SELECT 1")
