"""Damaged files, full disks, forbidden folders, held locks, a clock set back: told in one line, and no row is lost."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import store_example
from store_example import batch_record, part_of

from reval_core.errors import NotStored, StoreError, StoreLocked
from reval_core.exclusive import exclusive
from reval_core.process import ProcessIdentity
from reval_core.store import Store, connection, runs, spool, stages
from reval_core.store import store as store_module
from reval_core.store.connection import Connections
from tests.soak.full_disk import filled, small_disk, sweep

ROOT = Path(__file__).parents[2]
LOG_HEADER = 64
"""Bytes in which a log's first entry ends, that of its version."""


def stored(store: Store) -> set[int]:
    """Rounds whose four responses are there with their payloads; no round is there in part."""
    found = store.query_live(
        "SELECT b.round, count(t.trajectory_id) AS n, count(p.completion) AS texts FROM store.batches AS b "
        "LEFT JOIN store.trajectories AS t USING (batch_id) LEFT JOIN store.payloads AS p USING (trajectory_id) "
        "GROUP BY ALL"
    ).to_pylist()
    assert {(row["n"], row["texts"]) for row in found} <= {(4, 4)}
    return {row["round"] for row in found}


def log_of(store: Store) -> Path:
    return store.path.with_name("reval.duckdb.wal")


