"""Rollouts: engines that sample responses, token ids in and token ids out."""

from __future__ import annotations

from reval_core.config import EngineConfig, RolloutConfig
from reval_core.errors import ConfigError
from reval_core.registry import resolve
from reval_core.rollouts.budget import sample_within
from reval_core.rollouts.engine import FINISH_REASONS, RolloutEngine, Sample, SampleRequest, SamplingSettings
from reval_core.rollouts.transformers_engine import TransformersEngine

ENGINES = {"transformers": TransformersEngine}
"""Registered engines; another one is ``package.module:Class``."""


def check_engine(config: EngineConfig) -> None:
    """Refuse an engine that cannot be found, before anything is made for it.

    Raises:
        ConfigError: no engine has that name.
    """
    resolve("engine", config.use, ENGINES)


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
                "what it does). Leave it out, or use the engine 'transformers'."
            )


def make_engine(config: EngineConfig, *, compute_dtype: str, pad_id: int) -> RolloutEngine:
    """The engine that the configuration names.

    Raises:
        ConfigError: no engine has that name, or it takes other arguments.
    """
    engine = resolve("engine", config.use, ENGINES)
    try:
        return engine(
            compute_dtype=compute_dtype,
            pad_id=pad_id,
            max_batch_sequences=config.max_batch_sequences,
            max_batch_tokens=config.max_batch_tokens,
            **config.args,
        )
    except TypeError as error:
        raise ConfigError(f"rollouts.engine.args do not fit the engine {config.use!r}: {error}") from error


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
