"""One process writes or many read: who waits, for how long, and what they are told."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from store_example import batch_record, part_of

from reval_core.errors import StoreError, StoreLocked
from reval_core.exclusive import announced
from reval_core.store import Store


@pytest.mark.parametrize("mode", ["write", "read"])
def test_a_writer_that_waited_in_vain_names_the_process_that_holds_the_file(
    store: Store, hold: Callable[..., Any], mode: str
) -> None:
    other = hold(store.path, mode)
    message = rf"held by process {other.pid} \(.*python.*\) for more than 0\.2 s"
    with pytest.raises(StoreLocked, match=message), store.write():
        pass


def test_a_reader_that_waited_in_vain_names_the_writer(store: Store, hold: Callable[..., Any]) -> None:
    other = hold(store.path)
    with pytest.raises(StoreLocked, match=f"process {other.pid}"):
        store.query("SELECT 1")


def test_a_reader_waits_until_the_writer_is_done(store: Store, hold: Callable[..., Any]) -> None:
    other = hold(store.path)
    patient = Store(store.path, lock_wait_s=60)
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.extend(patient.query("SELECT 7 AS seven").to_pylist()))
    reader.start()
    time.sleep(0.3)
    assert found == []
    other.communicate(timeout=30)
    reader.join(timeout=60)
    assert found == [{"seven": 7}]


def test_a_writer_waits_until_readers_are_done(store: Store, hold: Callable[..., Any]) -> None:
    readers = [hold(store.path, "read") for _ in range(2)]
    store.query("SELECT 1")  # another reader is welcome
    batch = batch_record()
    patient = Store(store.path, lock_wait_s=60)
    writer = threading.Thread(target=lambda: patient.append_batch(batch, part_of(batch)))
    writer.start()
    for reader in readers:
        reader.communicate(timeout=30)
    writer.join(timeout=60)
    assert store.query("SELECT * FROM trajectories").num_rows == 4
    assert not store.spool.exists()


def test_a_read_within_a_read_does_not_wait_for_a_writer_that_waits_for_it(store: Store) -> None:
    patient, found = Store(store.path, lock_wait_s=60), []

    def read_twice() -> None:
        with patient.read(), announced(store.path.with_suffix(".writing"), time.monotonic()):
            found.extend(patient.query("SELECT 7 AS seven").to_pylist())

    reader = threading.Thread(target=read_twice, daemon=True)
    reader.start()
    reader.join(20)
    assert found == [{"seven": 7}]


def test_threads_of_one_process_read_and_write_in_turn(store: Store) -> None:
    failures: list[BaseException] = []

    def work(round: int) -> None:
        batch = batch_record(round)
        try:
            store.append_batch(batch, part_of(batch))
            store.query("SELECT count(*) FROM trajectories")
        except (StoreError, duckdb.Error) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(round,)) for round in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    assert store.query("SELECT * FROM trajectories").num_rows == 24


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "reval.duckdb"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"reval\.duckdb cannot be opened"):
        Store(path).query("SELECT 1")
