"""Databases are brought to this version's schema, and never by a program that does not know them."""

from pathlib import Path

import duckdb
import pytest

from reval_core.errors import StoreError
from reval_core.store import Store, migrations


def _ledger(store: Store) -> list[dict]:
    return store.query("SELECT * FROM store.schema_migrations ORDER BY version").to_pylist()


def test_a_fresh_database_gets_every_migration_and_the_views(store: Store) -> None:
    assert [row["version"] for row in _ledger(store)] == [0, *sorted(migrations.available())]
    assert store.query("SELECT * FROM trajectories").num_rows == 0


def test_preparing_twice_writes_nothing(store: Store) -> None:
    before = _ledger(store)
    content = store.path.read_bytes()
    store.prepare()
    assert _ledger(store) == before
    assert store.path.read_bytes() == content


def test_an_empty_file_is_taken_for_a_new_database(tmp_path: Path) -> None:
    path = tmp_path / "reval.duckdb"
    duckdb.connect(path).close()
    store = Store(path)
    store.prepare()
    assert store.query("SELECT * FROM runs").num_rows == 0


def test_a_newer_database_is_refused_and_both_versions_are_named(store: Store) -> None:
    newest = max(migrations.available())
    with store.write() as connection:
        connection.execute("INSERT INTO store.schema_migrations VALUES (99, '099_later', 'x', now()::TIMESTAMP)")
    with pytest.raises(StoreError, match=rf"schema version 99.*up to {newest}"):
        store.prepare()


def test_an_edited_migration_is_refused_by_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = migrations.available()
    name, text = shipped[1]
    edited = {**shipped, 1: (name, text + "\n-- one more line")}
    monkeypatch.setattr(migrations, "available", lambda: edited)
    with pytest.raises(StoreError, match=rf"{name} was applied with another text"):
        store.prepare()


def test_a_further_migration_is_applied_once_and_keeps_the_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.write() as connection:
        connection.execute("INSERT INTO store.events VALUES ('r', 1, NULL, 'kind', 'message', now()::TIMESTAMP)")
    newest = max(migrations.available())
    further = {**migrations.available(), newest + 1: ("later", "ALTER TABLE store.events ADD COLUMN detail VARCHAR;")}
    monkeypatch.setattr(migrations, "available", lambda: further)
    store.prepare()
    store.prepare()
    assert store.query("SELECT kind, detail FROM store.events").to_pylist() == [{"kind": "kind", "detail": None}]


def test_a_failing_migration_leaves_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = max(migrations.available())
    broken = "CREATE TABLE store.half (a INTEGER); SELECT * FROM no_such_table;"
    further = {**migrations.available(), newest + 1: ("broken", broken)}
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "available", lambda: further)
        with pytest.raises(Exception, match="no_such_table"):
            store.prepare()
    assert [row["version"] for row in _ledger(store)] == [0, *sorted(migrations.available())]
    assert store.query("SELECT 1 FROM duckdb_tables() WHERE table_name = 'half'").num_rows == 0


