"""Named queries run as they are on a real database and answer what they say."""

from pathlib import Path

import pytest
from store_example import FORK, RUN, Example, add_run, commit_stage

from reval_core.errors import StoreError
from reval_core.store import Store, schedule
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


def test_the_newest_run_is_a_training_whatever_its_configuration_says(store: Store) -> None:
    def newest() -> object:
        return store.query("SELECT newest_run() AS run").column("run").to_pylist()[0]

    with store.write() as connection:
        add_run(connection, "evaluate-x", iterations=0)
        commit_stage(connection, "evaluate-x", -1, "evaluate", {"evaluation_id": "evl_0"})
    assert newest() == "evaluate-x"  # for want of another
    with store.write() as connection:
        add_run(connection, "raised-later", iterations=0)
        schedule.plan_epoch(connection, "raised-later", 0, 0, 0, ["prb_0"])
        schedule.plan_round(connection, "raised-later", 0, 0, 1)
        commit_stage(connection, "evaluate-x", 0, "evaluate", {"evaluation_id": "evl_1"})
    assert newest() == "raised-later"
    with store.write() as connection:
        add_run(connection, "a-fork", "raised-later", 0)
    assert newest() == "a-fork"


def test_times_are_compared_in_utc(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's times are UTC without a zone; now() of a session elsewhere would be hours off."""
    (row,) = example.store.query(
        "SELECT current_setting('TimeZone') AS zone, min(now() - created_at) >= INTERVAL 0 SECOND AS past FROM runs"
    ).to_pylist()
    assert row == {"zone": "UTC", "past": True}


def test_sums_of_integers_are_integers(example: Example) -> None:
    table = example.store.query("SELECT sum(response_tokens) AS fits, 1e30::HUGEINT AS does_not FROM trajectories")
    assert [str(field.type) for field in table.schema] == ["int64", "decimal128(38, 0)"]


def test_there_is_a_query_for_each_question_of_the_trade() -> None:
    assert len(query_names()) >= 22


def test_storage_asks_for_every_table_by_name(empty: Store) -> None:
    tables = empty.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'store'").column(0).to_pylist()
    text = query_text("storage_by_table")
    assert not [name for name in tables if f"'store.{name}'" not in text]


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
