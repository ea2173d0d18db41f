"""Snapshots beside the live database, and queries that are moved to them."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from reval_core.errors import StoreError
from reval_core.store import answers, copies, snapshots
from reval_core.store.connection import Connections
from tests.store.store_example import Example, batch_record, build, part_of

SLOW = "SELECT count(*) AS n FROM range(3000) a, range(3000) b, range(3000) c WHERE a.range + b.range = c.range"


@pytest.fixture
def example(tmp_path: Path) -> Example:
    return build(tmp_path / "reval.duckdb")


def tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every base table's rows, in an order of their own."""
    with duckdb.connect(path, read_only=True) as connection:
        names = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'store'").fetchall()
        return {n: connection.execute(f"SELECT * FROM store.{n} ORDER BY ALL").fetchall() for (n,) in names}


def test_a_snapshot_has_every_row_view_and_comment(example: Example) -> None:
    found = example.store.snapshot()
    assert found.payloads
    assert found.path == example.store.path.with_name("snapshot.duckdb")
    copied, original = tables(found.path), tables(example.store.path)
    assert [row[1] for row in copied.pop("snapshot")] == [True]
    assert copied == original
    comments = (
        "SELECT table_name, column_name, comment FROM duckdb_columns() "
        "WHERE NOT internal AND table_name <> 'snapshot' ORDER BY ALL"
    )
    with duckdb.connect(found.path, read_only=True) as connection:
        assert connection.execute(comments).fetchall() == [
            tuple(row.values()) for row in example.store.query(comments).to_pylist()
        ]
        assert connection.execute("SELECT count(completion) FROM trajectories").fetchall() == [(18,)]


def test_a_snapshot_without_payloads_answers_what_needs_none_and_refuses_the_rest(example: Example) -> None:
    found = example.store.snapshot(payloads=False)
    with duckdb.connect(found.path, read_only=True) as connection:
        assert connection.execute("SELECT count(*), count(question) FROM trajectories").fetchall() == [(18, 18)]
        assert connection.execute("SELECT count(*) FROM rounds").fetchall() == [(6,)]
        with pytest.raises(duckdb.Error, match="reval store snapshot --payloads"):
            connection.execute("SELECT completion FROM trajectories").fetchall()


def test_whoever_has_a_snapshot_open_keeps_it_while_a_new_one_is_published(example: Example) -> None:
    first = example.store.snapshot()
    with duckdb.connect(first.path, read_only=True) as connection:
        batch = batch_record(7)
        example.store.append_batch(batch, part_of(batch))
        example.store.snapshot()
        assert connection.execute("SELECT count(*) FROM store.trajectories").fetchall() == [(18,)]
    with duckdb.connect(first.path, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM store.trajectories").fetchall() == [(22,)]


def test_payloads_are_copied_in_slices_and_counted(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    monkeypatch.setattr(copies, "SLICE_BYTES", 100)  # 70 tokens are 560 bytes: five slices of four, the last of two
    snapshots.publish(example.store._connections, payloads=True, progress=shares.append)
    assert shares == sorted(shares)
    assert len(shares) > 3
    assert shares[-1] == 1
    assert tables(snapshots.path_of(example.store.path))["payloads"] == tables(example.store.path)["payloads"]


def test_a_snapshot_that_cannot_be_written_leaves_the_one_before(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = example.store.snapshot()
    monkeypatch.setattr(copies, "_sync", lambda to: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(StoreError, match="disk full"):
        example.store.snapshot()
    assert snapshots.find(example.store.path) == before
    assert not list(example.store.path.parent.glob("*.tmp*"))


def test_a_folder_that_cannot_be_written_is_told_by_both_doors(example: Example) -> None:
    (example.store.path.with_name("snapshot.lock")).mkdir()
    for publish in (example.store.snapshot, lambda: snapshots.publish(Connections(example.store.path))):
        with pytest.raises(StoreError, match=r"The snapshot .*snapshot\.duckdb cannot be written"):
            publish()


def test_a_quick_query_is_asked_of_the_live_database(example: Example) -> None:
    answer = example.store.ask("SELECT count(*) AS n FROM trajectories")
    assert (answer.snapshot, answer.note, answer.table.to_pylist()) == (None, None, [{"n": 18}])
    assert snapshots.find(example.store.path) is None


def test_a_slow_query_is_moved_to_a_snapshot_whose_age_is_told(
    example: Example, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answers, "LIVE_S", 0.001)
    with caplog.at_level(logging.WARNING):
        table = example.store.query(SLOW)
    assert table.to_pylist() == [{"n": 3000 * 3001 // 2}]
    assert re.search(r"snapshot that is \d+ s old", caplog.text)


def test_a_moved_query_uses_a_young_snapshot_and_renews_an_old_one(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "LIVE_S", 0.001)
    slow = f"SELECT (SELECT count(*) FROM store.trajectories) AS stored, ({SLOW}) AS n"
    first = example.store.snapshot()
    batch = batch_record(7)
    example.store.append_batch(batch, part_of(batch))
    answer = example.store.ask(slow)
    assert answer.snapshot == first
    assert answer.table.to_pylist()[0]["stored"] == 18
    monkeypatch.setattr(answers, "MOST_AGE_S", 0.0)
    answer = example.store.ask(slow)
    assert answer.snapshot != first
    assert answer.table.to_pylist()[0]["stored"] == 22


def test_a_moved_query_for_texts_makes_a_snapshot_that_has_them(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "LIVE_S", 0.001)
    monkeypatch.setattr(snapshots, "FEW_BYTES", 0)
    example.store.snapshot()
    answer = example.store.ask(f"SELECT max(completion) AS text, ({SLOW}) AS n FROM trajectories")
    assert answer.table.to_pylist()[0]["text"] == "answer 3"
    assert answer.snapshot is not None
    assert answer.snapshot.payloads


def test_a_stage_asks_the_live_database_however_long_it_takes(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "LIVE_S", 0.001)
    assert example.store.query_live(SLOW).num_rows == 1
    assert snapshots.find(example.store.path) is None


def test_results_come_as_pandas_and_polars(example: Example) -> None:
    assert example.store.pandas("SELECT count(*) AS n FROM trajectories")["n"].tolist() == [18]
    pytest.importorskip("polars")
    assert example.store.polars("SELECT count(*) AS n FROM trajectories")["n"].to_list() == [18]


READER = """
import sys
sys.path.insert(0, sys.argv[1])
from reval_core.store import Store
from pathlib import Path
store, enough = Store(sys.argv[2], lock_wait_s=60), Path(sys.argv[3])
store.query("SELECT count(*) FROM trajectories")
print("reading", flush=True)
while not enough.exists():
    store.query("SELECT count(*) FROM trajectories")
print("done")
"""


@pytest.mark.long
def test_readers_that_never_pause_leave_a_writer_its_turn(example: Example) -> None:
    root, enough = Path(__file__).parents[2], example.store.path.with_name("enough")
    command = [sys.executable, "-c", READER, str(root), str(example.store.path), str(enough)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [reader.stdout.readline() for reader in readers if reader.stdout] == ["reading\n"] * 3
    try:
        for number in range(20):
            batch = batch_record(10 + number)
            example.store.append_batch(batch, part_of(batch), wait_s=30)
    finally:
        enough.touch()
    assert [reader.communicate(timeout=120)[0] for reader in readers] == ["done\n"] * 3
    assert example.store.query("SELECT count(*) AS n FROM store.trajectories").to_pylist() == [{"n": 18 + 4 * 20}]