def test_views_follow_their_text_without_a_migration(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    text = migrations._views() + "\nCREATE OR REPLACE VIEW one_more AS SELECT 1 AS a;"
    monkeypatch.setattr(migrations, "_views", lambda: text)
    store.prepare()
    assert store.query("SELECT a FROM one_more").to_pylist() == [{"a": 1}]


SHIPPED = migrations.available()


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A database that the first migration alone has made, with rows; the next `prepare` applies the second alone."""
    monkeypatch.setattr(migrations, "_views", lambda: "SELECT 1")  # views may read what later migrations make
    monkeypatch.setattr(migrations, "available", lambda: {1: SHIPPED[1]})
    store = Store(tmp_path / "reval.duckdb")
    store.prepare()
    with store.write() as connection:
        connection.execute(
            """
            INSERT INTO store.batches
            SELECT 'bat_' || i, if(i = 2, 'evaluation', 'training'), 'pol_0', 'wts_0', 'tok_0', i, 0, 'test/float32',
                   '{"temperature": 1.0, "seed": ' || i || '}', 8, 64, if(i = 1, NULL, 'run-a'), i,
                   TIMESTAMP '2026-01-01'
            FROM range(3) AS t (i);
            INSERT INTO store.policies
            SELECT 'pol_' || i, if(i = 0, 'base', 'learned'), if(i = 0, NULL, 'pol_' || i - 1), 'pol_0',
                   '{"lr": 1e-3}', i, 'tok_0', 'wts_' || i, if(i = 0, 'models/base', NULL),
                   TIMESTAMP '2026-01-01', 'run-a', 1
            FROM range(3) AS t (i);
            """
        )
    monkeypatch.setattr(migrations, "available", lambda: {number: SHIPPED[number] for number in (1, 2)})
    return store


def test_imports_widen_two_checks_and_keep_every_row(first: Store) -> None:
    def rows() -> list[list[dict]]:
        return [first.query(f"FROM store.{name} ORDER BY ALL").to_pylist() for name in ("batches", "policies")]

    before = rows()
    assert [len(found) for found in before] == [3, 3]
    first.prepare()
    assert [row["version"] for row in _ledger(first)] == [0, 1, 2]
    assert rows() == before
    with first.write() as connection:
        connection.execute("UPDATE store.batches SET purpose = 'imported' WHERE purpose = 'evaluation'")
        connection.execute("UPDATE store.policies SET kind = 'foreign' WHERE kind = 'base'")
    for name, column in (("batches", "purpose"), ("policies", "kind")):
        with pytest.raises(StoreError, match="CHECK"), first.write() as connection:
            connection.execute(f"UPDATE store.{name} SET {column} = 'other'")
        with pytest.raises(StoreError, match=r"(?i)duplicate key"), first.write() as connection:
            connection.execute(f"INSERT INTO store.{name} BY NAME SELECT * FROM store.{name} LIMIT 1")


def test_a_table_that_was_made_anew_has_its_columns_and_comments_again(first: Store) -> None:
    def columns() -> list[dict]:
        return first.query(
            """
            SELECT table_name, column_name, data_type, is_nullable, comment FROM duckdb_columns()
            WHERE schema_name = 'store' ORDER BY table_name, column_index
            """
        ).to_pylist()

    before = columns()
    first.prepare()
    after = columns()
    assert [row | {"comment": ""} for row in after] == [row | {"comment": ""} for row in before]
    reworded = {
        f"{new['table_name']}.{new['column_name']}" for new, old in zip(after, before, strict=True) if new != old
    }
    assert reworded == {
        *(f"batches.{name}" for name in ("purpose", "weights_checksum", "tokenizer_id", "round", "sampling")),
        *(f"policies.{name}" for name in ("policy_id", "kind", "settings", "tokenizer_id", "weights_checksum")),
        *("trajectories.seed", "verifiers.verifier_id", "verifiers.name"),
    }


def schema(store: Store) -> list[list[dict]]:
    """Every base table's columns, keys, checks and comments."""
    queries = (
        "SELECT table_name, comment FROM duckdb_tables() WHERE schema_name = 'store' ORDER BY ALL",
        "SELECT table_name, column_name, column_index, data_type, is_nullable, column_default, comment "
        "FROM duckdb_columns() WHERE schema_name = 'store' AND NOT internal ORDER BY ALL",
        "SELECT table_name, constraint_type, constraint_text FROM duckdb_constraints() "
        "WHERE schema_name = 'store' ORDER BY ALL",
    )
    return [store.query(query).to_pylist() for query in queries]


@pytest.mark.parametrize("version", sorted(SHIPPED)[:-1])
def test_every_earlier_version_comes_to_the_schema_of_a_new_database(
    version: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = Store(tmp_path / "earlier" / "reval.duckdb")
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "_views", lambda: "SELECT 1")
        patch.setattr(migrations, "available", lambda: {n: SHIPPED[n] for n in SHIPPED if n <= version})
        earlier.prepare()
    earlier.prepare()
    assert schema(earlier) == schema(store)
    assert earlier.query("SELECT count(*) AS n FROM trajectories").to_pylist() == [{"n": 0}]


def test_cut_responses_are_told_apart_and_the_others_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "reval.duckdb")
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "_views", lambda: "SELECT 1")
        patch.setattr(migrations, "available", lambda: {n: SHIPPED[n] for n in SHIPPED if n <= 5})
        store.prepare()
        with store.write() as connection:
            connection.execute(
                """
                INSERT INTO store.trajectories
                SELECT 'trj_' || i, 'bat', 'prb', 'prm', i, 3, 5, if(i = 0, 'stop', 'length'), -1.5, i, 'run-a', 1,
                       TIMESTAMP '2026-01-01'
                FROM range(4) AS t (i)
                """
            )
        before = store.query("FROM store.trajectories ORDER BY ALL")
    store.prepare()
    assert store.query("FROM store.trajectories ORDER BY ALL") == before
    with store.write() as connection:
        for index, reason in ((2, "budget"), (3, "deadline")):
            connection.execute(
                "UPDATE store.trajectories SET finish_reason = ? WHERE sample_index = ?", [reason, index]
            )
    told = store.query("SELECT finish_reason FROM store.trajectories ORDER BY sample_index").to_pylist()
    assert [row["finish_reason"] for row in told] == ["stop", "length", "budget", "deadline"]
    with pytest.raises(StoreError, match="CHECK"), store.write() as connection:
        connection.execute("UPDATE store.trajectories SET finish_reason = 'abort'")
