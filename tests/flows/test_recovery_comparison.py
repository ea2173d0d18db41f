"""The comparison with which `benchmarks/recovery.py` ends finds nothing in two equal runs, and whatever is wrong."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from small_run import Finished, value

from benchmarks.recovery import Chain, State, compare
from reval_core.home import Home
from reval_core.store import Store


@pytest.fixture
def chain(finished: Finished, tmp_path: Path) -> Chain:
    """The finished run in the place of both."""
    chain = Chain(tmp_path, tmp_path / "small.yaml", 0)
    for home in (chain.plain, chain.chain):
        shutil.copytree(finished.home.root, home.root)
    return chain


def found(chain: Chain, again: int = 0) -> dict[str, int]:
    """What is not 0, where the run that was killed finished so many responses again."""
    needed = value(chain.plain, "SELECT count(*) FROM trajectories")
    state = State(seed=0, needed=needed, last={"sampled": needed + again, "again": again})
    return {name: count for name, count in compare(chain, state).items() if count}


def write(home: Home, *statements: str) -> None:
    with Store(home.database).write() as connection:
        for statement in statements:
            connection.execute(statement)


def test_equal_runs_have_no_difference(chain: Chain) -> None:
    assert found(chain) == {}


def test_a_response_that_was_generated_again_is_found(chain: Chain) -> None:
    assert found(chain, again=2) == {
        "stored responses generated again": 2,
        "responses generated beside the needed and the lost": 2,
    }


def test_rows_that_are_missing_doubled_or_other_are_found(chain: Chain) -> None:
    one = "(SELECT min(trajectory_id) FROM store.trajectories)"
    other = "(SELECT max(trajectory_id) FROM store.trajectories)"
    write(
        chain.chain,
        f"DELETE FROM store.trajectories WHERE trajectory_id = {one}",
        f"UPDATE store.payloads SET response_ids = [1] WHERE trajectory_id = {other}",
        f"INSERT INTO store.payloads SELECT * FROM store.payloads WHERE trajectory_id = {other}",
        "UPDATE store.replay_entries SET reward_used = 7 WHERE position = 0 AND iteration = 0",
        "UPDATE store.attempts SET status = 'failed'",
    )
    assert found(chain) == {
        "responses missing": 1,
        "responses doubled": 1,
        "responses with other tokens or seeds": 2,
        "replay entries missing, doubled or other": 2,
        "attempts not recorded as what they were": 1,
    }


def test_points_and_files_are_compared(chain: Chain) -> None:
    with closing(sqlite3.connect(chain.chain.root / "mlflow.db")) as database, database:
        database.execute("DELETE FROM metrics WHERE key = 'accuracy' AND step = 1")
        database.execute(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
            "SELECT key, value, timestamp + 1, run_uuid, step, is_nan FROM metrics WHERE key = 'loss' AND step = 2"
        )
        database.execute("UPDATE metrics SET value = value + 1 WHERE key = 'grad_norm' AND step = 3")
        database.execute("UPDATE metrics SET value = value + 1 WHERE key = 'seconds_learn'")
    folder = value(chain.chain, "SELECT folder FROM policies WHERE folder IS NOT NULL ORDER BY iteration DESC LIMIT 1")
    weights = chain.chain.root / folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (chain.chain.policies / "pol_0.tmp").touch()
    assert found(chain) == {
        "MLflow points missing": 1,
        "MLflow points doubled": 1,
        "MLflow points that differ by more than rounding, times aside": 2,  # a doubled point has two values
        "last model.safetensors with other bytes": 1,
        "files left half done or waiting": 1,
    }
