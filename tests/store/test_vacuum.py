"""The database is rewritten: it shrinks, keeps every row in its order, and a kill at any moment leaves a whole one."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from store_example import RUN, batch_record, build, part_of

from reval_core.errors import StoreError
from reval_core.store import Store, contents, runs, space, vacuum
from reval_core.store.connection import Connections

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def emptied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's database with no run at work, and 3 MB of further texts of which two thirds are deleted."""
    store = build(tmp_path_factory.mktemp("emptied") / "reval.duckdb").store
    for round in range(20, 26):
        batch = batch_record(round)
        store.append_batch(batch, part_of(batch, texts=[os.urandom(60_000).hex() for _ in range(4)]))
    store.settle()
    with store.write() as connection:
        connection.execute("UPDATE store.attempts SET status = 'completed'")
        connection.execute("DELETE FROM store.payloads WHERE length(completion) > 1000 AND rowid % 3 > 0")
    store.settle()
    return store.path


@pytest.fixture
def store(emptied: Path, tmp_path: Path) -> Store:
    """A copy of it."""
    return Store(shutil.copy(emptied, tmp_path))


def content(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of each table in the order in which they lie."""
    with duckdb.connect(path, read_only=True) as connection:
        names = contents.tables(connection)
        return {name: connection.execute(f"SELECT * FROM store.{name} ORDER BY rowid").fetchall() for name in names}


def catalogue(path: Path) -> list[list[tuple[Any, ...]]]:
    """Views, columns and constraints, with their comments."""
    queries = (
        "SELECT view_name, comment, sql FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
        "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() ORDER BY ALL",
        "SELECT table_name, constraint_text FROM duckdb_constraints() ORDER BY ALL",
    )
    with duckdb.connect(path, read_only=True) as connection:
        return [connection.execute(query).fetchall() for query in queries]


def leftovers(path: Path) -> list[str]:
    return [found.name for found in path.parent.iterdir() if "vacuum" in found.name or found.suffix == ".wal"]


def test_it_shrinks_and_keeps_rows_order_views_and_constraints(store: Store) -> None:
    rows, names = content(store.path), catalogue(store.path)
    store.path.chmod(0o640)
    done = vacuum.vacuum(Connections(store.path))
    assert done.bytes_before - done.bytes_after > 1_000_000
    assert store.path.stat().st_size == done.bytes_after
    assert store.path.stat().st_mode & 0o777 == 0o640
    assert done.rows == sum(map(len, rows.values()))
    assert content(store.path) == rows
    assert catalogue(store.path) == names
    assert leftovers(store.path) == []


def test_the_store_goes_on_afterwards(store: Store) -> None:
    vacuum.vacuum(Connections(store.path))
    batch = batch_record(40)
    store.append_batch(batch, part_of(batch))
    store.prepare()
    found = store.query("SELECT count(*) AS n FROM trajectories WHERE batch_id = $batch", batch=batch.batch_id)
    assert found.to_pylist() == [{"n": 4}]


def test_rows_that_lie_in_the_log_come_along_and_no_log_is_left(store: Store) -> None:
    batch = batch_record(41)
    store.append_batch(batch, part_of(batch))
    assert store.path.with_name("reval.duckdb.wal").stat().st_size > 0
    rows = content(store.path)
    vacuum.vacuum(Connections(store.path))
    assert content(store.path) == rows
    assert leftovers(store.path) == []


def test_a_link_to_another_disk_stays_one(store: Store, tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk" / "big.duckdb"
    elsewhere.parent.mkdir()
    store.path.rename(elsewhere)
    store.path.symlink_to(elsewhere)
    before = elsewhere.stat().st_size
    vacuum.vacuum(Connections(store.path))
    assert store.path.is_symlink()
    assert elsewhere.stat().st_size < before
    assert store.query("SELECT count(*) AS n FROM store.runs").to_pylist() == [{"n": 2}]


def at_work(store: Store) -> None:
    """This process works on the run."""
    with store.write() as connection:
        runs.start_attempt(
            connection,
            RUN,
            runs.ProcessIdentity.mine(),
            git_commit=None,
            versions={},
            device="cpu",
            flow_run_id=None,
        )


def test_it_refuses_while_a_run_is_worked_on_and_names_the_process(store: Store) -> None:
    at_work(store)
    before = store.path.stat().st_size
    with pytest.raises(StoreError, match=rf"run {RUN} by process {os.getpid()} \(attempt 2\).*--wait"):
        vacuum.vacuum(Connections(store.path))
    assert store.path.stat().st_size == before


def test_it_waits_until_nobody_works_on_a_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work(store)
    said: list[str] = []

    def pause(seconds: float) -> None:
        with store.write() as connection:
            runs.end_attempt(connection, RUN, 2, "completed")

    monkeypatch.setattr(vacuum.time, "sleep", pause)
    done = vacuum.vacuum(Connections(store.path), wait=True, say=said.append)
    assert done.bytes_after < done.bytes_before
    assert len(said) == 1
    assert RUN in said[0]


def test_an_attempt_whose_process_is_gone_does_not_stop_it(store: Store) -> None:
    at_work(store)
    with store.write() as connection:
        connection.execute("UPDATE store.attempts SET process_started = 1.0 WHERE status = 'running'")
    assert vacuum.vacuum(Connections(store.path)).bytes_after > 0


def test_a_disk_without_room_is_told_before_anything_is_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(store.path)
    usage = space.shutil.disk_usage(store.path.parent)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StoreError, match=r"rewritten database would need about .*MB.*1 kB free"):
        vacuum.vacuum(Connections(store.path))
    assert content(store.path) == before
    assert leftovers(store.path) == []


def test_a_copy_that_cannot_be_written_leaves_the_old_database(store: Store) -> None:
    before, aside = content(store.path), store.path.with_suffix(".vacuum")
    aside.mkdir()
    (aside / "file").touch()
    with pytest.raises(StoreError, match="cannot be rewritten"):
        vacuum.vacuum(Connections(store.path))
    assert content(store.path) == before


def test_a_copy_with_other_rows_never_takes_the_place(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rewrite = content(store.path), vacuum._rewrite

    def spoil(connection: duckdb.DuckDBPyConnection, aside: Path) -> dict[str, tuple[int, int]]:
        digests = rewrite(connection, aside)
        with duckdb.connect(aside) as copy:
            copy.execute("UPDATE store.payloads SET completion = 'other' WHERE rowid = 3")
        return digests

    monkeypatch.setattr(vacuum, "_rewrite", spoil)
    with pytest.raises(StoreError, match="other rows in payloads; the old one stays"):
        vacuum.vacuum(Connections(store.path))
    assert content(store.path) == before
    assert leftovers(store.path) == []


def test_nobody_can_write_between_the_copy_and_its_new_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign program too: DuckDB's own lock is kept until the rename."""
    program = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('CREATE TABLE foreign_one (a INTEGER)')"
    command = [sys.executable, "-c", program, str(store.path)]
    refused: list[str] = []
    compare = vacuum._compare

    def compared(aside: Path, digests: dict[str, tuple[int, int]]) -> None:
        compare(aside, digests)
        refused.append(subprocess.run(command, capture_output=True, text=True, check=False).stderr)

    monkeypatch.setattr(vacuum, "_compare", compared)
    vacuum.vacuum(Connections(store.path))
    assert "Could not set lock" in refused[0]
    assert subprocess.run(command, check=False).returncode == 0


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from reval_core.store import contents, vacuum
from reval_core.store.connection import Connections

def killing(function, after):
    def call(*arguments, **named):
        found = function(*arguments, **named) if after else None
        os.kill(os.getpid(), signal.SIGKILL)
    return call

moment, path = sys.argv[3], Path(sys.argv[2])
if moment == "copied, not compared":
    vacuum._compare = killing(vacuum._compare, False)
elif moment == "compared, not renamed":
    Path.rename = killing(Path.rename, False)
elif moment == "renamed":
    Path.rename = killing(Path.rename, True)
vacuum.vacuum(Connections(path))
"""


@pytest.mark.parametrize("moment", ["copied, not compared", "compared, not renamed", "renamed"])
def test_a_kill_leaves_one_whole_database_and_the_next_start_tidies_up(store: Store, moment: str) -> None:
    before, size = content(store.path), store.path.stat().st_size
    command = [sys.executable, "-c", KILLED, str(ROOT), str(store.path), moment]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert (store.path.stat().st_size == size) is (moment != "renamed")
    assert store.path.with_suffix(".vacuum").exists() is (moment != "renamed")
    store.prepare()
    assert leftovers(store.path) == []
    assert content(store.path) == before
    vacuum.vacuum(Connections(store.path))
    assert content(store.path) == before


def test_a_kill_in_the_middle_of_the_copy_leaves_the_old_database(store: Store) -> None:
    before = content(store.path)
    command = [sys.executable, "-c", KILLED, str(ROOT), str(store.path), "whenever"]
    process = subprocess.Popen(command)
    aside = store.path.with_suffix(".vacuum")
    while process.poll() is None and not aside.exists():
        pass
    process.kill()
    process.wait()
    store.prepare()
    assert leftovers(store.path) == []
    assert content(store.path) == before


def test_a_program_that_holds_the_file_is_named(store: Store, hold: Callable[..., Any]) -> None:
    other = hold(store.path, "read")
    with pytest.raises(StoreError, match=f"process {other.pid}"):
        vacuum.vacuum(Connections(store.path, lock_wait_s=0.2))
