"""vLLM for real, in process on a CPU: what the contract does not ask of every engine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contracted import CONTEXT, VLLM_ARGUMENTS, contract_model, require_vllm

from reval_core.config_engine import EngineConfig, SyncCheckConfig
from reval_core.errors import ConfigError, RolloutError
from reval_core.rollouts import SampleRequest, SamplingSettings, check_engine
from reval_core.rollouts.sync import check_sync, measure_sync
from reval_core.rollouts.vllm_engine import VllmEngine

pytestmark = pytest.mark.vllm

SETTINGS = SamplingSettings(16, 1.0, 1.0, 0, (1,))
REQUESTS = [SampleRequest("prb", index, 17 * index, (5, 6, 7 + index)) for index in range(8)]


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    require_vllm()
    engine = VllmEngine(max_batch_sequences=4, context=CONTEXT, arguments=VLLM_ARGUMENTS)
    yield engine
    engine.close()


def checked(engine: VllmEngine, model: Any) -> None:
    sync = measure_sync(engine, model, REQUESTS, SETTINGS, SyncCheckConfig(), compute_dtype="float32")
    check_sync(sync, engine, "pol", SyncCheckConfig(), compute_dtype="float32")


def test_a_head_that_is_not_handed_over_is_noticed(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = contract_model(tied=True), contract_model(tied=True, seed=1)
    engine.load("pol_1", first)
    checked(engine, first)
    with monkeypatch.context() as patch:
        patch.setattr("reval_core.rollouts.vllm_engine.named_weights", lambda model: model.named_parameters())
        engine.load("pol_2", second)
        with pytest.raises(RolloutError, match="differ from the model's"):
            checked(engine, second)
    engine.load("pol_3", second)
    checked(engine, second)


def test_a_prefix_cache_that_is_not_emptied_is_noticed(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = tuple(4 + number % 15 for number in range(100))
    requests = [SampleRequest("prb", index, index, prompt) for index in range(4)]
    for seed, emptied in ((2, True), (3, False)):
        model = contract_model(tied=True, seed=seed)
        with monkeypatch.context() as patch:
            if not emptied:
                patch.setattr(engine._engine, "reset_prefix_cache", lambda: True)
            engine.load(f"pol_{seed}", model)
        sync = measure_sync(engine, model, requests, SETTINGS, SyncCheckConfig(), compute_dtype="float32")
        assert (sync.mean < 1e-3) == emptied


def test_what_nobody_waits_for_is_aborted(engine: VllmEngine) -> None:
    engine.load("pol_1", contract_model(tied=True))
    samples = engine.sample(REQUESTS, SETTINGS)
    next(samples)
    assert engine._engine.has_unfinished_requests()
    samples.close()  # type: ignore[attr-defined]
    assert not engine._engine.has_unfinished_requests()


def test_it_samples_again_after_a_sleep(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU no memory is given up, but the scheduler halts and must go on."""
    model = contract_model(tied=True)
    engine.load("pol_1", model)
    monkeypatch.setattr(VllmEngine, "_can_sleep", property(lambda self: True))
    for _ in range(2):
        engine.sleep()
        assert engine._engine.is_sleeping()
        engine.load("pol_1", model)
        assert not engine._engine.is_sleeping()
        checked(engine, model)


def test_an_unknown_argument_names_the_nearest() -> None:
    require_vllm()
    with pytest.raises(ConfigError, match=r"args\.enforce_eagre: vLLM 0\..* Did you mean 'enforce_eager'\?"):
        check_engine(EngineConfig(use="vllm", args={"enforce_eagre": True}))
    check_engine(EngineConfig(use="vllm", args=VLLM_ARGUMENTS))


def test_a_model_that_it_cannot_run_is_an_error_with_its_reason() -> None:
    require_vllm()
    engine = VllmEngine(context=CONTEXT, arguments={"max_num_batched_tokens": -5})
    with pytest.raises(ConfigError, match=r"vLLM 0\..* cannot run Qwen2ForCausalLM so: "):
        engine.load("pol_1", contract_model(tied=True))


def test_a_process_group_of_the_learner_that_comes_first_goes_on() -> None:
    """vLLM takes the one that it finds. With the engine it ends, as vLLM ends all groups of its process."""
    require_vllm()
    program = f"""
import torch, torch.distributed as dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
from contracted import contract_model
from reval_core.rollouts import SampleRequest, SamplingSettings
from reval_core.rollouts.vllm_engine import VllmEngine
engine = VllmEngine(max_batch_sequences=4, context={CONTEXT}, arguments={VLLM_ARGUMENTS})
engine.load("pol_1", contract_model(tied=True))
(sample,) = engine.sample([SampleRequest("prb", 0, 1, (5, 6))], SamplingSettings(4, 1.0, 1.0, 0, (1,)))
dist.all_reduce(total := torch.ones(2))
print("reduced", total.tolist(), len(sample.token_ids) > 0)
engine.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "reduced [1.0, 1.0] True" in done.stdout, done.stderr[-2000:]
