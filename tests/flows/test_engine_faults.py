"""Rollout engines that give something else than they were asked for, and sampling that is cut short."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_run import BATCH, changed, rows, sampled, train, value

from reval_core.config import Config
from reval_core.errors import RolloutError, StoreLocked
from reval_core.home import Home
from reval_core.rollouts import Sample
from reval_core.rollouts.transformers_engine import TransformersEngine
from reval_core.store import Store

STALE = '''
"""An engine that keeps the first weights that it was given."""

import copy

from reval_core.rollouts.transformers_engine import TransformersEngine


class Stale(TransformersEngine):
    copies_weights = True
    first = None

    def load(self, policy_id, model):
        self.first = self.first or copy.deepcopy(model)
        super().load(policy_id, self.first)
'''

Twist = Callable[[list[Sample]], list[Sample]]

pytestmark = pytest.mark.long


@pytest.fixture
def one_round(small: Config) -> Config:
    return changed(small, "run.iterations=1")


def twisted(monkeypatch: pytest.MonkeyPatch, twist: Twist) -> None:
    """Let the engine give what `twist` makes of its samples."""
    honest = TransformersEngine.sample

    def sample(self: TransformersEngine, requests: Any, settings: Any) -> Iterator[Sample]:
        yield from twist(list(honest(self, requests, settings)))

    monkeypatch.setattr(TransformersEngine, "sample", sample)


@pytest.mark.parametrize(
    ("twist", "message", "stored"),
    [
        (lambda done: done[:-1], r"ended without 1 of the responses it was asked for, the first is sample", BATCH - 1),
        (lambda done: [*done, done[2]], r"which was not asked for or came before", BATCH),
        (lambda done: [*done[:3], replace(done[3], token_ids=())], r"without a token", 3),
        (lambda done: [*done[:3], replace(done[3], finish_reason="abort")], r"finish_reason 'abort'", 3),  # type: ignore[arg-type]
        (lambda done: [replace(done[0], policy_id="pol_0")], r"by the weights of pol_0, not of pol_", 0),
        (
            lambda done: [replace(done[0], request=replace(done[0].request, seed=1))],
            r"which was not asked for or came before",
            0,
        ),
    ],
)
def test_what_was_not_asked_for_is_refused_and_the_rest_is_kept(
    twist: Twist, message: str, stored: int, one_round: Config, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        twisted(patch, twist)
        with pytest.raises(RolloutError, match=message):
            train(one_round, home)
    found = "SELECT count(*) AS narrow, count(DISTINCT trajectory_id) AS ids FROM trajectories"
    assert rows(home, found) == [{"narrow": stored, "ids": stored}]
    assert value(home, "SELECT count(*) FROM store.stages WHERE stage = 'generate'") == 0
    with sampled(monkeypatch) as again:
        train(one_round, home)
    assert len(again) == BATCH - stored
    assert rows(home, found) == [{"narrow": BATCH, "ids": BATCH}]


def test_what_was_finished_when_a_person_ended_the_run_is_kept(
    one_round: Config, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(done: list[Sample]) -> list[Sample]:
        return [*done[:6], Interrupt()]  # type: ignore[list-item]

    class Interrupt:
        @property
        def request(self) -> None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        twisted(patch, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(one_round, home)
    assert value(home, "SELECT count(*) FROM trajectories") == 6
    with sampled(monkeypatch) as again:
        train(one_round, home)
    assert len(again) == BATCH - 6


def test_finished_responses_do_not_wait_for_a_straggler(
    one_round: Config, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the engine is silent over its last response, the others reach the store."""
    honest = TransformersEngine.sample
    reached = threading.Event()
    seen: list[int] = []

    def slow(self: TransformersEngine, requests: Any, settings: Any) -> Iterator[Sample]:
        *most, last = list(honest(self, requests, settings))
        yield from most
        for _ in range(600):
            seen.append(value(home, "SELECT count(*) FROM trajectories"))
            if seen[-1] == len(most):
                reached.set()
                break
            reached.wait(0.05)
        yield last

    monkeypatch.setattr(TransformersEngine, "sample", slow)
    train(changed(one_round, "store.flush_seconds=0.2"), home)
    assert seen[-1] == BATCH - 1
    assert value(home, "SELECT count(*) FROM trajectories") == BATCH


HOLDER = """
import duckdb, sys, time
while True:  # the run lets go of the file a moment behind its last use
    try:
        kept = duckdb.connect(sys.argv[1])
        break
    except duckdb.IOException:
        time.sleep(0.05)
print(flush=True)
sys.stdin.read()
"""


def test_an_end_does_not_wait_for_who_holds_the_database(
    one_round: Config, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program keeps the file open when responses are due to be stored, and a person ends the run."""
    honest = TransformersEngine.sample
    tried = threading.Event()
    write = Store.append_batch
    holding: list[subprocess.Popen[bytes]] = []

    def append(self: Store, *args: Any, **kwargs: Any) -> None:
        try:
            write(self, *args, **kwargs)
        except StoreLocked:
            tried.set()
            raise

    def ended(self: TransformersEngine, requests: Any, settings: Any) -> Iterator[Sample]:
        command = [sys.executable, "-c", HOLDER, str(home.database)]
        holding.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert holding[0].stdout is not None
        holding[0].stdout.readline()
        yield from list(honest(self, requests, settings))[:-1]
        assert tried.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.parts.PATIENCE_S", 0.3)
    monkeypatch.setattr("tasks.leases.PATIENCE_S", 0.3)
    monkeypatch.setattr(Store, "append_batch", append)
    with monkeypatch.context() as patched:
        patched.setattr(TransformersEngine, "sample", ended)
        with pytest.raises(KeyboardInterrupt):
            train(changed(one_round, "store.flush_seconds=0.1"), home)
    (holder,) = holding
    assert holder.poll() is None
    holder.communicate()
    train(one_round, home)
    stored = rows(home, "SELECT attempt, count(*) AS n FROM store.trajectories GROUP BY ALL ORDER BY ALL")
    assert stored == [{"attempt": 1, "n": BATCH - 1}, {"attempt": 2, "n": 1}]


def test_an_engine_that_misses_a_swap_is_stopped_before_it_samples(
    small: Config, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stale_engine.py").write_text(STALE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RolloutError, match=r"was given pol_.*, but its log-probabilities differ from the model's by"):
        train(changed(small, "rollouts.engine.use=stale_engine:Stale", "reward.transform=signed"), home)
    assert value(home, "SELECT count(*) FROM rounds") == 1
    assert value(home, "SELECT count(*) FROM trajectories") == BATCH