def append(store: Store, round: int) -> None:
    batch = batch_record(round)
    store.append_batch(batch, part_of(batch))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Round 0 in the file, rounds 1 to 3 in the log, a transaction each. Tests copy it."""
    store = Store(tmp_path_factory.mktemp("whole") / "reval.duckdb")
    store.prepare()
    append(store, 0)
    store.settle()
    for round in (1, 2, 3):
        append(store, round)
    assert log_of(store).stat().st_size > LOG_HEADER
    return store


@pytest.fixture
def copied(whole: Store, tmp_path: Path) -> Store:
    for file in (whole.path, log_of(whole)):
        shutil.copy(file, tmp_path)
    return Store(tmp_path / "reval.duckdb", lock_wait_s=0.2)


# Damaged files -------------------------------------------------------------------------------------------------------


def cut(path: Path, size: int) -> None:
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)


def scratch(path: Path, place: int, length: int = 32) -> None:
    """Bytes turned over."""
    with open(path, "r+b") as file:
        file.seek(place)
        old = file.read(length)
        file.seek(place)
        file.write(bytes(byte ^ 0xFF for byte in old))


def log_of_another(store: Store) -> None:
    other = Store(store.path.parent / "other" / "reval.duckdb")
    other.prepare()
    append(other, 8)
    shutil.move(log_of(other), log_of(store))
    shutil.rmtree(other.path.parent)


def log_of_another_state(store: Store) -> None:
    """As when file and log are copied one after the other while a run settles."""
    before = log_of(store).read_bytes()
    store.settle()
    log_of(store).write_bytes(before)


def become_a_folder(store: Store) -> None:
    store.path.unlink()
    store.path.mkdir()


RESTORE = "`reval store restore`"
DAMAGES: dict[str, tuple[Callable[[Store], object], str]] = {
    "the file ends early": (lambda s: cut(s.path, s.path.stat().st_size // 2), RESTORE),
    "the file lacks its last bytes": (lambda s: cut(s.path, -1000), RESTORE),
    "the file ends in its headers": (lambda s: cut(s.path, 5000), RESTORE),
    "the file is no database": (lambda s: s.path.write_bytes(b"not a database" * 1000), RESTORE),
    "the first header is damaged": (lambda s: scratch(s.path, 4096), RESTORE),
    "the second header is damaged": (lambda s: scratch(s.path, 8192), RESTORE),
    "the first block is damaged": (lambda s: scratch(s.path, 12288 + 100), RESTORE),
    "the file is empty, its log is not": (lambda s: cut(s.path, 0), f"is missing, but its log .* {RESTORE}"),
    "the file is gone, its log is not": (lambda s: s.path.unlink(), f"is missing, but its log .* {RESTORE}"),
    "a folder has its name": (become_a_folder, "Move the folder away"),
    "the log is garbage": (lambda s: log_of(s).write_bytes(b"garbage" * 1000), RESTORE),
    "the log's beginning is damaged": (lambda s: scratch(log_of(s), 0), RESTORE),
    "the log's middle is damaged": (lambda s: scratch(log_of(s), log_of(s).stat().st_size // 2, 300), RESTORE),
    "the log is another database's": (log_of_another, RESTORE),
    "the log is of another state": (log_of_another_state, RESTORE),
}


def contents(folder: Path) -> dict[str, bytes]:
    """Files that may hold rows."""
    return {path.name: path.read_bytes() for path in folder.glob("reval.duckdb*") if path.is_file()}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_in_one_line_at_every_door_and_nothing_is_deleted(
    damage: str, copied: Store, whole: Store
) -> None:
    inflict, advice = DAMAGES[damage]
    inflict(copied)
    before = contents(copied.path.parent)
    doors: list[Callable[[], object]] = [
        copied.prepare,
        lambda: copied.query("SELECT count(*) FROM trajectories"),
        lambda: copied.query_live("SELECT 1"),
        lambda: copied.window("run", 0, None),
        copied.settle,
        copied.snapshot,
        lambda: append(copied, 4),
        copied.prepare,
    ]
    for door in doors:
        with pytest.raises(StoreError, match=advice) as told:
            door()
        assert str(copied.path) in str(told.value)
        assert "\n" not in str(told.value)
    assert contents(copied.path.parent) == before
    assert len(spool.kept(copied.spool)) == 1

    for name in before:
        (copied.path.parent / name).unlink()
    if copied.path.is_dir():
        copied.path.rmdir()
    for file in (whole.path, log_of(whole)):
        shutil.copy(file, copied.path.parent)
    copied.prepare()
    assert stored(copied) == {0, 1, 2, 3, 4}
    assert spool.kept(copied.spool) == []


def test_a_damaged_block_of_rows_is_told_when_it_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "reval.duckdb")
    store.prepare()
    batch = batch_record()
    store.append_batch(batch, part_of(batch, texts=[f"{index} is the text to look for" * 9 for index in range(4)]))
    store.settle()
    scratch(store.path, store.path.read_bytes().index(b"is the text to look for"))
    question = "SELECT count(*) FROM store.payloads WHERE completion LIKE '%text%'"
    with pytest.raises(NotStored, match=rf"{store.path} cannot be read: .*{RESTORE}"), store.read() as opened:
        opened.execute(question).fetchall()
    with pytest.raises(StoreError, match=r"[Cc]orrupt"):
        store.query(question)
    assert store.query("SELECT count(*) AS n FROM store.trajectories").to_pylist() == [{"n": 4}]


def test_a_torn_end_of_the_log_takes_whole_transactions_with_it(copied: Store) -> None:
    """What a kill tears off was never acknowledged. DuckDB cannot tell it from a log that was cut from outside."""
    log, file = log_of(copied).read_bytes(), copied.path.read_bytes()
    left = []
    for size in (0, 10, LOG_HEADER, *range(len(log) // 5, len(log), len(log) // 5)):
        log_of(copied).write_bytes(log[:size])
        copied.path.write_bytes(file)
        left.append(len(stored(copied)))
        append(copied, 4)
        assert len(stored(copied)) == left[-1] + 1
    assert left == sorted(left)
    assert set(left) == {1, 2, 3}  # the whole log has four


def test_bytes_behind_the_last_transaction_of_the_log_do_no_harm(copied: Store) -> None:
    with open(log_of(copied), "ab") as log:
        log.write(bytes(5000))
    append(copied, 4)
    assert stored(copied) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("left", [0, 100, 4096, 12287, 12288])
def test_a_database_that_was_being_made_is_made_anew(left: int, tmp_path: Path) -> None:
    half = tmp_path / "reval.new"
    duckdb.connect(half).close()
    cut(half, left)
    half.with_name("reval.new.wal").write_bytes(b"half of a log")
    store = Store(tmp_path / "reval.duckdb")
    store.prepare()
    append(store, 0)
    assert stored(store) == {0}
    assert not list(tmp_path.glob("reval.new*"))


def test_an_empty_file_without_a_log_becomes_a_database(tmp_path: Path) -> None:
    store = Store(tmp_path / "reval.duckdb")
    store.path.touch()
    with pytest.raises(StoreError, match="There is no database"):
        store.query("SELECT 1")
    store.prepare()
    assert stored(store) == set()


# Folders and files of others -----------------------------------------------------------------------------------------


@pytest.fixture
def others_store() -> Iterator[Store]:
    """A store in a folder into which everybody may look."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    store = Store(folder / "root" / "reval.duckdb", lock_wait_s=0.2)
    store.prepare()
    append(store, 0)
    yield store
    for path in (folder / "root", store.path):
        path.chmod(0o755)
    shutil.rmtree(folder)


