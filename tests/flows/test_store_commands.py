"""`reval store`: figures, snapshot, vacuum, backup and restore, and that a restored root goes on where it was."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import duckdb
import pytest
from small_run import Finished, Reval, changed, counts, crash_at, lineage, responses, sampled, train, value

from flows import storing
from reval_core.config import Config
from reval_core.home import Home
from reval_core.process import ProcessIdentity
from reval_core.store import Store, runs, spool
from reval_core.store.trajectories import PART_SCHEMA, BatchRecord


@pytest.fixture
def here(reval: Reval, copied: Home, monkeypatch: pytest.MonkeyPatch) -> Reval:
    """Calls the command line on a copy of the finished run's root."""
    monkeypatch.setenv("REVAL_HOME", str(copied.root))
    return reval


def test_figures_of_every_table_and_of_all_that_lies_under_the_root(here: Reval, copied: Home) -> None:
    code, text, _ = here("store", "stats", "--json")
    found = json.loads(text)
    assert code == 0
    tables = {table["name"]: table for table in found["tables"]}
    for name, rows in counts(copied).items():
        assert tables[name]["rows"] == rows, name
    assert found["database_bytes"] == copied.database.stat().st_size
    used = found["database_bytes"] - found["free_bytes"]
    assert sum(table["bytes"] for table in found["tables"]) == pytest.approx(used, abs=5 * 262144)
    assert sum(table["share"] for table in found["tables"]) == pytest.approx(1)
    policies = sum(path.stat().st_size for path in copied.policies.rglob("*") if path.is_file())
    assert found["folders"]["policies"] == policies
    assert set(found["folders"]) >= {"policies", "reports", "mlflow.db", "mlartifacts"}
    code, text, _ = here("store", "stats")
    assert code == 0
    assert "trajectories" in text
    assert found["hint"] in text


def test_figures_tell_what_waits_and_how_old_the_snapshot_is(here: Reval, copied: Home) -> None:
    batch = BatchRecord("training", "pol_x", "wts", "tok", 0, 0, "test", {}, ("prm_a",), ("prb_a",), 1)
    spool.keep(copied.root / "spool", batch, PART_SCHEMA.empty_table(), run_id=None, attempt=None)
    code, text, _ = here("store", "snapshot", "--payloads")
    assert code == 0
    assert f"{copied.root / 'snapshot.duckdb'}  " in text
    assert "with tokens and texts" in text
    found = storing.measure(copied)
    assert found.waiting_parts == 1
    assert found.snapshot is not None
    assert found.snapshot.payloads
    assert found.snapshot.age_s < 60
    assert found.snapshot.bytes == (copied.root / "snapshot.duckdb").stat().st_size


def test_the_hint_names_what_takes_most() -> None:
    mib = 2**20
    assert "reval store vacuum" in storing._hint(100 * mib, 30 * mib, {"payloads": 60 * mib, "policies": mib})
    assert "learned again" in storing._hint(100 * mib, 0, {"payloads": 20 * mib, "policies": 500 * mib})
    assert "reval store archive" in storing._hint(100 * mib, 0, {"payloads": 60 * mib, "policies": mib})
    assert "Nothing stands out" in storing._hint(100 * mib, 0, {"payloads": mib, "logs": mib})


def test_a_vacuum_gives_back_what_was_deleted_and_the_run_is_the_same(
    here: Reval, copied: Home, finished: Finished
) -> None:
    with Store(copied.database).write() as connection:
        connection.execute(
            "CREATE TABLE store.ballast AS SELECT hash(range) AS a, hash(-range) AS b FROM range(500000)"
        )
    Store(copied.database).settle()
    with Store(copied.database).write() as connection:
        connection.execute("DROP TABLE store.ballast")
    before = copied.database.stat().st_size
    code, text, _ = here("store", "vacuum")
    assert code == 0
    assert "compared" in text
    assert before - copied.database.stat().st_size > 4_000_000
    assert counts(copied) == counts(finished.home)
    assert responses(copied) == responses(finished.home)


def test_a_vacuum_refuses_while_a_living_process_works_on_a_run(
    here: Reval, copied: Home, finished: Finished, stranger: ProcessIdentity
) -> None:
    with Store(copied.database).write() as connection:
        runs.start_attempt(
            connection,
            finished.outcome.run_id,
            stranger,
            git_commit=None,
            versions={},
            device="cpu",
            flow_run_id=None,
        )
    code, _, error = here("store", "vacuum")
    assert code == 1
    assert f"run {finished.outcome.run_id} by process {stranger.pid}" in error
    assert "--wait" in error


