"""Databases are brought to this version's schema, and never by a program that does not know them."""

from pathlib import Path

import duckdb
import pytest
import store_example

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


@pytest.fixture
def first_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The example's rows in a database that the first migration alone has made."""
    shipped = migrations.available()
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "available", lambda: {1: shipped[1]})
        store = store_example.build(tmp_path / "reval.duckdb").store
    assert [row["version"] for row in _ledger(store)] == [0, 1]
    return store


MADE_ANEW = ("batches", "policies")


def test_imports_widen_two_checks_and_keep_every_row(first_version: Store) -> None:
    def rows() -> dict[str, list[str]]:
        return {name: sorted(map(str, first_version.query(f"FROM store.{name}").to_pylist())) for name in MADE_ANEW}

    before = rows()
    assert [len(found) for found in before.values()] == [5, 5]
    first_version.prepare()
    assert rows() == before
    with first_version.write() as connection:
        connection.execute("UPDATE store.batches SET purpose = 'imported' WHERE purpose = 'evaluation'")
        connection.execute("UPDATE store.policies SET kind = 'foreign' WHERE kind = 'base'")
    for name, column in (("batches", "purpose"), ("policies", "kind")):
        with pytest.raises(StoreError, match="CHECK"), first_version.write() as connection:
            connection.execute(f"UPDATE store.{name} SET {column} = 'other'")
        with pytest.raises(StoreError, match=r"(?i)duplicate key"), first_version.write() as connection:
            connection.execute(f"INSERT INTO store.{name} BY NAME SELECT * FROM store.{name} LIMIT 1")


def test_a_table_that_was_made_anew_has_its_columns_and_comments_again(first_version: Store) -> None:
    def columns() -> list[dict]:
        return first_version.query(
            """
            SELECT table_name, column_name, data_type, is_nullable, comment FROM duckdb_columns()
            WHERE schema_name = 'store' ORDER BY table_name, column_index
            """
        ).to_pylist()

    before = columns()
    first_version.prepare()
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
