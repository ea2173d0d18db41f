"""Rollouts: engines that sample responses, token ids in and token ids out."""

from __future__ import annotations

from typing import Any

from reval_core.config import RolloutConfig
from reval_core.config_engine import EngineConfig
from reval_core.errors import ConfigError
from reval_core.registry import resolve
from reval_core.rollouts.budget import sample_within
from reval_core.rollouts.engine import FINISH_REASONS, RolloutEngine, Sample, SampleRequest, SamplingSettings
from reval_core.rollouts.transformers_engine import TransformersEngine
from reval_core.rollouts.vllm_engine import VllmEngine
from reval_core.rollouts.vllm_library import check_arguments, version
from reval_core.rollouts.vllm_servers import VllmServers

ENGINES = {"transformers": TransformersEngine, "vllm": VllmEngine, "vllm-server": VllmServers}
"""Registered engines; another one is ``package.module:Class``."""


def check_engine(config: EngineConfig) -> None:
    """Refuse an engine that cannot be found or lacks its library, before anything is made for it.

    Raises:
        ConfigError: no engine has that name, or it takes other arguments, or something is to be installed.
    """
    engine = resolve("engine", config.use, ENGINES)
    if engine is VllmEngine:
        version()
        check_arguments(config.args)
    elif engine in ENGINES.values():  # made of nothing but its settings
        make_engine(config, compute_dtype="float32", pad_id=0)


def check_limits(config: RolloutConfig) -> None:
    """Refuse a budget or a deadline that the engine would not keep.

    Raises:
        ConfigError: names the setting.
    """
    keeps: frozenset[str] = getattr(resolve("engine", config.engine.use, ENGINES), "keeps", frozenset())
    for name in ("token_budget", "deadline_s"):
        if getattr(config, name) is not None and name not in keeps:
            raise ConfigError(
                f"rollouts.{name} is set, and the engine {config.engine.use!r} does not keep it (its `keeps` names "
                "what it does). Leave it out, or use the engine 'transformers' or 'vllm'."
            )


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
    given: dict[str, Any] = {"compute_dtype": compute_dtype, "max_batch_sequences": config.max_batch_sequences}
    if engine is VllmEngine:
        return VllmEngine(**given, context=context, own=config.vllm, arguments=config.args)
    try:
        if engine is VllmServers:
            return VllmServers(config.servers, **given, **config.args)
        made: RolloutEngine = engine(**given, pad_id=pad_id, max_batch_tokens=config.max_batch_tokens, **config.args)
    except TypeError as error:
        raise ConfigError(f"rollouts.engine.args do not fit the engine {config.use!r}: {error}") from error
    for name in ("name", "copies_weights", "load", "sample", "sleep", "close"):
        if not hasattr(made, name):
            raise ConfigError(
                f"The engine {config.use!r} has no {name}; the protocol RolloutEngine says what it is "
                "(reval_core/rollouts/engine.py)."
            )
    return made


__all__ = [
    "ENGINES",
    "FINISH_REASONS",
    "RolloutEngine",
    "Sample",
    "SampleRequest",
    "SamplingSettings",
    "check_engine",
    "check_limits",
    "make_engine",
    "sample_within",
]