@contextmanager
def without_rights() -> Iterator[None]:
    """As a user who owns nothing; whoever is no root is one already where the mode forbids him."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_written_is_named_and_can_be_read(others_store: Store) -> None:
    folder = others_store.path.parent
    folder.chmod(0o555)
    others_store.path.chmod(0o444)
    with without_rights():
        assert stored(others_store) == {0}
        for door in (others_store.prepare, others_store.settle, lambda: append(others_store, 1)):
            with pytest.raises(StoreError, match=r"Permission denied.* this user may read and write") as told:
                door()
            assert str(folder) in str(told.value)
        with pytest.raises(StoreError, match="Permission denied"):
            others_store.snapshot()


@pytest.mark.parametrize("closed", ["file", "log", "folder"])
def test_what_may_not_be_read_is_named(closed: str, others_store: Store) -> None:
    folder = others_store.path.parent
    path = {"file": others_store.path, "log": log_of(others_store), "folder": folder}[closed]
    path.chmod(0)
    with without_rights():
        for door in (others_store.prepare, lambda: others_store.query("SELECT 1"), lambda: append(others_store, 1)):
            with pytest.raises(StoreError, match=r"Permission denied.* this user may read and write") as told:
                door()
            assert str(others_store.path) in str(told.value)
    path.chmod(0o755)
    assert stored(others_store) == {0}


# Programs that hold the file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["read", "write"])
def test_who_holds_the_file_is_named_while_a_writer_waits_and_afterwards(
    mode: str,
    copied: Store,
    hold: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connection, "_SAY_AFTER_S", -1.0)  # at the first look, however late that is
    other = hold(copied.path, mode)  # which never closes its connection
    with pytest.raises(StoreError, match=rf"held by process {other.pid} .*Close it there.* 4 responses are safe in"):
        append(Store(copied.path, lock_wait_s=2.0), 4)
    assert f"waiting for process {other.pid}" in caplog.text
    with pytest.raises(StoreLocked, match=f"process {other.pid}"):
        copied.prepare()
    assert len(spool.kept(copied.spool)) == 1  # it waits on
    other.communicate(timeout=30)
    copied.prepare()
    assert stored(copied) == {0, 1, 2, 3, 4}
    assert spool.kept(copied.spool) == []


def test_a_start_that_another_one_blocks_ends_with_an_error(copied: Store) -> None:
    with (
        exclusive(copied.path.with_suffix(".lock")),
        pytest.raises(StoreLocked, match=r"preparing .* more than 0\.2 s"),
    ):
        copied.prepare()
    copied.prepare()


def test_a_holder_that_is_killed_stops_nobody(copied: Store, hold: Callable[..., Any]) -> None:
    other = hold(copied.path)
    other.kill()
    other.wait()
    append(copied, 4)
    assert stored(copied) == {0, 1, 2, 3, 4}


ASKING = """
import sys
from reval_core.store import Store, answers
answers.LIVE_S = 0.1
answer = Store(sys.argv[1]).ask("SELECT count(*) AS n FROM range(15000) a, range(15000) b WHERE a.range <= b.range")
print()
print(answer.table.to_pylist(), answer.snapshot is not None)
"""


def test_a_slow_query_through_our_doors_is_moved_out_of_a_writers_way(copied: Store) -> None:
    asking = subprocess.Popen(
        [sys.executable, "-c", ASKING, str(copied.path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    patient, round = Store(copied.path, lock_wait_s=60), 3
    while asking.poll() is None:
        round += 1
        append(patient, round)
        time.sleep(0.1)
    assert asking.communicate()[0].splitlines()[-1] == f"[{{'n': {15000 * 15001 // 2}}}] True"
    assert stored(copied) == set(range(round + 1))


ZOMBIE = """
import os, signal, sys
from reval_core.errors import LeaseLost
from reval_core.store import Store, stages
from reval_core.process import ProcessIdentity
store = Store(sys.argv[1], lock_wait_s=60)
with store.write() as connection:
    lease = stages.take_lease(connection, "key", ProcessIdentity.mine())
