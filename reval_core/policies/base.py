"""Finds the base model of a run: a folder, a hub id, or one that is made here."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from reval_core.config import ModelConfig
from reval_core.errors import PolicyError
from reval_core.home import expand
from reval_core.identity import digest
from reval_core.policies.folder import base_policy_id, check_folder, tokenizer_id
from reval_core.policies.tiny import Progress, WarmStart, build_byte_model, build_tiny_model
from reval_core.problems.hub import fetched

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BasePolicy:
    """A base model's folder with its identity."""

    folder: Path
    policy_id: str
    tokenizer_id: str


def base_policy(config: ModelConfig, models: Path, progress: Progress | None = None) -> BasePolicy:
    """Find or make the base model.

    Args:
        config: the model part of the configuration.
        models: folder under the root where built-in models are kept for the next run.
        progress: called with (steps done, steps in all) while a built-in model is trained.

    Raises:
        PolicyError: the folder or hub id cannot be used.
    """
    folder = _folder(config, models, progress)
    check_folder(folder)
    return BasePolicy(folder, base_policy_id(folder), tokenizer_id(folder))


def _folder(config: ModelConfig, models: Path, progress: Progress | None) -> Path:
    if config.path == "builtin:tiny":
        # the bits of a trained model depend on the version of torch, so it is part of its name; it has one thread
        made_of = [config.seed, repr(WarmStart()), torch.__version__]
        return _made_once(
            models / digest("tiny", made_of), partial(build_tiny_model, seed=config.seed, progress=progress)
        )
    if config.path == "builtin:bytes":
        return _made_once(
            models / digest("bytes", [config.seed, torch.__version__]), partial(build_byte_model, seed=config.seed)
        )
    path = expand(config.path)
    if path.exists():
        return path
    if config.path.startswith((".", "/", "~", "$")) or config.path.count("/") != 1:
        raise PolicyError(f"model.path: there is no folder {path}.")
    return _from_hub(config)


def _made_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """The folder of a built-in model, made if this is the first time that it is asked for."""
    if not folder.exists():
        log.info("making the built-in base model (kept for the next run)")
        try:
            build(folder)
        except FileExistsError:
            log.info("another process made the same model in the meantime: %s", folder)
    return folder


def _from_hub(config: ModelConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = fetched(
            lambda: snapshot_download(
                config.path,
                revision=config.revision,
                token=os.environ.get(config.token_env),
                allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"],
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise PolicyError(
            f"model.path: {config.path!r} is no folder here and could not be fetched from the hub "
            f"({type(error).__name__}). Check the name and the network, set {config.token_env} for a gated model, or "
            "give a local folder."
        ) from error
    return Path(found)
