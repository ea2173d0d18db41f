"""Policies that two ranks learn: those of one process, saved and found again by either, and what a dead rank leaves."""

from __future__ import annotations

import copy
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from house import House
from rank_processes import rank_processes
from safetensors.torch import load_file

from reval_core.errors import LearningError, PolicyError
from reval_core.learning.learner import Learner
from reval_core.policies.folder import OPTIMIZER, OPTIMIZER_SHARDS, load_optimizer
from reval_core.policies.learners import RankedLearner
from reval_core.policies.materialise import Policies
from reval_core.policies.ranks import Ranks
from reval_core.upkeep import LearningConfig

pytestmark = pytest.mark.long

TWO = LearningConfig(ranks=2, timeout_s=600)
PATIENCE_S = 240
"""Far below the ranks' own limit, and enough for a machine that is busy."""


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Ranks]:
    with closing(Ranks(tmp_path / "ranks", TWO, device="cpu")) as ranks:
        yield ranks


def weights(policies: Policies, policy_id: str) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in policies.model(policy_id).parameters()])


def two_steps(house: House, policies: Policies, **objective: Any) -> list[str]:
    base = house.base.policy_id
    reference = None if objective.get("use") == "grpo" else base
    first = house.learn(policies, house.step(base, reference, 0, **objective)).policy_id
    return [first, house.learn(policies, house.step(first, reference, 2, **objective)).policy_id]


def reports(house: House, policy_id: str) -> np.ndarray:
    with house.store.read() as connection:
        found = connection.execute(
            "SELECT loss, grad_norm FROM store.updates WHERE policy_id = ? ORDER BY update_index", [policy_id]
        ).fetchall()
    return np.array(found)


def test_two_ranks_learn_what_one_process_learns_and_either_goes_on(
    house: House, ranks: Ranks, built: House, tmp_path: Path
) -> None:
    alone = copy.copy(built).at(Path(shutil.copytree(built.root, tmp_path / "alone")))
    one, two = alone.policies(), house.policies(ranks=ranks)
    ids = two_steps(alone, one)
    assert two_steps(house, two) == ids
    expected = weights(one, ids[1])
    assert (weights(two, ids[1]) - expected).norm() < 1e-5 * expected.norm()
    np.testing.assert_allclose(reports(house, ids[1]), reports(alone, ids[1]), rtol=1e-4)

    # saved by two ranks, in several files that nothing needs to put together
    folder = two.save(ids[1], run_id="run-1", iteration=1, with_optimizer=True)
    shards = sorted(path.name for path in (folder / OPTIMIZER_SHARDS).iterdir())
    assert shards[-1] == "optimizer.safetensors.index.json"
    assert len(shards) > 2
    assert not (folder / OPTIMIZER).exists()
    state, of_one = load_optimizer(folder), one._resident.learner.state_tensors()
    assert state.keys() == of_one.keys()
    assert max((state[name].double() - of_one[name].double()).abs().max() for name in state) < 1e-3

    # other settings from the next step on: the ranks begin again with what they had
    further = house.step(ids[1], house.base.policy_id, 4, use="tbrm")
    third = house.learn(two, further).policy_id
    assert alone.learn(one, further).policy_id == third
    assert (weights(two, third) - weights(one, third)).norm() < 1e-4 * expected.norm()
    ranks.close()
    assert rank_processes() == []

    # one process goes on from the ranks' checkpoint
    again = house.policies(versions={"other": 1})
    again.learn(further)
    assert isinstance(again._resident.learner, Learner)
    assert again._resident.learner.updates_done == 6
    assert (weights(again, third) - weights(one, third)).norm() < 1e-4 * expected.norm()

    # and two ranks from that of one process; then a round of another objective from the base
    one.save(third, run_id="run-1", iteration=2, with_optimizer=True)
    assert (alone.root / "policies" / third / OPTIMIZER).exists()
    with closing(Ranks(tmp_path / "more", TWO, device="cpu")) as more:
        two = alone.policies(ranks=more)
        last = alone.step(third, house.base.policy_id, 6)
        record, _ = two.learn(last)
        one.learn(last)
        assert isinstance(two._resident.learner, RankedLearner)
        assert (weights(two, record.policy_id) - weights(one, record.policy_id)).norm() < 1e-4 * expected.norm()
        epochs = alone.step(alone.base.policy_id, None, 0, use="grpo")
        record, found = two.learn(epochs)
        expected_record, wanted = one.learn(epochs)
        assert record.policy_id == expected_record.policy_id
        np.testing.assert_allclose([r.loss for r in found], [r.loss for r in wanted], atol=1e-5)


