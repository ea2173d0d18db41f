"""The named objectives: what each minimises and what it needs to be given.

Your own objective is an `Objective` in your own module, named in the configuration as
`objective: {use: "my_objectives:huber"}`. This one is ReVal with a loss that grows linearly beyond 10 nats:

    # my_objectives.py
    from reval_core.learning.objective import trajectory_residual
    from reval_core.learning.objectives import Loss, Objective

    def huber_loss(batch, config):
        residual = trajectory_residual(
            logprob=batch.logprob, ref_logprob=batch.ref_logprob, root_value=batch.root_value,
            ref_root_value=batch.ref_root_value, reward=batch.reward, beta=config.beta,
        )
        small = residual.abs().clamp(max=10.0)
        losses = small * (2 * residual.abs() - small)
        return Loss((batch.weight * losses).sum() / batch.count, residual)

    huber = Objective("huber", version=1, needs={"ref_logprob", "ref_root_value", "root_value"}, loss=huber_loss)

Divide by `batch.count` (or `batch.token_count`), never by the size of the batch you see: it is one micro-batch of
an update, and the micro-batches' gradients are added. What depends on other trajectories of the update, such as a
group's mean, belongs in `constant`. Raise `version` when the mathematics changes: it is part of each policy's id.
So are the settings of the section `objective` that the loss reads, all of them unless `reads` names the few.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

from torch import Tensor

from reval_core.config import ObjectiveConfig
from reval_core.errors import ConfigError
from reval_core.learning.objective import (
    Baseline,
    bellman_loss,
    given,
    group_log_mean_exp,
    group_mean,
    trajectory_residual,
)
from reval_core.learning.policy_gradient import group_advantages, policy_gradient_loss
from reval_core.registry import resolve

NEEDS = MappingProxyType(
    {
        "ref_logprob": "sum over response tokens of log pi_ref, one scalar per trajectory",
        "ref_root_value": "V_ref(s_1), one scalar per trajectory",
        "root_value": "V(s_1) of the policy, with gradient",
        "group": "which trajectories answer the same prompt; at least two each, drawn as whole groups",
        "old_logprob": "log pi per token at the start of the round",
        "update_logprob": "log pi of the whole update's trajectories before its gradient pass: one more forward pass",
    }
)
"""What an objective can ask for. What none asks for is not computed."""

READABLE = frozenset(ObjectiveConfig.model_fields) - {"use", "policy_temperature", "updates", "reference_reset_every"}
"""Settings that an objective may read or not. Scoring reads the temperature for every objective; which objective, how
many updates and under which reference is told by what is learned."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch as a loss sees it: B trajectories padded to T tokens. What was not asked for is None."""

    logprob: Tensor
    """[B] sum over response tokens of log pi, with gradient."""
    root_value: Tensor
    """[B] V(s_1), with gradient."""
    reward: Tensor
    """[B]"""
    weight: Tensor
    """[B] importance weights."""
    response_mask: Tensor
    """[B, T] true at response tokens."""
    count: int
    """Trajectories in the whole update."""
    token_count: int
    """Response tokens in the whole update."""
    ref_logprob: Tensor | None = None
    """[B]"""
    ref_root_value: Tensor | None = None
    """[B]"""
    constant: Tensor | None = None
    """[B] what `Objective.constant` gave for these trajectories."""
    token_logprob: Tensor | None = None
    """[B, T] log pi of each response token, with gradient; given when old_logprob is."""
    old_token_logprob: Tensor | None = None
    """[B, T] the same at the start of the round."""


@dataclass(frozen=True)
class Update:
    """All N trajectories of one update, for what couples them. Nothing here carries a gradient."""

    reward: Tensor
    """[N]"""
    group: Tensor | None = None
    """[N] integers, equal for one prompt."""
    ref_logprob: Tensor | None = None
    """[N]"""
    logprob: Tensor | None = None
    """[N] log pi before the update, for objectives that need update_logprob."""


