"""Responses go in whole or not at all, and once however often they are appended."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from store_example import batch_record, names, part_of, verdict_rows

from reval_core.errors import StoreError
from reval_core.store import Store, trajectories

TABLES = ("batches", "prompts", "trajectories", "payloads", "verdicts")


def _counts(store: Store) -> dict[str, int]:
    return {name: store.query(f"SELECT count(*) AS n FROM store.{name}").to_pylist()[0]["n"] for name in TABLES}


def test_appending_twice_changes_nothing(store: Store) -> None:
    batch = batch_record()
    store.append_batch(batch, part_of(batch), run_id="r", attempt=1)
    once = {name: store.query(f"SELECT * FROM store.{name}") for name in TABLES}
    store.append_batch(batch, part_of(batch), run_id="another", attempt=2)
    assert {name: store.query(f"SELECT * FROM store.{name}") for name in TABLES} == once
    assert _counts(store) == {"batches": 1, "prompts": 2, "trajectories": 4, "payloads": 4, "verdicts": 0}


def test_overlapping_parts_make_one_batch(store: Store) -> None:
    batch = batch_record()
    part = part_of(batch)
    store.append_batch(batch, part.slice(0, 3))
    with store.read() as connection:
        assert trajectories.stored_samples(connection, batch.batch_id) == {("prb_0", 0), ("prb_0", 1), ("prb_1", 0)}
    store.append_batch(batch, part.slice(1, 3))
    assert _counts(store)["trajectories"] == _counts(store)["payloads"] == 4


def test_tokens_come_back_as_they_went_in(store: Store) -> None:
    batch = batch_record()
    store.append_batch(batch, part_of(batch, (2, 0, 4, 5), truncated=(3,)))
    wanted = names(batch)
    with store.read() as connection:
        found = trajectories.tokens(connection, [*wanted, wanted[0]])
    assert [found[name].response_ids.tolist() for name in wanted] == [[0, 1], [], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
    assert [found[name].prompt_ids.tolist() for name in wanted] == [[1, 2, 3]] * 4
    assert [found[name].truncated for name in wanted] == [False, False, False, True]
    largest = store.query("SELECT max(seed) AS seed FROM store.trajectories").to_pylist()[0]["seed"]
    assert largest == 2**64 - 1


def test_a_missing_payload_is_named(store: Store) -> None:
    with store.read() as connection, pytest.raises(StoreError, match="trj_unknown"):
        trajectories.tokens(connection, ["trj_unknown"])


def test_verdicts_that_stand_stay(store: Store) -> None:
    batch = batch_record()
    store.append_batch(batch, part_of(batch))
    with store.write() as connection:
        trajectories.add_verdicts(connection, "ver_1", verdict_rows(batch, (1, 0, 0, 0)))
        trajectories.add_verdicts(connection, "ver_1", verdict_rows(batch, (0, 1, 1, 1)))
    correct = store.query("SELECT count(*) AS n FROM verdicts WHERE correct").to_pylist()[0]["n"]
    assert correct == 1


def test_a_part_with_other_columns_is_refused_and_not_kept(store: Store) -> None:
    with pytest.raises(StoreError, match="expected"):
        store.append_batch(batch_record(), pa.table({"trajectory_id": ["a"]}))
    assert not store.spool.exists()


def test_an_error_inside_a_transaction_takes_all_of_it_back(store: Store) -> None:
    batch = batch_record()

    def append_and_fail() -> None:
        with store.write() as connection:
            trajectories.append_part(connection, batch, part_of(batch), run_id=None, attempt=None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        append_and_fail()
    assert set(_counts(store).values()) == {0}


def test_a_killed_process_leaves_nothing_of_its_transaction(store: Store) -> None:
    script = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from store_example import batch_record, part_of
from reval_core.store import Store, trajectories
store = Store(sys.argv[1])
committed, killed = batch_record(0), batch_record(1)
store.append_batch(committed, part_of(committed))
with store.write() as connection:
    trajectories.append_part(connection, killed, part_of(killed), run_id=None, attempt=None)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    here = Path(__file__).resolve()
    command = [sys.executable, "-c", script, str(store.path), str(here.parent)]
    done = subprocess.run(command, cwd=here.parents[2], timeout=60, check=False)
    assert done.returncode == -9
    store.prepare()
    assert store.query("SELECT round FROM store.batches").to_pylist() == [{"round": 0}]
    assert _counts(store)["trajectories"] == _counts(store)["payloads"] == 4