def test_a_damaged_shard_is_named(house: House, ranks: Ranks) -> None:
    policies = house.policies(ranks=ranks)
    first = two_steps(house, policies)[0]
    folder = policies.save(first, run_id="run-1", iteration=1, with_optimizer=True)
    file = next((folder / OPTIMIZER_SHARDS).glob("*.safetensors"))
    assert load_file(file)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(PolicyError, match="learned again"):
        load_optimizer(folder)


def kill_when_busy(ranks: Ranks, which: int, killed: list[float]) -> threading.Thread:
    """Kill -9 a rank as soon as it learns something, and note when; torchrun comes to look seconds later only."""

    def kill() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with suppress(FileNotFoundError):  # the ranks delete files while we look for theirs
                logs = list(ranks.folder.rglob(f"{which}/stderr.log"))
                if logs and "update" in logs[0].read_text():
                    break
            time.sleep(0.002)
        rank = rank_process(which)
        torchrun = rank.parent()
        assert torchrun is not None
        torchrun.suspend()
        rank.kill()
        killed.append(time.monotonic())
        time.sleep(4.0)
        torchrun.resume()

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def rank_process(which: int) -> psutil.Process:
    for process in rank_processes():
        with suppress(psutil.NoSuchProcess):
            if process.environ().get("RANK") == str(which):
                return process
    raise AssertionError(f"there is no rank {which}")


@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_rank_ends_the_others_and_the_same_call_goes_on(
    house: House, ranks: Ranks, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = house.policies(ranks=ranks)
    step = house.step(house.base.policy_id, house.base.policy_id, 0)
    step = replace(step, updates=step.updates * 40)
    killed: list[float] = []
    killer = kill_when_busy(ranks, which, killed)
    with pytest.raises(LearningError) as failure:
        policies.learn(step)
    killer.join()
    assert time.monotonic() - killed[0] < PATIENCE_S
    message = str(failure.value)
    assert f"Rank {which} of 2 was killed by signal 9" in message
    assert "INFO update" in message
    assert "the same command goes on" in message
    assert rank_processes() == []
    assert not ranks.folder.exists()
    record, found = policies.learn(step)
    assert len(found) == 80
    assert policies.checksum(record.policy_id) == record.weights_checksum


def test_an_error_of_the_learner_is_the_same_error(house: House, ranks: Ranks) -> None:
    policies = house.policies(ranks=ranks, max_skipped_in_a_row=2)
    step = house.step(house.base.policy_id, house.base.policy_id, 0)
    huge = tuple(replace(u, draws=tuple(replace(d, reward=1e300) for d in u.draws)) for u in step.updates)
    with pytest.raises(LearningError, match="2 updates in a row were not finite"):
        policies.learn(replace(step, updates=huge))
    assert rank_processes() == []


def test_ranks_of_two_machines_are_started_by_the_same_command(house: House, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rendezvous = f"127.0.0.1:{port}"
    config = LearningConfig(ranks=2, nodes=2, rendezvous=rendezvous, folder=str(tmp_path), timeout_s=600)
    base, policies = house.base.policy_id, house.policies()
    first = house.learn(policies, house.step(base, base, 0)).policy_id
    policies.save(first, run_id="run-1", iteration=0, with_optimizer=True)
    step = house.step(first, base, 2)
    _, alone = policies.learn(step)
    with closing(Ranks(tmp_path / "ranks", config, device="cpu")) as ranks:
        command = [part if part != "N" else "1" for part in ranks.elsewhere()]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as other:
            policies = house.policies(ranks=ranks)
            second = house.learn(policies, step).policy_id
            found = reports(house, second)
            folder = policies.save(second, run_id="run-1", iteration=1, with_optimizer=True)
            ranks.close()
            assert other.wait(PATIENCE_S) == 0  # it ends with the run
    np.testing.assert_allclose(found[:, 0], [r.loss for r in alone], rtol=1e-4)
    state = load_optimizer(folder)
    assert state is not None
    assert int(state["learner.updates_done"]) == 4
    assert rank_processes() == []


def test_ranks_end_with_a_worker_that_was_killed(house: House, tmp_path: Path) -> None:
    """The line is all that they know of it."""
    ranks = Ranks(tmp_path / "ranks", TWO, device="cpu")
    ranks.start()
    everyone = rank_processes()
    assert len(everyone) == 3
    ranks._socket.shutdown(2)  # as the kernel does for a process that is gone
    ranks._socket.close()
    _, left = psutil.wait_procs(everyone, timeout=PATIENCE_S)
    assert left == []
    ranks._waiting = True
    ranks.close()
