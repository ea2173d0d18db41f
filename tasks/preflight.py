"""Refuses what cannot work before anything is made: settings against each other, prompts against the model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from reval_core.config import Config
from reval_core.environment import choose_device, device_slot
from reval_core.errors import ConfigError
from reval_core.learning.activations import checkpoint_activations, liger_patches
from reval_core.learning.adapters import check_targets, peft
from reval_core.learning.objectives import Objective, check
from reval_core.learning.optimizers import library
from reval_core.learning.reference import set_learning_mode
from reval_core.learning.scoring import PLAIN_HEAD_FAMILIES, has_plain_head
from reval_core.policies.folder import model_config, outline
from reval_core.problems import PromptRenderer
from reval_core.problems.benchmarks import check_name
from reval_core.problems.prompts import check_lengths
from reval_core.rollouts import ENGINES, check_engine, check_limits
from reval_core.store import replay
from reval_core.verification import Grader, grading_policy
from tasks.inputs import Inputs

log = logging.getLogger(__name__)

TAKE_WHOLE_WEIGHTS = ("vllm", "vllm-server")
"""Engines that cannot sample from an adapter over a base."""
ATTENDING = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers, as transformers names them, whose only memory is the keys and values of earlier tokens."""


def check_settings(config: Config) -> None:
    """Refuse what cannot go together, and names that lead nowhere.

    Raises:
        ConfigError: says which setting to change.
    """
    objective = check(config.objective, config.rollouts.rollouts_per_prompt)
    replay.probe(config.replay)
    _check_learned_from(config, objective)
    _check_reward(config, objective)
    if config.optimizer.use != "adamw":
        library(config.optimizer.use)
    check_engine(config.rollouts.engine)
    check_limits(config.rollouts)
    if config.model.lora is not None and config.rollouts.engine.use in TAKE_WHOLE_WEIGHTS:
        raise ConfigError(
            f"rollouts.engine.use {config.rollouts.engine.use!r} takes whole weights, and model.lora learns adapters: "
            "merged and rounded they would be another policy. Leave one of the two out."
        )
    choose_device(config.model.device)
    for name in (*config.evaluation.limits, *config.evaluation.policies):
        check_name(name, config.evaluation.files)
    _check_evaluation_device(config)


def check_packages(config: Config) -> None:
    """Refuse a run that needs packages that are not here; a dry run may be made without them.

    Raises:
        ConfigError: says which, and how to install it.
    """
    if config.model.kernels == "liger":
        liger_patches()
    if config.model.lora is not None:
        peft()


def _check_learned_from(config: Config, objective: Objective) -> None:
    """What an objective is given to learn from, by draws, stored trajectories and the sampling of its own."""
    grouped = "group" in objective.needs
    if grouped and config.replay.draw != "uniform":
        raise ConfigError(
            f"objective.use {objective.name!r} compares the responses of a group, and replay.draw "
            f"{config.replay.draw!r} draws single ones. Use replay.draw: uniform, which then draws whole groups."
        )
    if config.offline is not None and not objective.replay:
        raise ConfigError(
            f"objective.use {objective.name!r} learns from the fresh batch only, and stored trajectories are none. "
            "Learn from them by reval, tbrm, regression, vargrad or logz."
        )
    sampled_at, learned_at = config.rollouts.temperature, config.objective.policy_temperature
    if "old_logprob" in objective.needs and sampled_at != learned_at:
        raise ConfigError(
            f"rollouts.temperature is {sampled_at:g} and objective.policy_temperature {learned_at:g}, but "
            f"{objective.name!r} takes the responses for samples of the policy that it learns. Set both to the same."
        )
    if config.replay.successes and (grouped or not objective.replay or config.objective.reference_reset_every):
        raise ConfigError(
            f"replay.successes is {config.replay.successes}: older successes join an update, which needs an objective "
            "that judges each response by itself (reval, tbrm, regression), and one reference for the whole run, since "
            "what lies before the window is not scored again after a reset. Set it to 0."
        )


def _check_reward(config: Config, objective: Objective) -> None:
    reward = config.reward
    for options in (reward.policy, *config.evaluation.policies.values()):
        grading_policy(options)
    grouped = "group" in objective.needs
    if reward.truncated == "drop" and (grouped or reward.transform == "centred"):
        compared = f"{objective.name!r} compares" if grouped else "reward.transform 'centred' compares"
        raise ConfigError(
            f"reward.truncated 'drop' can leave one response of a group, and {compared} the responses of a group. Use "
            "'keep' or 'mask_negative'."
        )
    if reward.use != "math" and reward.transform in ("raw", "centred") and reward.truncated == "mask_negative":
        raise ConfigError(
            "reward.truncated 'mask_negative' takes a cut response for a wrong one, and a reward that is a number of "
            "its own knows no wrong. Let it judge cut text itself ('keep'), or 'drop' it."
        )


