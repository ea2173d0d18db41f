"""Scoring of examples under policy and reference, on one and the same path.

Whatever precision, kernels or layout do to the policy's log-probs they do to the reference's, so a policy that equals
its reference is seen to equal it. Scores of a rollout engine never take the place of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reval_core.errors import LearningError
from reval_core.learning.attention import attending_packed
from reval_core.learning.batch import TrainingExample, micro_batches
from reval_core.learning.layout import Layout, packed_layout, padded_layout
from reval_core.learning.precision import computing_in
from reval_core.learning.scoring import PLAIN_HEAD_FAMILIES, Scores, has_plain_head, score_layout

Floats = npt.NDArray[np.float64]


@contextmanager
def scoring_mode(model: nn.Module, compute_dtype: torch.dtype | str, *, packed: bool) -> Iterator[None]:
    """The way in which policy and reference are scored alike; a backward pass belongs inside, too.

    Raises:
        LearningError: packing is asked of a model that is not known to attend by transformers' interface.
    """
    with ExitStack() as stack:
        if packed:
            if not has_plain_head(model):
                raise LearningError(
                    "optimizer.packing is true, but sequences of this model cannot be packed; known are "
                    f"{', '.join(sorted(PLAIN_HEAD_FAMILIES))}. Set optimizer.packing: false."
                )
            stack.enter_context(attending_packed(model))
        stack.enter_context(computing_in(model, compute_dtype))
        yield


def score_examples(
    model: nn.Module,
    examples: Sequence[TrainingExample],
    *,
    gradient: bool,
    packed: bool,
    token_logprobs: bool = False,
    temperature: float = 1.0,
    pad_id: int = 0,
) -> tuple[Layout, Scores]:
    """Score one micro-batch, inside `scoring_mode`: the one path on which policy and reference are scored alike."""
    layout = packed_layout(examples) if packed else padded_layout(examples, pad_id)
    layout = layout.to(next(model.parameters()).device)
    with torch.set_grad_enabled(gradient):
        scores = score_layout(model, layout, token_logprobs=token_logprobs, temperature=temperature)
    return layout, scores


def reference_scores(
    model: nn.Module,
    examples: Sequence[TrainingExample],
    *,
    max_tokens: int,
    packed: bool = False,
    temperature: float = 1.0,
    compute_dtype: torch.dtype | str = "float32",
    pad_id: int = 0,
) -> tuple[Floats, Floats]:
    """log pi_ref of each response and V_ref(s_1), as the learner computes the policy's: [N] and [N], nats.

    With the learner's `max_tokens` and `packed` and the same examples the micro-batches are the learner's own, so a
    policy equal to its reference has a residual of exactly 0 where the reward is 0.
    """
    batches = micro_batches(examples, max_tokens, packed=packed)
    found = []
    with mode_restored(model), scoring_mode(model, compute_dtype, packed=packed):
        model.eval()
        for indices in batches:
            _, scores = score_examples(
                model,
                [examples[index] for index in indices],
                gradient=False,
                packed=packed,
                temperature=temperature,
                pad_id=pad_id,
            )
            found.append((scores.logprob, scores.root_value))
    logprob, root_value = zip(*found, strict=True) if found else ((), ())
    return in_order(logprob, batches), in_order(root_value, batches)


def in_order(parts: Sequence[Tensor], batches: Sequence[Sequence[int]]) -> Floats:
    """[N] values of the micro-batches in the order of the examples, fetched from their device at once."""
    values = np.empty(sum(len(indices) for indices in batches))
    if parts:
        values[np.concatenate([np.asarray(indices) for indices in batches])] = to_numpy(torch.cat(list(parts)))
    return values


@contextmanager
def mode_restored(model: nn.Module) -> Iterator[None]:
    """Training or evaluation mode is afterwards what it was before."""
    was_training = model.training
    try:
        yield
    finally:
        model.train(was_training)


def set_learning_mode(model: nn.Module) -> None:
    """Evaluation mode, or training mode without dropout for gradient checkpointing, which works in that mode only.

    Raises:
        LearningError: the model has gradient checkpointing and dropout.
    """
    if not any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        model.eval()
        return
    for name, module in model.named_modules():
        rate = module.p if isinstance(module, nn.Dropout) else getattr(module, "attention_dropout", 0.0)
        if isinstance(rate, float) and rate > 0:
            raise LearningError(
                f"{name} drops out with probability {rate}; with gradient_checkpointing the model would learn under "
                "other scores than the reference's. Set the dropouts in the model's config.json to 0."
            )
    model.train()


def require(examples: Sequence[TrainingExample], name: str, who: str) -> None:
    """LearningError unless all examples have the named reference score."""
    missing = [example.trajectory_id for example in examples if getattr(example, name) is None]
    if missing:
        raise LearningError(
            f"{who} needs {name}, and {len(missing)} of {len(examples)} trajectories lack it (first: {missing[0]}). "
            "Score them under the live reference first."
        )


def column(examples: Sequence[TrainingExample], name: str) -> Floats:
    """[N] one field of the examples, NaN where an example has none."""
    return np.array([getattr(example, name) for example in examples], dtype=np.float64)


def to_numpy(values: Tensor) -> Floats:
    """Values without their gradient, on the CPU."""
    return values.detach().to("cpu", torch.float64).numpy()
