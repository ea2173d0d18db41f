"""Stores of several roots in one: nothing doubled, nothing lost, paths lead into the folder of the other root."""

from pathlib import Path

import pytest
import store_example

from reval_core.errors import StoreError
from reval_core.store import Store, contents, merging
from reval_core.store import statements as sql

LEFT = {"schema_migrations", "leases", "starts", "archives", "archived_payloads"}
"""Tables that say something of one database alone."""


def merged(into: Store, other: Store, under: str = "cells/a") -> dict[str, tuple[int, int]]:
    with into.write() as connection:
        merging.merge(connection, other.path, under)
    with into.read() as connection:
        return contents.row_digests(connection)


def test_a_merged_store_shows_what_the_other_one_shows(store: Store, example: store_example.Example) -> None:
    merged(store, example.store)
    for view in ("rounds", "evaluations", "trajectories", "updates", "update_members", "replay", "verdicts", "events"):
        query = f"SELECT * FROM {view} ORDER BY ALL"
        assert store.query(query).num_rows > 0 or view == "events"
        assert store.query(query).equals(example.store.query(query)), view


def test_merging_twice_changes_nothing(store: Store, example: store_example.Example) -> None:
    once = merged(store, example.store)
    assert merged(store, example.store) == once
    with example.store.read() as connection:
        there = contents.row_digests(connection)
    same = set(there) - LEFT - {"policies", "attempts", "stages"}
    assert {name: once[name] for name in same} == {name: there[name] for name in same}
    assert once["policies"][0] == there["policies"][0]


def test_runs_of_two_stores_stand_side_by_side(store: Store, example: store_example.Example, tmp_path: Path) -> None:
    other = Store(tmp_path / "other" / "reval.duckdb")
    other.prepare()
    with other.write() as connection:
        connection.execute("INSERT INTO store.problems VALUES ('prb_x', '[]', 'x', now()), ('prb_0', '[]', 'y', now())")
    merged(store, example.store)
    merged(store, other, "cells/b")
    questions = {row["problem_id"]: row["question"] for row in store.query("FROM store.problems").to_pylist()}
    assert questions["prb_x"] == "x"
    assert questions["prb_0"] != "y", "who wrote a row first keeps it"


def test_paths_lead_into_the_folder_of_the_other_root(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other" / "reval.duckdb")
    other.prepare()
    with other.write() as connection:
        for policy, kind, folder in (("pol_b", "base", "models/tiny"), ("pol_l", "learned", "policies/pol_l")):
            connection.execute(
                "INSERT INTO store.policies VALUES (?, ?, NULL, NULL, '{}', 0, 't', 'w', ?, now(), 'r', 1)",
                [policy, kind, folder],
            )
        for key, stage, output in (
            ("s1", "checkpoint", '{"policy_id": "pol_l", "folder": "policies/pol_l"}'),
            ("s2", "checkpoint", '{"policy_id": "pol_b", "folder": "models/tiny"}'),
            ("s3", "learn", '{"policy_id": "pol_l"}'),
        ):
            connection.execute(
                "INSERT INTO store.stages VALUES (?, ?, '{}', ?, 1.0, 'r', 1, now())", [key, stage, output]
            )
        connection.execute(
            "INSERT INTO store.attempts VALUES "
            "('r', 1, 'running', 1, 'h', 0, NULL, '{}', 'cpu', NULL, 'logs/r/1.jsonl', NULL, now(), NULL)"
        )
    merged(store, other)
    folders = store.query("SELECT folder FROM store.policies ORDER BY policy_id").column(0).to_pylist()
    assert folders == ["models/tiny", "cells/a/policies/pol_l"]
    outputs = store.query("SELECT output ->> 'folder' FROM store.stages ORDER BY stage_key").column(0).to_pylist()
    assert outputs == ["cells/a/policies/pol_l", "models/tiny", None]
    assert store.query("SELECT log_path FROM store.attempts").column(0).to_pylist() == ["cells/a/logs/r/1.jsonl"]

    with other.write() as connection:
        connection.execute("UPDATE store.attempts SET status = 'completed', ended_at = now()")
    merged(store, other)
    assert store.query("SELECT status FROM store.attempts").column(0).to_pylist() == ["completed"]


def test_a_store_with_archived_payloads_is_refused(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other" / "reval.duckdb")
    other.prepare()
    with other.write() as connection:
        connection.execute("INSERT INTO store.archived_payloads VALUES ('trj_1', 'arc_1', now())")
    with pytest.raises(StoreError, match="bring-back"):
        merged(store, other)


def test_no_table_is_forgotten(empty: Store) -> None:
    with empty.read() as connection:
        every = set(contents.tables(connection))
        keyed = {name for (name,) in sql.rows(connection, "merging", "tables")}
    assert keyed | {*merging.OWN} | LEFT == every
    assert not keyed & {*merging.OWN}
