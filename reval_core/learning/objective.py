"""The objective as pure tensor functions: no models, no state.

A trajectory is a prompt and its response tokens a_1..a_H; s_h is the prompt with the first h - 1 response tokens, so
s_1, the root, is the prompt. The logits of a policy pi are its Q-values in units of beta:

    V(s) = logsumexp of the logits at s,        log pi(a|s) = logit of a at s - V(s)

The residual of a trajectory with reward r against the reference policy ref, at scale beta, is

    delta = [V(s_1) - V_ref(s_1)] + sum_h [log pi(a_h|s_h) - log pi_ref(a_h|s_h)] - r / beta

and the loss is its square. delta is the sum of the Bellman residuals of all steps (`stepwise_residuals`) when the
reward is shaped by V_ref(s_h) - V_ref(s_{h+1}); pi = ref with r = 0 gives 0 on every trajectory. Over responses of full
support the loss is zero only at pi(a_1..a_H|s_1) = pi_ref exp(r / beta) / Z with V(s_1) - V_ref(s_1) = log Z.

Source: ReVal (arXiv 2603.23355), equation 2, with the gradient through V(s_1) that its equation 4 leaves out: without
it the fixed point on off-policy data is another policy. `tbrm` is TBRM (arXiv 2505.15311).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Baseline = Literal["reval", "tbrm", "regression", "vargrad", "logz"]
ValueGradient = Literal["full", "detach"]


def trajectory_residual(
    *,
    logprob: Tensor,
    ref_logprob: Tensor | None,
    root_value: Tensor | None = None,
    ref_root_value: Tensor | None = None,
    reward: Tensor,
    beta: float,
    baseline: Baseline = "reval",
    group: Tensor | None = None,
    value_gradient: ValueGradient = "full",
) -> Tensor:
    """Residual delta of each trajectory, in nats: [log ratio] - r / beta + [term of the prompt].

    The prompt's term tells the baselines apart: `reval` V - V_ref; `tbrm` V; `regression` none; `vargrad` the mean of
    r / beta - log ratio over the trajectory's group, without gradient; `logz` the log of the mean of its exponential,
    an estimate of log Z from the policy's own responses: Z = E_pi[exp(r / beta - log ratio)].

    Args:
        logprob: [B] sum over response tokens of log pi, nats.
        ref_logprob: [B] the same under the reference.
        root_value: [B] V(s_1), for reval and tbrm.
        ref_root_value: [B] V_ref(s_1), for reval.
        reward: [B] reward of the whole response.
        beta: weight of the KL to the reference, above 0.
        baseline: which prompt term.
        group: [B] integers, equal for trajectories of one prompt; for vargrad and logz, whole groups in this batch.
        value_gradient: "detach" stops the gradient through V(s_1), an ablation.

    Returns:
        [B], float32 or better.

    Raises:
        ValueError: an argument that the baseline needs is missing, shapes differ, beta is not above 0, or a
            group of vargrad or logz has one member.
    """
    if baseline not in get_args(Baseline):
        raise ValueError(f"baseline {baseline!r} is none of {', '.join(get_args(Baseline))}.")
    if value_gradient not in get_args(ValueGradient):
        raise ValueError(f"value_gradient {value_gradient!r} is neither 'full' nor 'detach'.")
    if not beta > 0:
        raise ValueError(f"beta is {beta}; it divides the reward and must be above 0.")
    logprob = at_least_float32(logprob)
    log_ratio = logprob - given("ref_logprob", ref_logprob, like=logprob)
    regression = log_ratio - given("reward", reward, like=logprob) / beta
    if baseline == "regression":
        return regression
    if baseline in ("vargrad", "logz"):
        members = given("group", group, like=logprob)
        mean = group_mean if baseline == "vargrad" else group_log_mean_exp
        return regression + mean(-regression.detach(), members)
    value = given("root_value", root_value, like=logprob)
    if value_gradient == "detach":
        value = value.detach()
    if baseline == "tbrm":
        return value + regression
    return (value - given("ref_root_value", ref_root_value, like=logprob)) + regression


def bellman_loss(
    residual: Tensor, *, weight: Tensor | None = None, count: int | float | Tensor | None = None
) -> Tensor:
    """sum(weight * residual**2) / count.

    Args:
        residual: [B] nats.
        weight: [B] importance weights; 1 when left out.
        count: number of trajectories in the whole update, over all micro-batches and ranks, so that the parts' losses
            (and gradients) add up to the whole's; by default the B given here.

    Raises:
        ValueError: shapes differ, or count is not above 0.
    """
    residual = at_least_float32(residual)
    count = residual.numel() if count is None else count
    if not count > 0:
        raise ValueError(f"count is {count}; a loss needs at least one trajectory.")
    square = residual.square()
    if weight is not None:
        square = given("weight", weight, like=residual) * square
    return square.sum() / count


def stepwise_residuals(
    *,
    token_logprob: Tensor,
    ref_token_logprob: Tensor,
    value: Tensor,
    ref_value: Tensor,
    response_mask: Tensor,
    reward: Tensor,
    beta: float,
) -> Tensor:
    """Bellman residual of each step, Q(s_h, a_h) - (T Q)(s_h, a_h), for inspection; their sum is the reval residual.

    (T Q)(s_h, a_h) = r_h / beta + log pi_ref(a_h|s_h) + V_ref(s_h) - V_ref(s_{h+1}) + V(s_{h+1}), where the reward
    comes with the last step and both values are 0 after it.

    Args:
        token_logprob, ref_token_logprob: [B, T] log-probability of the token at t under policy and reference.
        value, ref_value: [B, T] V of the state before the token at t.
        response_mask: [B, T] true at response tokens, one unbroken run in each row.
        reward: [B].
        beta: weight of the KL to the reference.

    Returns:
        [B, T], zero outside the response.

    Raises:
        ValueError: a row's response is empty or broken.
    """
    mask = response_mask.bool()
    follows = torch.zeros_like(mask)  # the next token is a response token too
    follows[:, :-1] = mask[:, 1:]
    last = mask & ~follows
    if not bool((last.sum(dim=1) == 1).all()):
        raise ValueError("response_mask: each row must hold one unbroken run of response tokens.")
    gap = at_least_float32(value) - ref_value
    next_gap = torch.zeros_like(gap)
    next_gap[:, :-1] = gap[:, 1:]
    paid = torch.where(last, (reward / beta).unsqueeze(1), 0.0)
    step = gap - next_gap.masked_fill(~follows, 0.0) + (token_logprob - ref_token_logprob) - paid
    return step.masked_fill(~mask, 0.0)


def group_mean(value: Tensor, group: Tensor) -> Tensor:
    """Mean over each trajectory's group: [B], [B] integers -> [B].

    Raises:
        ValueError: a group has one member, so that its mean tells nothing about it.
    """
    same, size = _members(group)
    return torch.where(same, value, 0.0).sum(dim=1) / size


def group_log_mean_exp(value: Tensor, group: Tensor) -> Tensor:
    """Log of the mean of exp(value) over each trajectory's group: [B], [B] integers -> [B]; errors as `group_mean`."""
    same, size = _members(group)
    return torch.where(same, value, -torch.inf).logsumexp(dim=1) - size.to(value.dtype).log()


def _members(group: Tensor) -> tuple[Tensor, Tensor]:
    """[B, B] whether two trajectories are of one group, and [B] the groups' sizes."""
    same = group.unsqueeze(1) == group.unsqueeze(0)  # a sum over rows is in fixed order, unlike scattered additions
    size = same.sum(dim=1)
    if bool((size < 2).any()):
        lone = group[size < 2].tolist()
        raise ValueError(
            f"group: {len(lone)} of the batch's groups have one trajectory (first: {lone[:3]}); statistics of a "
            "group need at least two. Raise rollouts_per_prompt, and keep groups whole in a batch."
        )
    return same, size


def at_least_float32(value: Tensor) -> Tensor:
    """Residuals reach hundreds of nats and their squares 1e5: half precision would overflow or round them."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def given(name: str, value: Tensor | None, *, like: Tensor) -> Tensor:
    """The value, if it is there and has the shape of `like`; otherwise a ValueError that names it."""
    if value is None:
        raise ValueError(f"{name} is missing, which this objective needs.")
    if value.shape != like.shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; expected {tuple(like.shape)}, one per trajectory.")
    return value