print("taken", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
try:
    with store.write() as connection:
        connection.execute("INSERT INTO store.events VALUES ('r', 1, 0, 'of the zombie', '', now()::TIMESTAMP)")
        stages.commit(connection, lease, "generate", {}, {"by": "zombie"}, seconds=1.0, run_id="r", attempt=1)
except LeaseLost as error:
    print("refused:", error)
"""


def test_a_process_that_slept_through_its_lease_is_refused(copied: Store) -> None:
    sleeper = subprocess.Popen(
        [sys.executable, "-c", ZOMBIE, str(copied.path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert sleeper.stdout is not None
    assert sleeper.stdout.readline() == "taken\n"
    patient = Store(copied.path, lock_wait_s=60)
    with patient.write() as opened:
        lease = stages.take_lease(opened, "key", ProcessIdentity.mine())
        stages.commit(opened, lease, "generate", {}, {"by": "us"}, seconds=1.0, run_id="r", attempt=2)
    while "T (stopped)" not in Path(f"/proc/{sleeper.pid}/status").read_text():
        time.sleep(0.01)
    sleeper.send_signal(signal.SIGCONT)
    assert sleeper.communicate(timeout=60)[0].startswith("refused: The stage key was taken over by")
    with copied.read() as opened:
        assert stages.find(opened, "key") == {"by": "us"}
        assert opened.execute("SELECT count(*) FROM store.events").fetchall() == [(0,)]


def test_an_interruption_right_after_a_commit_stays_one(copied: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def __init__(self, opened: duckdb.DuckDBPyConnection) -> None:
            self.opened = opened

        def execute(self, sql: str, *values: Any) -> Any:
            result = self.opened.execute(sql, *values)
            if sql == "COMMIT":
                raise KeyboardInterrupt
            return result

        def __getattr__(self, name: str) -> Any:
            return getattr(self.opened, name)

    connect = Connections._connect
    with monkeypatch.context() as patch:
        patch.setattr(Connections, "_connect", lambda self, *given: Interrupted(connect(self, *given)))
        with pytest.raises(KeyboardInterrupt):
            append(copied, 4)
    assert stored(copied) == {0, 1, 2, 3, 4}


# Full disks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 96 MB."""
    try:
        with small_disk(tmp_path / "disk", 96) as folder:
            yield folder
    except PermissionError as error:
        pytest.skip(f"no small disk to fill: {error}")


def test_a_full_disk_is_told_at_every_step_and_loses_nothing(disk: Path) -> None:
    result = sweep(disk, [0, 700_000])
    assert set(vars(result.found).values()) == {0}, (result.found, result.told)
    assert result.unsaid == []
    became = {outcome for _, outcome in result.outcomes}
    assert {"done", "told"} <= became <= {"done", "told", "told, kept beside"}


def test_rows_are_kept_beside_the_database_before_the_disk_is_quite_full(disk: Path) -> None:
    store = Store(disk / "reval.duckdb")
    store.prepare()
    append(store, 0)
    size = store.path.stat().st_size
    with filled(disk, store_module.ROOM_BYTES - 2_000_000):
        message = r"No space left on the disk but 30 MB\. Free disk space .* 4 responses are safe in .*taken in"
        with pytest.raises(StoreError, match=message):
            append(store, 1)
        with pytest.raises(NotStored, match="Free disk space"):
            store.prepare()
        assert len(spool.kept(store.spool)) == 1
        assert store.path.stat().st_size == size
    store.prepare()
    assert stored(store) == {0, 1}
    assert spool.kept(store.spool) == []


def test_only_what_is_not_committed_is_kept_beside(copied: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_record(4)
    part = part_of(batch)
    monkeypatch.setattr(store_module, "SLICE_BYTES", part.nbytes // 4)
    done = copied._append
    appended: list[int] = []

    def append_two(*given: Any) -> None:
        if len(appended) == 2:
            raise NotStored("The disk is full.")
        done(*given)
        appended.append(given[1].num_rows)

    monkeypatch.setattr(copied, "_append", append_two)
    with pytest.raises(StoreError, match="2 responses are safe in"):
        copied.append_batch(batch, part)
    (kept,) = spool.kept(copied.spool)
    assert spool.read(kept)[1] == part.slice(2)
    monkeypatch.undo()
    copied.prepare()
    assert stored(copied) == {0, 1, 2, 3, 4}


LIMITED = """
import resource, sys
from store_example import batch_record, part_of
from reval_core.errors import RevalError
from reval_core.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
store, round = Store(sys.argv[1]), 0
try:
    store.prepare()
    while True:
        batch = batch_record(round)
        store.append_batch(batch, part_of(batch, [20_000 + round] * 4))
        store.settle()
        print(round, flush=True)
        round += 1
except RevalError as error:
    print("told:", error)
"""


@pytest.mark.parametrize("megabytes", [1, 4])
def test_a_limit_on_the_size_of_files_is_told_and_loses_nothing(megabytes: int, tmp_path: Path) -> None:
    store = Store(tmp_path / "reval.duckdb")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(store.path), str(megabytes * 2**20)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    *acknowledged, told = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert told.startswith("told: ")
    assert "File too large" in told
    assert "Free disk space" in told
    store.prepare()
    assert stored(store) >= {int(line) for line in acknowledged}
    assert (megabytes == 1) == (acknowledged == [])  # an empty database has more than one
    assert not list(tmp_path.glob("reval.new*"))


# The clock -----------------------------------------------------------------------------------------------------------


def built_backwards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> store_example.Example:
    """The example under a clock that goes back by an hour whenever somebody looks at it."""
    time_is = [datetime(2026, 1, 1)]

    def now() -> datetime:
        time_is[0] -= timedelta(hours=1)
        return time_is[0]

    with monkeypatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith(("reval_core", "store_example")) and hasattr(module, "now"):
                patch.setattr(module, "now", now)
        return store_example.build(folder / "reval.duckdb")


TOLD_BY_THE_CLOCK = {
    "attempts.seconds",
    "problems.source",
    "run_trajectories.problem_source",
    "trajectories.correct",
    "trajectories.gold",
    "trajectories.problem_source",
    "trajectories.reward",
    "trajectories.status",
}
"""Columns of views, beside times, that a clock set back changes: how long an attempt took, and which of several gold
answers, sources or verdicts is the newest one to show."""


def decisions(store: Store) -> list[Any]:
    """What stages go by."""
    found: list[Any] = []
    for run in (store_example.RUN, store_example.FORK):
        found += [store.window(run, iteration, 8) for iteration in range(3)]
        found += [store.draw(run, 2, size=4, seed=1, update=update, capacity=8) for update in range(3)]
        with store.read() as opened:
            found += [stages.history(opened, run), runs.last_versions(opened, run)]
            found += list(runs.running_attempts(opened, run))
    return found


def shown(store: Store) -> dict[str, list[str]]:
    """The values of every column of the public views, but for times."""
    columns = {}
    with store.read() as opened:
        views = opened.execute("SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal")
        for (view,) in views.fetchall():
            table = opened.sql(f"SELECT * FROM {view}").to_arrow_table()
            for field in table.schema:
                if not pa.types.is_timestamp(field.type):
                    columns[f"{view}.{field.name}"] = sorted(map(repr, table.column(field.name).to_pylist()))
    return columns


@pytest.mark.long
def test_a_clock_set_back_changes_no_row_and_no_decision(
    example: store_example.Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = built_backwards(tmp_path, monkeypatch).store
    assert decisions(back) == decisions(example.store)
    expected, found = shown(example.store), shown(back)
    assert len(expected) > 100
    assert found.keys() == expected.keys()
    assert {name for name in expected if found[name] != expected[name]} <= TOLD_BY_THE_CLOCK


def test_attempts_and_leases_are_numbered_without_a_clock(copied: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, epochs = [], []
    for hours in (0, -30, 5, -1000):
        monkeypatch.setattr(runs, "now", lambda hours=hours: datetime(2026, 1, 1) + timedelta(hours=hours))
        with copied.write() as opened:
            if not numbers:
                store_example.add_run(opened, "run")
            given = {"git_commit": None, "versions": {}, "device": "cpu", "flow_run_id": None}
            numbers.append(runs.start_attempt(opened, "run", ProcessIdentity.mine(), **given))
            epochs.append(stages.take_lease(opened, "key", ProcessIdentity.mine()).epoch)
    assert numbers == [2, 3, 4, 5]
    assert epochs == [1, 2, 3, 4]
