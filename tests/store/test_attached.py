"""Blocks in one instance of DuckDB hold the file, and leave it, as connections of their own do."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from reval_core.errors import NotStored, StoreError
from reval_core.store import attached
from reval_core.store.connection import Connections

OPENED = """
import sys, time, duckdb
ends = time.monotonic() + float(sys.argv[2])
while True:
    try:
        duckdb.connect(sys.argv[1]).close()
        break
    except duckdb.IOException:
        if time.monotonic() > ends:
            raise
        time.sleep(0.02)
print("opened")
"""


@pytest.fixture
def connections(tmp_path: Path) -> Connections:
    made = Connections(tmp_path / "it's.duckdb", lock_wait_s=1.0)
    with made.write() as connection:
        connection.execute("CREATE TABLE numbers (n INTEGER)")
    return made


def numbers(connections: Connections) -> int:
    with connections.read() as connection:
        return connection.execute("SELECT count(*) FROM numbers").fetchall()[0][0]


def opened_elsewhere(path: Path, *, within_s: float = 0.0) -> bool:
    """Whether another process can open the file to write, at once or within some seconds."""
    command = [sys.executable, "-c", OPENED, str(path), str(within_s)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout == "opened\n"


def test_the_file_is_held_in_a_block_and_free_between_blocks(connections: Connections) -> None:
    with connections.one_instance():
        with connections.write() as connection:
            connection.execute("INSERT INTO numbers VALUES (1)")
            assert not opened_elsewhere(connections.path)
        assert opened_elsewhere(connections.path, within_s=60)  # it lingers for a moment behind the block
        assert numbers(connections) == 1
    assert opened_elsewhere(connections.path)


def test_blocks_behind_each_other_share_one_opening(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "LINGER_S", 60.0)
    monkeypatch.setattr(attached, "HOLD_S", 60.0)
    opened: list[str] = []
    attach = attached.Instance._attach

    def noted(self: attached.Instance, mode: str, *, exactly: bool) -> None:
        before = self._attached_at
        attach(self, mode, exactly=exactly)
        if self._attached_at != before:
            opened.append(mode)

    monkeypatch.setattr(attached.Instance, "_attach", noted)
    with connections.one_instance():
        assert numbers(connections) == 0
        with connections.write() as connection:
            connection.execute("INSERT INTO numbers VALUES (1)")
        assert numbers(connections) == 1
        with connections.write(payloads=True) as connection:
            connection.execute("INSERT INTO numbers VALUES (2)")
        assert numbers(connections) == 2
        assert opened == ["READ_ONLY", "READ_WRITE"]
        with connections.read(strictly=True):
            assert opened == ["READ_ONLY", "READ_WRITE", "READ_ONLY"]


@pytest.mark.parametrize("strictly", [False, True])
def test_nothing_is_written_in_a_read_behind_a_write(connections: Connections, strictly: bool) -> None:
    with connections.one_instance():
        with connections.write() as connection:
            connection.execute("INSERT INTO numbers VALUES (1)")
        with (
            pytest.raises(duckdb.Error, match="read-only"),
            connections.read(strictly=strictly) as connection,
        ):
            connection.execute("INSERT INTO numbers VALUES (2)")
        with pytest.raises(duckdb.Error), connections.read(strictly=True) as connection:
            connection.execute("COMMIT; DROP TABLE numbers")
        assert numbers(connections) == 1


@pytest.mark.parametrize("mode", ["read", "write"])
def test_the_file_that_lingers_is_given_to_others_of_the_process(
    connections: Connections, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(attached, "LINGER_S", 60.0)
    other = Connections(connections.path, lock_wait_s=1.0)
    with connections.one_instance():
        with getattr(connections, mode)():
            pass
        with other.write() as connection:
            connection.execute("INSERT INTO numbers VALUES (1)")
        with getattr(connections, mode)():
            pass
        assert numbers(other) == 1


BUSY = """
import sys, time
from pathlib import Path
from reval_core.store.connection import Connections

store = Connections(Path(sys.argv[1]), lock_wait_s=60)
with store.one_instance():
    with store.write() as connection:
        connection.execute("INSERT INTO numbers VALUES (1)")
    print("busy", flush=True)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with store.write() as connection:
            connection.execute("INSERT INTO numbers VALUES (1)")
        with store.read() as connection:
            if connection.execute("SELECT count(*) FROM numbers WHERE n = 2").fetchall()[0][0] == 5:
                print("seen")
                break
