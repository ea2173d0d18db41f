"""The stage decorator: who runs a body, who finds its result, and who may write it."""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from reval_core.errors import LeaseLost, StoreError
from reval_core.identity import digest
from reval_core.process import ProcessIdentity
from reval_core.store import Store, runs, stages
from reval_core.store.runs import RunRecord
from tasks.commit import Commit
from tasks.run import Here, Run
from tasks.stage import Stage, stage

KEY = digest("square", {"number": 3})
NOBODY: Any = SimpleNamespace()


@dataclass(frozen=True)
class Number:
    """The reference of the stage under test."""

    value: int


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "reval.duckdb")
    made.prepare()
    return made


@pytest.fixture
def attempt(store: Store) -> Callable[..., Run]:
    """Makes an attempt at a run that has a store and nothing else."""

    def start(run_id: str = "run-1", process: ProcessIdentity | None = None) -> Run:
        process = process or ProcessIdentity.mine()
        with store.write() as connection:
            record = runs.find(connection, run_id)
            if record is None:
                record = RunRecord(run_id, run_id, {}, "cfg_1", 0, "pol_base", "ver_1", {})
                runs.add(connection, record)
            number = runs.start_attempt(
                connection, run_id, process, git_commit=None, versions={}, device="cpu", flow_run_id=None
            )
            history = stages.history(connection, run_id)
        return Run(
            record=record, attempt=number, config=NOBODY, home=NOBODY, store=store, process=process, base=NOBODY,
            tokenizer=NOBODY, renderer=NOBODY, problems={}, weights={}, policies=NOBODY, engine=NOBODY, grader=NOBODY,
            evaluation_graders={}, progress=NOBODY, history=history,
        )  # fmt: skip

    return start


class Body:
    """A stage's body that counts its calls."""

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self.calls = 0
        self.during = during
        self.write: Callable[[Any], None] = lambda connection: None

    def __call__(self, here: Here, number: int) -> Commit[Number]:
        """Squares."""
        self.calls += 1
        self.during()
        return Commit(Number(number * number), lambda connection: self.write(connection))


def square(body: Body, **options: Any) -> Stage[[int], Number]:
    made = stage("square", reference=Number, inputs=lambda here, number: {"number": number}, **options)
    return made(body)


def links(store: Store) -> list[tuple[Any, ...]]:
    found = store.query("SELECT run_id, iteration, executed, attempt FROM store.stage_links ORDER BY ALL")
    return [tuple(row.values()) for row in found.to_pylist()]