def _check_evaluation_device(config: Config) -> None:
    wanted = config.evaluation.device
    if wanted is None:
        return
    choose_device(wanted)
    taken = {device_slot(config.model.device)}
    if config.learning.ranks > 1:
        taken |= {f"cuda:{number}" for number in range(config.learning.local_ranks)}
    if device_slot(wanted) in taken:
        raise ConfigError(
            f"evaluation.device is {wanted!r}, on which the run itself works. Name another one, such as cuda:1 or "
            "cpu:1, or leave it out: then the run evaluates between its rounds."
        )


def check_reward(config: Config) -> None:
    """Import a reward of one's own where it will run, in a worker process.

    Raises:
        ConfigError: it cannot be imported or is no reward.
    """
    reward = config.reward
    if reward.use != "math":
        with Grader(reward.use, reward.args, workers=1, memory_gb=reward.memory_gb) as grader:
            log.debug("reward %s is %s", reward.use, grader.grader_id)


def check_model(config: Config, base: Path, device: str, *, training: bool) -> None:
    """Refuse settings that the base model's layers cannot have, before anything is sampled.

    Args:
        config: the run's configuration.
        base: the base model's folder.
        device: torch device of the run.
        training: whether the model is to learn, too.

    Raises:
        RevalError: names the setting to change.
    """
    model: Any = outline(base)
    _check_memory(config, model)
    if config.model.lora is not None:
        check_targets(model, config.model.lora)
    _check_ranks(config, model, device)
    if training:
        if config.optimizer.packing and not has_plain_head(model):
            raise ConfigError(
                f"optimizer.packing is true, but sequences of {type(model).__name__} cannot be packed; known are "
                f"{', '.join(sorted(PLAIN_HEAD_FAMILIES))}. Set optimizer.packing: false."
            )
        checkpoint_activations(model, config.model.gradient_checkpointing)
        set_learning_mode(model)


def _check_memory(config: Config, model: Any) -> None:
    """Models that carry a state beside keys and values: sampled with a cache of those alone, they would forget it."""
    layers = set(getattr(model.config, "layer_types", None) or ())
    carries = getattr(model, "_is_stateful", False) or layers - ATTENDING
    if carries and config.rollouts.engine.use in ENGINES:
        raise ConfigError(
            f"model.path: {type(model).__name__} has recurrent or convolutional layers, whose state no engine here "
            "keeps from token to token. Use a model whose layers all attend."
        )


def _check_ranks(config: Config, model: Any, device: str) -> None:
    learning = config.learning
    if learning.ranks == 1:
        return
    if not has_plain_head(model):
        raise ConfigError(
            f"learning.ranks is {learning.ranks}, and models of this kind cannot be spread over ranks; known are "
            f"{', '.join(sorted(PLAIN_HEAD_FAMILIES))}. Set learning.ranks: 1."
        )
    if device.startswith("cuda") and torch.cuda.device_count() < learning.local_ranks:
        raise ConfigError(
            f"learning.ranks is {learning.ranks} on {learning.nodes} machines, {learning.local_ranks} on each, and "
            f"PyTorch sees {torch.cuda.device_count()} GPUs here. Set it to at most what all machines have."
        )


def check_prompts(config: Config, context: int | None, renderer: PromptRenderer, inputs: Inputs) -> None:
    """Refuse problems that the model cannot be asked: no template for them, unknown characters, too long.

    Args:
        config: the run's configuration.
        context: tokens that the model was made for, where they are known.
        renderer: of its tokenizer.
        inputs: training problems and benchmarks.

    Raises:
        RevalError: names the problem, or the setting to change.
    """
    if not inputs.all:
        return
    prompts = [renderer.render(problem) for problem in inputs.all]
    by_id = {problem.problem_id: problem for problem in inputs.all}
    check_lengths(prompts, by_id, max_prompt_tokens=config.rollouts.max_prompt_tokens)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    new = max(config.rollouts.max_new_tokens, config.evaluation.max_new_tokens or 0)
    if context is not None and longest + new > context:
        raise ConfigError(
            f"The longest prompt has {longest} tokens; with {new} new ones it passes the model's context of {context}. "
            "Lower rollouts.max_new_tokens or evaluation.max_new_tokens, or leave long prompts out."
        )


def context_length(folder: Path) -> int | None:
    """Positions that the model was made for, as its config.json says.

    Of one that turns its positions by other frequencies from some length on (longrope), that length: there a short
    sequence would be computed otherwise beside a long one than alone.
    """
    config = model_config(folder)
    made_for = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        return rope.get("original_max_position_embeddings", made_for)
    return made_for
