"""What the engines on vLLM do without vLLM: names, arguments, weights, the order of calls."""

import importlib.metadata
from typing import Any

import pytest
import torch
from contracted import contract_model

from reval_core.config import Config
from reval_core.config_engine import EngineConfig, VllmConfig
from reval_core.config_files import parse_config
from reval_core.errors import ConfigError, RolloutError
from reval_core.rollouts import SampleRequest, SamplingSettings, check_engine, make_engine
from reval_core.rollouts.vllm_engine import VllmEngine
from reval_core.rollouts.vllm_library import named_weights, sampling, signed
from tasks.preflight import check_settings

SETTINGS = SamplingSettings(16, 1.0, 1.0, 0, (1,))


class Recorder:
    """Stands for vLLM's engine and writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.weights: dict[str, torch.Tensor] = {}

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        self.calls.append(method)
        self.weights = {name: value.clone() for name, value in kwargs["weights_iterator"]}

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset_prefix_cache")
        return True

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(f"wake {tags[0]}")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM 0.30.0 seems to be installed."""
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.30.0" if name == "vllm" else real(name))


@pytest.fixture
def recorder(installed: None, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What every engine starts in this test, on a device on which it can sleep."""
    recorder = Recorder()
    monkeypatch.setattr(VllmEngine, "_start", lambda self, model: recorder)
    monkeypatch.setattr(VllmEngine, "_can_sleep", property(lambda self: self._own.sleeps))
    return recorder


def config(**rollouts: Any) -> Config:
    return parse_config({"problems": [{"path": "builtin:arithmetic/train"}], "rollouts": rollouts})


# -- the order of calls -----------------------------------------------------------------------------------------------


def test_it_wakes_for_new_weights_and_has_room_for_the_cache_afterwards(recorder: Recorder) -> None:
    engine, model = VllmEngine(), contract_model(tied=True)
    engine.load("pol_1", model)
    assert recorder.calls == ["reload_weights", "reset_prefix_cache"]
    recorder.calls.clear()
    engine.sleep()
    engine.sleep()
    assert recorder.calls == ["sleep 2"]
    with pytest.raises(RolloutError, match="before a policy was loaded, or after it slept"):
        engine.sample([], SETTINGS)
    recorder.calls.clear()
    engine.load("pol_1", model)
    assert recorder.calls == ["wake weights", "reload_weights", "wake kv_cache", "reset_prefix_cache"]


def test_a_policy_that_is_loaded_is_found_again_by_its_id(recorder: Recorder) -> None:
    engine, model, other = VllmEngine(), contract_model(tied=True), contract_model(tied=True)
    engine.load("pol_1", model)
    engine.load("pol_1", model)
    assert recorder.calls.count("reload_weights") == 1
    engine.load("pol_2", model)  # learned in place
    engine.load("pol_2", other)  # another realisation
    assert recorder.calls.count("reload_weights") == 3


def test_without_sleep_weights_are_still_taken_over_after_learning(recorder: Recorder) -> None:
    engine, model = VllmEngine(own=VllmConfig(sleeps=False)), contract_model(tied=True)
    for _ in range(2):
        engine.load("pol_1", model)
        engine.sleep()
    assert recorder.calls == ["reload_weights", "reset_prefix_cache"] * 2


def test_a_load_that_fails_leaves_no_policy(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, model = VllmEngine(), contract_model(tied=True)
    engine.load("pol_1", model)

    def broken(method: str, kwargs: dict[str, Any]) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(recorder, "collective_rpc", broken)
    with pytest.raises(RuntimeError):
        engine.load("pol_2", model)
    with pytest.raises(RolloutError, match="before a policy was loaded"):
        engine.sample([], SETTINGS)


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_the_output_head_is_handed_over_always(tied: bool) -> None:
    model = contract_model(tied=tied)
    weights = dict(named_weights(model))
    assert torch.equal(weights["lm_head.weight"], model.get_output_embeddings().weight)
    assert weights.keys() >= {name for name, _ in model.named_parameters()}
    assert not any(value.requires_grad for value in weights.values())


def test_an_adapter_is_refused() -> None:
    model = contract_model(tied=True)
    model.peft_config = {"default": object()}  # as peft marks a model
    with pytest.raises(RolloutError, match="whole weights"):
        list(named_weights(model))


def test_adapters_and_vllm_are_not_configured_together(installed: None) -> None:
    raw = config(engine={"use": "vllm"}).model_dump(mode="json")
    raw["model"]["lora"] = {"rank": 2}
    with pytest.raises(ConfigError, match=r"takes whole weights, and model\.lora learns adapters"):
        check_settings(parse_config(raw))


# -- settings ---------------------------------------------------------------------------------------------------------


def test_seeds_keep_all_their_bits() -> None:
    for seed in (0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        assert -(1 << 63) <= signed(seed) < 1 << 63
        assert signed(seed) % (1 << 64) == seed
        one, two = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(signed(seed))
        assert torch.equal(torch.rand(4, generator=one), torch.rand(4, generator=two))


def test_a_temperature_that_vllm_would_change_is_refused() -> None:
    with pytest.raises(RolloutError, match=r"between 0 and 0\.01, and 0\.001 was asked for"):
        sampling(SampleRequest("p", 0, 1, (5,)), SamplingSettings(4, 0.001, 1.0, 0, (1,)))


def test_arguments_that_something_else_decides_are_refused(installed: None) -> None:
    for name, who in (("dtype", r"model\.dtype"), ("max_num_seqs", "max_batch_sequences"), ("logprobs_mode", "")):
        with pytest.raises(ConfigError, match=rf"rollouts\.engine\.args\.{name}: .*decided by .*{who}"):
            check_engine(EngineConfig(use="vllm", args={name: 1}))


def test_the_name_tells_version_and_precision(installed: None) -> None:
    engine = make_engine(EngineConfig(use="vllm"), compute_dtype="bfloat16", pad_id=0, context=64)
    assert engine.name == "vllm-0.30.0/bfloat16"
    assert engine.copies_weights


def test_where_vllm_is_missing_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ConfigError, match=r"needs vLLM 0\.26 to 0\.32, which is not installed here: "):
        check_engine(EngineConfig(use="vllm"))


def test_where_it_runs_is_no_part_of_a_run() -> None:
    here = config(engine={"use": "vllm"})
    there = config(engine={"use": "vllm", "vllm": {"memory": 0.8, "sleeps": False}, "check": {"samples": 2}})
    assert here.config_id == there.config_id
    one = config(engine={"use": "vllm-server", "servers": {"addresses": ["http://a:1"], "folder": "/a"}})
    two = config(engine={"use": "vllm-server", "servers": {"addresses": ["http://b:1/"], "folder": "/b"}})
    assert one.config_id == two.config_id != here.config_id
    assert two.rollouts.engine.servers.addresses == ("http://b:1",)


def test_an_engine_that_lacks_a_part_of_the_protocol_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no copies_weights"):
        make_engine(EngineConfig(use=f"{__name__}:Old"), compute_dtype="float32", pad_id=0)


class Old:
    """An engine from before engines slept."""

    name = "old/1"

    def __init__(self, **settings: Any) -> None: ...
