"""The table of stages judges what is done, and an epoch keeps zombies from writing into it."""

import duckdb
import pytest

from reval_core.errors import LeaseLost
from reval_core.process import ProcessIdentity
from reval_core.store import Store, stages
from reval_core.store.stages import Lease

ME = ProcessIdentity.mine()
ZOMBIE = ProcessIdentity(4_000_000, ME.host, 1.0)


def _commit(connection: duckdb.DuckDBPyConnection, lease: Lease, output: dict[str, int]) -> None:
    stages.commit(connection, lease, "generate", {}, output, seconds=1.0, run_id="r", attempt=1)


def test_a_committed_stage_is_found_with_its_output(store: Store) -> None:
    with store.write() as connection:
        assert stages.find(connection, "key") is None
        _commit(connection, stages.take_lease(connection, "key", ME), {"answer": 42})
        assert stages.find(connection, "key") == {"answer": 42}
        assert stages.holder(connection, "key") is None


def test_an_older_epoch_cannot_commit_and_its_rows_go_with_it(store: Store) -> None:
    with store.write() as connection:
        old = stages.take_lease(connection, "key", ZOMBIE)
    with store.write() as connection:
        new = stages.take_lease(connection, "key", ME)
    assert new.epoch == old.epoch + 1

    def write_as_zombie() -> None:
        with store.write() as connection:
            connection.execute("INSERT INTO store.events VALUES ('r', 1, 0, 'of the zombie', '', now()::TIMESTAMP)")
            _commit(connection, old, {"answer": 1})

    with pytest.raises(LeaseLost, match=f"process {ME.pid} on {ME.host}"):
        write_as_zombie()
    assert store.query("SELECT * FROM store.events").num_rows == 0
    with store.write() as connection:
        _commit(connection, new, {"answer": 2})
        assert stages.find(connection, "key") == {"answer": 2}


def test_an_older_epoch_cannot_commit_after_the_newer_one_has_finished(store: Store) -> None:
    with store.write() as connection:
        old = stages.take_lease(connection, "key", ZOMBIE)
        _commit(connection, stages.take_lease(connection, "key", ME), {"answer": 2})
    with pytest.raises(LeaseLost, match="has finished"), store.write() as connection:
        _commit(connection, old, {"answer": 1})


def test_an_epoch_is_never_given_twice(store: Store) -> None:
    with store.write() as connection:
        first = stages.take_lease(connection, "key", ME)
        stages.end_lease(connection, first)
        assert stages.take_lease(connection, "key", ME).epoch == first.epoch + 1


def test_an_old_holder_cannot_end_a_newer_lease(store: Store) -> None:
    with store.write() as connection:
        old = stages.take_lease(connection, "key", ZOMBIE)
        stages.take_lease(connection, "key", ME)
        stages.end_lease(connection, old)
        assert stages.holder(connection, "key") == ME


def test_work_done_twice_keeps_the_first_row(store: Store) -> None:
    with store.write() as connection:
        _commit(connection, stages.take_lease(connection, "key", ME), {"answer": 1})
        _commit(connection, stages.take_lease(connection, "key", ME), {"answer": 2})
        assert stages.find(connection, "key") == {"answer": 1}
