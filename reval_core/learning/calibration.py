"""The self-test at every start and after each reference reset: a policy equal to its reference has residual 0.

The reference's weights go through the policy's own path, the gradient pass, with reward 0. Against scores taken just
now in the same layout the residual must be exactly 0; against the scores stored with the trajectories it may differ by
what another layout or machine explains, and no more. Whatever fails here would be learned from as if it were reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.errors import LearningError
from reval_core.learning.batch import TrainingExample, micro_batches
from reval_core.learning.objective import trajectory_residual
from reval_core.learning.precision import is_bfloat16
from reval_core.learning.reference import (
    Floats,
    column,
    in_order,
    mode_restored,
    reference_scores,
    require,
    score_examples,
    scoring_mode,
    set_learning_mode,
    to_numpy,
)

Pair = tuple[Floats, Floats]
"""log pi of the response and V(s_1) of N trajectories: [N] and [N], nats."""
TOLERANCE_FLOAT32 = 1e-3
"""Nats between stored and fresh scores of one trajectory, at least."""
NOISE_FLOAT32 = 2e-4
"""The same per square root of the number of response tokens: rounding errors of single tokens add up as noise does.
Twice what another layout did to 2,000 tokens of a random model of 1.8 billion parameters on a GPU."""
NOISE_BFLOAT16 = 0.05
"""Likewise, for a body that computes in bfloat16."""


@dataclass(frozen=True)
class CalibrationReport:
    """How far the reference is from itself."""

    n_examples: int
    same_layout: float
    """Largest |residual| against scores taken in the same layout, nats; 0."""
    stored: float
    """|residual| against the stored scores of the trajectory nearest its tolerance, nats."""
    tolerance: float
    """What that trajectory is allowed, nats."""


def calibrate(
    reference: nn.Module,
    examples: Sequence[TrainingExample],
    objective: ObjectiveConfig,
    optimizer: OptimizerConfig,
    *,
    policy: nn.Module | None = None,
    pad_id: int = 0,
    compute_dtype: torch.dtype | str = "float32",
) -> CalibrationReport:
    """Put the reference through the policy's scoring path with reward 0.

    Args:
        reference: the reference policy, whose gradients are left alone.
        policy: the same function in the form that learns, an adapter over the base; by default the reference itself.
        examples: a drawn batch with stored ref_logprob and ref_root_value; rewards are taken as 0.
        objective, optimizer: the run's settings, for temperature, beta and the split into micro-batches.
        pad_id, compute_dtype: as the learner's.

    Raises:
        LearningError: a residual is not 0 or beyond its tolerance, or stored scores are missing.
    """
    if not examples:
        raise LearningError("The calibration self-test needs at least one drawn trajectory.")
    for name in ("ref_logprob", "ref_root_value"):
        require(examples, name, "the calibration self-test")
    now = reference_scores(
        reference,
        examples,
        max_tokens=optimizer.max_tokens_per_micro_batch,
        packed=optimizer.packing,
        temperature=objective.policy_temperature,
        compute_dtype=compute_dtype,
        pad_id=pad_id,
    )
    passed = _gradient_pass(
        reference if policy is None else policy, examples, objective, optimizer, pad_id, compute_dtype
    )
    stored = column(examples, "ref_logprob"), column(examples, "ref_root_value")
    residual_now, residual_stored = (_residual_without_reward(passed, known, objective.beta) for known in (now, stored))
    _require_zero(residual_now, examples)
    tolerance = _tolerance(examples, compute_dtype)
    worst = int(np.argmax(np.abs(residual_stored) / tolerance))
    if not bool((np.abs(residual_stored) <= tolerance).all()):
        raise LearningError(
            f"Calibration: under the reference's own weights trajectory {examples[worst].trajectory_id} has a residual "
            f"of {residual_stored[worst]:.4g} nats against its stored reference scores; {tolerance[worst]:.4g} is "
            "allowed. They were taken under another reference, precision (model.dtype), temperature or token ids. "
            "Score the window again under the live reference."
        )
    return CalibrationReport(
        n_examples=len(examples),
        same_layout=float(np.abs(residual_now).max()),
        stored=float(np.abs(residual_stored[worst])),
        tolerance=float(tolerance[worst]),
    )


def _gradient_pass(
    policy: nn.Module,
    examples: Sequence[TrainingExample],
    objective: ObjectiveConfig,
    optimizer: OptimizerConfig,
    pad_id: int,
    compute_dtype: torch.dtype | str,
) -> Pair:
    """The two scores as a policy's are computed to learn from; nothing is learned."""
    batches = micro_batches(examples, optimizer.max_tokens_per_micro_batch, packed=optimizer.packing)
    found = []
    with mode_restored(policy), scoring_mode(policy, compute_dtype, packed=optimizer.packing):
        set_learning_mode(policy)
        for indices in batches:
            _, scores = score_examples(
                policy,
                [examples[index] for index in indices],
                gradient=True,
                packed=optimizer.packing,
                temperature=objective.policy_temperature,
                pad_id=pad_id,
            )
            found.append((scores.logprob.detach(), scores.root_value.detach()))
    logprob, root_value = zip(*found, strict=True)
    return in_order(logprob, batches), in_order(root_value, batches)


def _residual_without_reward(policy: Pair, reference: Pair, beta: float) -> Floats:
    logprob, root_value = map(torch.from_numpy, policy)
    ref_logprob, ref_root_value = map(torch.from_numpy, reference)
    residual = trajectory_residual(
        logprob=logprob,
        ref_logprob=ref_logprob,
        root_value=root_value,
        ref_root_value=ref_root_value,
        reward=torch.zeros_like(logprob),
        beta=beta,
    )
    return to_numpy(residual)


def _require_zero(residual: Floats, examples: Sequence[TrainingExample]) -> None:
    wrong = np.flatnonzero(residual != 0)  # NaN too
    if len(wrong):
        raise LearningError(
            f"Calibration: with reward 0 and policy = reference, {len(wrong)} of {len(examples)} residuals are not 0 "
            f"in the same layout (trajectory {examples[wrong[0]].trajectory_id}: {residual[wrong[0]]:.4g} nats). The "
            "gradient pass does not compute what the scoring pass computes: look for dropout, random layers, "
            "kernels that are not deterministic, or weights that are not finite."
        )


def _tolerance(examples: Sequence[TrainingExample], compute_dtype: torch.dtype | str) -> Floats:
    lengths = np.array([len(example.response_ids) for example in examples], dtype=np.float64)
    if is_bfloat16(compute_dtype):
        return NOISE_BFLOAT16 * np.sqrt(lengths)
    return np.maximum(TOLERANCE_FLOAT32, NOISE_FLOAT32 * np.sqrt(lengths))
