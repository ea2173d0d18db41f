"""Rollouts: engines that sample responses, token ids in and token ids out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reval_core.engine_config import EngineConfig
from reval_core.errors import ConfigError
from reval_core.registry import resolve
from reval_core.rollouts.engine import RolloutEngine, Sample, SampleRequest, SamplingSettings
from reval_core.rollouts.transformers_engine import TransformersEngine
from reval_core.rollouts.vllm_engine import VllmEngine
from reval_core.rollouts.vllm_library import check_arguments, version
from reval_core.rollouts.vllm_servers import VllmServers


def _vllm(config: EngineConfig, context: int | None, *, compute_dtype: str) -> VllmEngine:
    return VllmEngine(
        compute_dtype=compute_dtype,
        max_batch_sequences=config.max_batch_sequences,
        context=context,
        own=config.vllm,
        arguments=config.args,
    )


def _servers(config: EngineConfig, context: int | None, *, compute_dtype: str) -> VllmServers:
    return VllmServers(
        config.servers, compute_dtype=compute_dtype, max_batch_sequences=config.max_batch_sequences, **config.args
    )


ENGINES = {"transformers": TransformersEngine, "vllm": VllmEngine, "vllm-server": VllmServers}
"""Registered engines; another one is ``package.module:Class``."""
_WITH_SECTIONS: dict[Any, Callable[..., RolloutEngine]] = {VllmEngine: _vllm, VllmServers: _servers}
"""Engines of ours that have sections of the configuration to themselves."""


def check_engine(config: EngineConfig) -> None:
    """Refuse an engine that cannot be found or lacks its library, before anything is made for it.

    Raises:
        ConfigError: no engine has that name, or it takes other arguments, or something is to be installed.
    """
    engine = resolve("engine", config.use, ENGINES)
    if engine is VllmEngine:
        version()
        check_arguments(config.args)
    if engine is VllmServers:
        VllmServers(config.servers, **config.args)


def make_engine(config: EngineConfig, *, compute_dtype: str, pad_id: int, context: int | None = None) -> RolloutEngine:
    """The engine that the configuration names.

    Args:
        config: the section ``rollouts.engine``.
        compute_dtype: "float32" or "bfloat16".
        pad_id: token put into padding.
        context: tokens of the longest sequence that will be sampled, where they are known.

    Raises:
        ConfigError: no engine has that name, it takes other arguments, or it lacks something of `RolloutEngine`.
    """
    engine = resolve("engine", config.use, ENGINES)
    try:
        if engine in _WITH_SECTIONS:
            return _WITH_SECTIONS[engine](config, context, compute_dtype=compute_dtype)
        made = engine(
            compute_dtype=compute_dtype,
            pad_id=pad_id,
            max_batch_sequences=config.max_batch_sequences,
            max_batch_tokens=config.max_batch_tokens,
            **config.args,
        )
    except TypeError as error:
        raise ConfigError(f"rollouts.engine.args do not fit the engine {config.use!r}: {error}") from error
    lacking = [
        name for name in ("name", "copies_weights", "load", "sample", "sleep", "close") if not hasattr(made, name)
    ]
    if lacking:
        raise ConfigError(
            f"The engine {config.use!r} has no {lacking[0]}; the protocol RolloutEngine says what it is "
            "(reval_core/rollouts/engine.py)."
        )
    return made


__all__ = ["ENGINES", "RolloutEngine", "Sample", "SampleRequest", "SamplingSettings", "check_engine", "make_engine"]
