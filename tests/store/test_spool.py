"""What cannot be committed is kept beside the database and taken in later: nothing lost, nothing doubled."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from store_example import batch_record, part_of

from reval_core.errors import StoreError
from reval_core.store import Store, spool
from reval_core.store.trajectories import PART_SCHEMA


def _stored(store: Store) -> tuple[int, int]:
    rows = store.query(
        "SELECT (SELECT count(*) FROM store.trajectories) AS narrow, (SELECT count(*) FROM store.payloads) AS payloads"
    ).to_pylist()
    return rows[0]["narrow"], rows[0]["payloads"]


def test_a_part_is_kept_while_another_process_holds_the_database(store: Store, hold: Callable[..., Any]) -> None:
    batch = batch_record()
    other = hold(store.path)
    with pytest.raises(StoreError, match=rf"process {other.pid} .*4 responses are safe in .*\.arrow"):
        store.append_batch(batch, part_of(batch), run_id="r", attempt=3)
    assert len(spool.kept(store.spool)) == 1
    other.communicate(timeout=30)
    store.prepare()
    assert _stored(store) == (4, 4)
    assert spool.kept(store.spool) == []
    assert store.query("SELECT run_id, attempt FROM store.batches").to_pylist() == [{"run_id": "r", "attempt": 3}]


def test_a_part_is_kept_while_the_database_cannot_be_opened(store: Store) -> None:
    batch = batch_record()
    aside = store.path.rename(store.path.with_suffix(".aside"))
    store.path.mkdir()
    with pytest.raises(StoreError, match="will be taken in at the next start"):
        store.append_batch(batch, part_of(batch))
    store.path.rmdir()
    aside.rename(store.path)
    store.prepare()
    assert _stored(store) == (4, 4)


def test_a_kept_part_that_was_stored_after_all_is_not_doubled(store: Store) -> None:
    batch = batch_record()
    store.append_batch(batch, part_of(batch).slice(0, 3))
    for start in (0, 2):
        spool.keep(store.spool, batch, part_of(batch).slice(start, 2), run_id=None, attempt=None)
    store.prepare()
    store.prepare()
    assert _stored(store) == (4, 4)
    assert spool.kept(store.spool) == []


def test_a_kept_part_comes_back_as_it_was(tmp_path: Path) -> None:
    batch = batch_record(3, sampling={"temperature": 0.7, "stop_ids": [1]})
    path = spool.keep(tmp_path, batch, part_of(batch), run_id="r", attempt=2)
    found, part, run_id, attempt = spool.read(path)
    assert (found, run_id, attempt) == (batch, "r", 2)
    assert found.batch_id == batch.batch_id
    assert part == part_of(batch)


def test_a_half_written_part_is_not_taken_in(store: Store) -> None:
    store.spool.mkdir()
    (store.spool / "bat_0-0.tmp").write_bytes(b"ARROW1")
    store.prepare()
    assert _stored(store) == (0, 0)


def test_a_damaged_part_is_put_aside_and_the_others_are_taken_in(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    batch = batch_record()
    whole = spool.keep(store.spool, batch, part_of(batch).slice(0, 2), run_id=None, attempt=None)
    other = spool.keep(store.spool, batch, part_of(batch).slice(2, 2), run_id=None, attempt=None)
    other.write_bytes(other.read_bytes()[:-100])
    store.prepare()
    assert _stored(store) == (2, 2)
    assert not whole.exists()
    assert other.with_suffix(".damaged").exists()
    assert f"{other} cannot be taken in" in caplog.text
    store.prepare()  # and it is not tried again
    assert _stored(store) == (2, 2)


def test_a_part_that_the_database_refuses_stops_no_later_start(store: Store) -> None:
    batch = batch_record()
    wrong = part_of(batch).set_column(8, "finish_reason", pa.array(["abort"] * 4))
    assert wrong.schema == PART_SCHEMA
    path = spool.keep(store.spool, batch, wrong, run_id=None, attempt=None)
    store.prepare()
    assert path.with_suffix(".damaged").exists()
    assert _stored(store) == (0, 0)


def test_a_part_that_cannot_be_opened_just_now_waits_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_record()
    path = spool.keep(store.spool, batch, part_of(batch), run_id=None, attempt=None)

    def too_many(self: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", too_many)
        with pytest.raises(OSError, match="Too many open files"):
            store.prepare()
    assert path.exists()
    store.prepare()
    assert _stored(store) == (4, 4)


def test_rows_that_the_database_refuses_are_told_as_such_and_not_kept(store: Store) -> None:
    batch = batch_record()
    wrong = part_of(batch).set_column(8, "finish_reason", pa.array(["abort"] * 4))
    with pytest.raises(StoreError, match=r"refused the rows: .*CHECK constraint"):
        store.append_batch(batch, wrong)
    assert not store.spool.exists()


def test_when_nothing_can_be_written_the_error_says_both(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_record()
    store.path.rename(store.path.with_suffix(".aside"))
    store.path.mkdir()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"neither to .*No space left on device.*sampled anew"):
        store.append_batch(batch, part_of(batch))
    assert list(store.spool.iterdir()) == []