def test_a_backup_is_restored_and_nothing_is_done_again(
    here: Reval, copied: Home, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    code, text, _ = here("store", "backup", str(tmp_path / "backup"))
    assert code == 0
    assert "verified" in text
    assert f"{finished.config.model.path} lies outside the root" in text
    note = json.loads((tmp_path / "backup" / "backup.json").read_text())
    assert note["rows"]["trajectories"] == value(copied, "SELECT count(*) FROM store.trajectories")
    shutil.rmtree(copied.root)
    code, text, _ = here("store", "restore", str(tmp_path / "backup"))
    assert code == 0
    assert f"restored to {copied.root}, verified" in text
    assert responses(copied) == responses(finished.home)
    with sampled(monkeypatch) as seen:
        outcome = train(finished.config, copied)
    assert seen == []
    assert outcome.run_id == finished.outcome.run_id
    assert lineage(copied, outcome.run_id) == lineage(finished.home, outcome.run_id)


@pytest.mark.long
def test_a_run_that_was_cut_short_goes_on_in_the_restored_root(
    reval: Reval,
    small: Config,
    home: Home,
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick: None,
) -> None:
    """From the database alone too: its policies are learned again."""
    two = changed(small, "run.iterations=2")
    with crash_at(monkeypatch, "learn", 1, "before"):
        train(two, home)
    monkeypatch.setenv("REVAL_HOME", str(home.root))
    for number, extent in enumerate([(), ("--database-only",)]):
        backup, elsewhere = str(tmp_path / f"backup {number}"), Home(tmp_path / f"elsewhere {number}")
        assert reval("store", "backup", backup, *extent)[0] == 0
        code, text, _ = reval("store", "restore", backup, "--to", str(elsewhere.root))
        assert code == 0
        assert f"REVAL_HOME={shlex.quote(str(elsewhere.root))}" in text
        with sampled(monkeypatch) as seen:
            run_id = train(two, elsewhere).run_id
        assert seen == []
        assert lineage(elsewhere, run_id) == lineage(finished.home, finished.outcome.run_id)[:2]


def test_everything_is_backed_up_on_demand(here: Reval, copied: Home, tmp_path: Path) -> None:
    assert here("store", "backup", str(tmp_path / "backup"), "--all")[0] == 0
    names = {path.name for path in (tmp_path / "backup").iterdir()}
    assert names >= {"mlflow.db", "mlartifacts", "reports", "reval.duckdb", "policies"}
    code, _, error = here("store", "backup", str(tmp_path / "backup"), "--all", "--database-only")
    assert code == 1
    assert "exclude each other" in error


def test_a_restore_overwrites_nothing_and_says_what_to_do(here: Reval, copied: Home, tmp_path: Path) -> None:
    assert here("store", "backup", str(tmp_path / "backup"))[0] == 0
    code, _, error = here("store", "restore", str(tmp_path / "backup"))
    assert code == 1
    assert f"mv {copied.root} {copied.root}.before" in error


def test_commands_to_copy_are_quoted(here: Reval, copied: Home, tmp_path: Path) -> None:
    backup, root = tmp_path / "my backup", tmp_path / "it's a root"
    assert f"reval store restore {shlex.quote(str(backup))} --to ROOT" in here("store", "backup", str(backup))[1]
    assert f"REVAL_HOME={shlex.quote(str(root))} " in here("store", "restore", str(backup), "--to", str(root))[1]
    again = here("store", "restore", str(backup), "--to", str(root))[2]
    assert f"mv {shlex.quote(str(root))} {shlex.quote(f'{root}.before')}" in again


def test_work_that_went_on_in_a_backup_is_told_when_it_is_restored(here: Reval, copied: Home, tmp_path: Path) -> None:
    assert here("store", "backup", str(tmp_path / "backup"))[0] == 0
    with duckdb.connect(tmp_path / "backup" / "reval.duckdb") as connection:
        connection.execute("INSERT INTO store.events VALUES ('r', 1, NULL, 'kind', 'message', now()::TIMESTAMP)")
    code, text, _ = here("store", "restore", str(tmp_path / "backup"), "--to", str(tmp_path / "new"))
    assert code == 0
    assert "unlike backup.json: events has" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("stats",), "There is no database"),
        (("snapshot",), "There is no database"),
        (("vacuum",), "There is no database"),
        (("backup", "DEST"), "There is no database"),
        (("restore", "DEST"), "There is no backup"),
    ],
)
def test_without_a_store_each_command_says_so(
    reval: Reval, home: Home, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.setenv("REVAL_HOME", str(home.root))
    dest = home.root.parent / "dest"
    code, _, error = reval("store", *(str(dest) if word == "DEST" else word for word in arguments))
    assert code == 1
    assert words in error
    assert not dest.exists()
    assert not home.root.exists()