@dataclass(frozen=True)
class Loss:
    """A micro-batch's share of the loss."""

    total: Tensor
    """[] the shares of all micro-batches add up to the update's loss."""
    residual: Tensor | None = None
    """[B] nats, reported; None for objectives that have none."""


@dataclass(frozen=True)
class Objective:
    """What is minimised, and what that takes."""

    name: str
    version: int
    """Raised when the mathematics changes; part of the identity of what is learned."""
    needs: AbstractSet[str]
    """Names out of NEEDS."""
    reads: AbstractSet[str] = field(default=READABLE, kw_only=True)
    """Names out of READABLE: the settings that `loss` and `constant` read. They are part of each policy's id; what is
    not named stands at its default while a policy is learned."""
    loss: Callable[[Batch, ObjectiveConfig], Loss]
    """A micro-batch's share of the loss."""
    constant: Callable[[Update, ObjectiveConfig], Tensor] | None = None
    """[N] per update, computed before its gradient pass and handed to `loss` as `batch.constant`."""
    replay: bool = True
    """Whether its batches may come from the replay buffer."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.needs) - set(NEEDS))
        if unknown:
            raise ConfigError(f"Objective {self.name!r} needs {unknown}, unknown. Known: {', '.join(sorted(NEEDS))}.")
        unknown = sorted(set(self.reads) - READABLE)
        if unknown:
            raise ConfigError(
                f"Objective {self.name!r} reads {unknown}, unknown. Known: {', '.join(sorted(READABLE))}."
            )

    @property
    def needs_reference(self) -> bool:
        """Whether trajectories must be scored under a reference policy."""
        return bool(self.needs & {"ref_logprob", "ref_root_value"})


def _bellman(batch: Batch, config: ObjectiveConfig, *, baseline: Baseline) -> Loss:
    residual = trajectory_residual(
        logprob=batch.logprob,
        ref_logprob=batch.ref_logprob,
        root_value=batch.root_value,
        ref_root_value=batch.ref_root_value,
        reward=batch.reward,
        beta=config.beta,
        baseline=baseline,
        value_gradient=config.value_gradient,
    )
    return Loss(bellman_loss(residual, weight=batch.weight, count=batch.count), residual)


def _grouped(batch: Batch, config: ObjectiveConfig) -> Loss:
    """The regression residual plus what the group says of its opposite, r / beta - log ratio."""
    residual = trajectory_residual(
        logprob=batch.logprob,
        ref_logprob=batch.ref_logprob,
        reward=batch.reward,
        beta=config.beta,
        baseline="regression",
    ) + given("constant", batch.constant, like=batch.logprob)
    return Loss(bellman_loss(residual, weight=batch.weight, count=batch.count), residual)


def _group_term(update: Update, config: ObjectiveConfig, *, mean: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    log_ratio = given("logprob", update.logprob, like=update.reward) - given(
        "ref_logprob", update.ref_logprob, like=update.reward
    )
    return mean(update.reward / config.beta - log_ratio, given("group", update.group, like=update.reward))


def _grpo(batch: Batch, config: ObjectiveConfig, *, token_mean: bool) -> Loss:
    return Loss(
        policy_gradient_loss(
            token_logprob=batch.token_logprob,
            old_token_logprob=batch.old_token_logprob,
            advantage=batch.constant,
            response_mask=batch.response_mask,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            weight=batch.weight,
            count=batch.token_count if token_mean else batch.count,
        )
    )


def _advantages(update: Update, config: ObjectiveConfig, *, normalise: bool) -> Tensor:
    return group_advantages(update.reward, given("group", update.group, like=update.reward), normalise)


REGISTERED: MappingProxyType[str, Objective] = MappingProxyType(
    {
        objective.name: objective
        for objective in (
            Objective(
                "reval",
                version=1,
                needs=frozenset({"ref_logprob", "ref_root_value", "root_value"}),
                reads=frozenset({"beta", "value_gradient"}),
                loss=partial(_bellman, baseline="reval"),
            ),
            Objective(
                "tbrm",
                version=1,
                needs=frozenset({"ref_logprob", "root_value"}),
                reads=frozenset({"beta", "value_gradient"}),
                loss=partial(_bellman, baseline="tbrm"),
            ),
            Objective(
                "regression",
                version=1,
                needs=frozenset({"ref_logprob"}),
                reads=frozenset({"beta", "value_gradient"}),
                loss=partial(_bellman, baseline="regression"),
            ),
            Objective(
                "vargrad",
                version=1,
                needs=frozenset({"ref_logprob", "group", "update_logprob"}),
                reads=frozenset({"beta"}),
                loss=_grouped,
                constant=partial(_group_term, mean=group_mean),
            ),
            Objective(
                "logz",
                version=1,
                needs=frozenset({"ref_logprob", "group", "update_logprob"}),
                reads=frozenset({"beta"}),
                loss=_grouped,
                constant=partial(_group_term, mean=group_log_mean_exp),
            ),
            # GRPO with DAPO's asymmetric clip and token mean: the sum over tokens divided by the update's token count
            Objective(
                "grpo",
                version=1,
                needs=frozenset({"group", "old_logprob"}),
                reads=frozenset({"clip_low", "clip_high"}),
                loss=partial(_grpo, token_mean=True),
                constant=partial(_advantages, normalise=True),
                replay=False,
            ),
            # Dr. GRPO: the sum over tokens divided by the number of trajectories, so that at the round's start the
            # gradient is the policy gradient of the mean reward. The paper divides by a fixed length budget as well, a
            # constant that Adam cancels and that only moves where the clipping of the norm sets in.
            Objective(
                "dr_grpo",
                version=1,
                needs=frozenset({"group", "old_logprob"}),
                reads=frozenset({"clip_low", "clip_high"}),
                loss=partial(_grpo, token_mean=False),
                constant=partial(_advantages, normalise=False),
                replay=False,
            ),
        )
    }
)


def objective_for(config: ObjectiveConfig) -> Objective:
    """The objective that the configuration names.

    Raises:
        ConfigError: there is none of that name, or the name leads to something that is no `Objective`.
    """
    found = resolve("objective", config.use, REGISTERED)
    if not isinstance(found, Objective):
        raise ConfigError(
            f"objective.use {config.use!r} is a {type(found).__name__}; expected a "
            "reval_core.learning.objectives.Objective."
        )
    return found


def check(config: ObjectiveConfig, rollouts_per_prompt: int | None = None) -> Objective:
    """The configured objective, once its settings are known to go together.

    For an objective that never uses the buffer, `updates.on_policy` counts its epochs over the fresh batch; for
    the others, too, a number above 1 means that many passes over the fresh batch.

    Args:
        config: the objective's settings.
        rollouts_per_prompt: responses per prompt, where known.

    Raises:
        ConfigError: the combination is impossible; the message says which setting to change.
    """
    objective = objective_for(config)
    if config.updates.off_policy and not objective.replay:
        raise ConfigError(
            f"objective.updates.off_policy is {config.updates.off_policy}, but {objective.name!r} learns from the "
            "fresh batch only. Set off_policy to 0; on_policy counts the epochs over the fresh batch."
        )
    if config.value_gradient == "detach" and "root_value" not in objective.needs:
        raise ConfigError(
            f"objective.value_gradient is 'detach', but {objective.name!r} has no V(s1) in its loss. Leave it 'full'."
        )
    if config.reference_reset_every is not None and not objective.needs_reference:
        raise ConfigError(
            f"objective.reference_reset_every is {config.reference_reset_every}, but {objective.name!r} has no "
            "reference. Leave it unset."
        )
    if rollouts_per_prompt == 1 and "group" in objective.needs:
        raise ConfigError(
            f"{objective.name!r} compares responses to the same prompt, and rollouts.rollouts_per_prompt is 1. "
            "Raise it to at least 2."
        )
    return objective