@pytest.fixture
def stranger() -> Iterator[ProcessIdentity]:
    """Another process that lives."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield ProcessIdentity.of(process.pid)
        process.kill()


def test_a_body_runs_once(store: Store, attempt: Callable[..., Run]) -> None:
    body = Body()
    run = attempt()
    assert square(body)(Here(run, 0), 3) == Number(9)
    assert square(body)(Here(run, 0), 3) == Number(9)
    assert body.calls == 1
    assert run.executed == ["square@0"]
    again = attempt()
    assert square(body)(Here(again, 0), 3) == Number(9)
    assert (body.calls, again.executed) == (1, [])
    assert links(store) == [("run-1", 0, True, 1)]


def test_what_another_run_did_is_linked(store: Store, attempt: Callable[..., Run]) -> None:
    body = Body()
    square(body)(Here(attempt(), 0), 3)
    other = attempt("run-2")
    assert square(body)(Here(other, 5), 3) == Number(9)
    assert (body.calls, other.executed) == (1, [])
    assert other.history[5, "square", ""] == {"value": 9}
    assert links(store) == [("run-1", 0, True, 1), ("run-2", 5, False, 1)]


def test_history_stands_whatever_has_changed_since(attempt: Callable[..., Run]) -> None:
    body, run = Body(), attempt()
    square(body)(Here(run, 0), 3)
    assert square(body)(Here(run, 0), 4) == Number(9)  # this iteration has this stage
    assert square(body, historic=False)(Here(run, 0), 4) == Number(16)  # this one is looked up by key alone
    assert square(body, historic=False)(Here(run, 0), 5) == Number(25)
    assert body.calls == 3


def test_the_last_rows_come_with_the_stage_or_not_at_all(store: Store, attempt: Callable[..., Run]) -> None:
    body, run = Body(), attempt()

    def write(connection: Any) -> None:
        runs.add_event(connection, run.run_id, run.attempt, 0, "row", "written")
        if body.calls == 1:
            raise duckdb.IOException("disk full")

    body.write = write
    with pytest.raises(StoreError, match="disk full"):
        square(body)(Here(run, 0), 3)
    assert store.query("SELECT * FROM store.events").num_rows == store.query("SELECT * FROM store.stages").num_rows == 0
    assert square(body)(Here(run, 0), 3) == Number(9)
    assert store.query("SELECT * FROM store.events").num_rows == store.query("SELECT * FROM store.stages").num_rows == 1


def test_a_body_that_fails_gives_its_lease_back(store: Store, attempt: Callable[..., Run]) -> None:
    def fail() -> None:
        with store.read() as connection:
            assert stages.holder(connection, KEY) == ProcessIdentity.mine()
        raise ValueError("no")

    run = attempt()
    with pytest.raises(ValueError, match="no"):
        square(Body(fail))(Here(run, 0), 3)
    with store.read() as connection:
        assert stages.holder(connection, KEY) is None
    assert (run.executed, run.history) == ([], {})
    assert square(Body())(Here(run, 0), 3) == Number(9)


def test_a_result_is_dropped_when_the_lease_was_lost(
    store: Store, attempt: Callable[..., Run], stranger: ProcessIdentity
) -> None:
    def overtaken() -> None:
        with store.write() as connection:
            stages.take_lease(connection, KEY, stranger)

    body, run = Body(overtaken), attempt()
    body.write = lambda connection: runs.add_event(connection, run.run_id, run.attempt, 0, "row", "written")
    with pytest.raises(LeaseLost, match=rf"taken over by process {stranger.pid} .*result is dropped"):
        square(body)(Here(run, 0), 3)
    for table in ("stages", "stage_links", "events"):
        assert store.query(f"SELECT * FROM store.{table}").num_rows == 0
    with store.read() as connection:
        assert stages.holder(connection, KEY) == stranger  # it is not the loser's to give back


def test_a_living_holder_is_waited_for_and_its_result_used(
    store: Store, attempt: Callable[..., Run], stranger: ProcessIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    with store.write() as connection:
        lease = stages.take_lease(connection, KEY, stranger)
    body, run = Body(), attempt()

    def finish() -> None:
        deadline = time.monotonic() + 30
        while "waiting for it" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.02)
        with store.write() as connection:
            stages.commit(
                connection, lease, "square", {"number": 3}, {"value": 99}, seconds=1.0, run_id=None, attempt=None
            )

    other = threading.Thread(target=finish)
    with caplog.at_level(logging.WARNING, logger="tasks.stage"):
        other.start()
        assert square(body)(Here(run, 0), 3) == Number(99)
        other.join()
    assert f"process {stranger.pid} is computing the same square" in caplog.text
    assert (body.calls, run.executed) == (0, [])
    assert links(store) == [("run-1", 0, False, 1)]


def test_a_dead_holder_stops_nobody(store: Store, attempt: Callable[..., Run]) -> None:
    mine = ProcessIdentity.mine()
    for holder in (ProcessIdentity(mine.pid, mine.host, 1.0), ProcessIdentity(7, "another-host", 1.0)):
        with store.write() as connection:
            stages.take_lease(connection, KEY, holder)
        body = Body()
        assert square(body, present=lambda here, number: False)(Here(attempt(holder.host), 0), 3) == Number(9)
        assert body.calls == 1


def test_an_output_that_is_gone_is_made_again(store: Store, attempt: Callable[..., Run], tmp_path: Path) -> None:
    file = tmp_path / "made"
    body = Body(lambda: file.write_text("here"))
    made = square(body, historic=False, present=lambda here, number: file.exists())
    run = attempt()
    assert made(Here(run, 0), 3) == made(Here(run, 0), 3) == Number(9)
    assert body.calls == 1
    file.unlink()
    assert made(Here(run, 0), 3) == Number(9)
    assert (body.calls, file.exists()) == (2, True)
    assert store.query("SELECT * FROM store.stages").num_rows == 1


def test_a_lease_that_cannot_be_ended_does_not_hide_the_error(
    store: Store, attempt: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def held(*_: Any) -> None:
        raise StoreError("held by another program")

    def fail() -> None:
        monkeypatch.setattr(stages, "end_lease", held)
        raise ValueError("the real error")

    with pytest.raises(ValueError, match="the real error"):
        square(Body(fail))(Here(attempt(), 0), 3)
    assert "could not be ended: held by another program" in caplog.text