"""


def test_others_have_their_turn_while_blocks_follow_each_other(connections: Connections) -> None:
    patient = Connections(connections.path, lock_wait_s=60)
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, str(connections.path)], stdout=subprocess.PIPE, text=True
    ) as busy:
        assert busy.stdout is not None
        assert busy.stdout.readline() == "busy\n"
        for _ in range(5):
            assert [numbers(patient) > 0 for _ in range(6)] == [True] * 6
            with patient.write() as connection:
                connection.execute("INSERT INTO numbers VALUES (2)")
        assert busy.stdout.read() == "seen\n"


def test_small_rows_stay_in_the_log_when_a_block_ends_and_settings_in_their_block(connections: Connections) -> None:
    log = connections.path.with_name(f"{connections.path.name}.wal")
    connections.settle(merge=lambda connection: True)
    with connections.one_instance():
        with connections.write(payloads=True) as connection:
            connection.execute("INSERT INTO numbers SELECT range FROM range(100000)")
        assert not log.exists()
        with connections.write() as connection:
            connection.execute("INSERT INTO numbers VALUES (1)")
        assert log.exists()
        assert numbers(connections) == 100_001
        assert log.exists()
        connections.settle(merge=lambda connection: False)
        assert not log.exists()
        with connections.read() as connection:
            found = connection.execute("SELECT value FROM duckdb_settings() WHERE name = 'max_vacuum_tasks'").fetchall()
    assert found != [("0",)]


def test_an_error_takes_everything_back_and_the_next_block_works(connections: Connections) -> None:
    with connections.one_instance():
        with pytest.raises(StoreError, match="refused the rows"), connections.write() as connection:
            connection.execute("INSERT INTO numbers VALUES (1)")
            connection.execute("SELECT * FROM nowhere")
        assert opened_elsewhere(connections.path)
        assert numbers(connections) == 0


def test_a_read_inside_a_block_sees_what_is_committed(connections: Connections) -> None:
    with connections.one_instance():
        with connections.read() as outer:
            assert numbers(connections) == 0
            assert outer.execute("SELECT count(*) FROM numbers").fetchall() == [(0,)]
            with pytest.raises(NotStored, match="this one writes"), connections.write():
                pytest.fail("a write began inside a read")
        assert opened_elsewhere(connections.path)


def test_a_file_held_by_another_process_is_waited_for(connections: Connections) -> None:
    code = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with (
        connections.one_instance(),
        subprocess.Popen(
            [sys.executable, "-c", code, str(connections.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"process {other.pid}"):
            numbers(connections)
        other.communicate()
        assert numbers(connections) == 0


def test_a_missing_table_is_an_error_of_the_statement_as_before(connections: Connections) -> None:
    with connections.one_instance(), pytest.raises(duckdb.CatalogException), connections.read() as connection:
        connection.execute("SELECT * FROM nowhere")


ASKED = """
import os, random, signal, sys, threading, time
from pathlib import Path
from reval_core.store.connection import Connections

class Asked(BaseException): ...

def ask(*_):
    raise Asked

store, draw, told = Connections(Path(sys.argv[1])), random.Random(0), []
signal.signal(signal.SIGTERM, ask)
with store.one_instance():
    for number in range(60):
        try:
            threading.Timer(draw.uniform(0, 0.05), os.kill, (os.getpid(), signal.SIGTERM)).start()
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with store.write() as connection:
                    connection.execute("INSERT INTO t SELECT 1 FROM range(100)")
                with store.read() as connection:
                    connection.execute("SELECT count(*) FROM t").fetchall()
        except (Asked, KeyboardInterrupt) as error:
            told.append(type(error).__name__)
print(len(told), "KeyboardInterrupt" in told)
"""


def test_a_signal_at_any_moment_is_passed_on_as_one(tmp_path: Path) -> None:
    """DuckDB raises a RuntimeError in its place, also where a block attaches the file or lets it go."""
    path = tmp_path / "s.duckdb"
    with Connections(path).write() as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS v FROM range(300_000)")  # a log that takes time to read
    done = subprocess.run([sys.executable, "-c", ASKED, str(path)], capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["60", "True"], done.stderr
