"""Trajectories as a learner sees them: one example, padded tensors, and the split of an update into micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reval_core.errors import LearningError


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """One trajectory to learn from, with its frozen reward and, where known, its scores under the reference."""

    trajectory_id: str
    group_id: str
    """Equal for the responses to one prompt that were generated together."""
    prompt_ids: npt.NDArray[np.int32]
    """[P] rendered prompt, P >= 1."""
    response_ids: npt.NDArray[np.int32]
    """[H] sampled tokens, EOS included when sampled, H >= 1."""
    reward: float
    weight: float = 1.0
    """Importance weight."""
    ref_logprob: float | None = None
    """Sum over the response tokens of log pi_ref, nats."""
    ref_root_value: float | None = None
    """V_ref(s_1), nats."""

    def __post_init__(self) -> None:
        for name in ("prompt_ids", "response_ids"):
            ids = getattr(self, name)
            if ids.ndim != 1 or len(ids) == 0:
                raise LearningError(
                    f"Trajectory {self.trajectory_id}: {name} has shape {ids.shape}; expected at least one token."
                )
        for name in ("reward", "weight", "ref_logprob", "ref_root_value"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise LearningError(f"Trajectory {self.trajectory_id}: {name} is {value}, not a finite number.")

    def __len__(self) -> int:
        """Tokens of prompt and response."""
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True, eq=False)
class PaddedBatch:
    """B sequences of at most T tokens."""

    input_ids: Tensor
    """[B, T] int64"""
    attention_mask: Tensor
    """[B, T] int64, 1 at prompt and response tokens"""
    response_mask: Tensor
    """[B, T] bool, true at response tokens"""


def pad(
    examples: Sequence[TrainingExample],
    pad_id: int = 0,
    device: torch.device | str = "cpu",
    *,
    side: Literal["left", "right"] = "right",
) -> PaddedBatch:
    """Prompt and response of each example as one row, filled up with `pad_id` to the longest."""
    width = max(len(example) for example in examples)
    input_ids = np.full((len(examples), width), pad_id, dtype=np.int64)
    attention = np.zeros((len(examples), width), dtype=np.int64)
    response = np.zeros((len(examples), width), dtype=bool)
    for row, example in enumerate(examples):
        start = 0 if side == "right" else width - len(example)
        middle, end = start + len(example.prompt_ids), start + len(example)
        input_ids[row, start:middle] = example.prompt_ids
        input_ids[row, middle:end] = example.response_ids
        attention[row, start:end] = 1
        response[row, middle:end] = True
    return PaddedBatch(
        torch.from_numpy(input_ids).to(device),
        torch.from_numpy(attention).to(device),
        torch.from_numpy(response).to(device),
    )


def micro_batches(examples: Sequence[TrainingExample], max_tokens: int, *, packed: bool = False) -> list[list[int]]:
    """Split an update into index lists of at most `max_tokens` tokens, padding counted, longest sequences first.

    Padded, neighbours in length share a micro-batch, so little is padded; packed, each goes where it first fits. A
    batch that does not fit in memory fails at once rather than late. An example longer than the limit stands alone: no
    response is ever split, so its residual is known when its gradient is taken. Equal examples give equal splits.
    """
    if max_tokens < 1:
        raise LearningError(f"max_tokens_per_micro_batch is {max_tokens}; expected at least 1.")
    by_length = sorted(range(len(examples)), key=lambda index: -len(examples[index]))
    batches: list[list[int]] = []
    taken: list[int] = []  # tokens in each
    for index in by_length:
        length = len(examples[index])
        if packed:
            place = next((place for place, tokens in enumerate(taken) if tokens + length <= max_tokens), None)
        else:  # a padded row is as long as its micro-batch's first
            length = len(examples[batches[-1][0]]) if batches else length
            place = len(batches) - 1 if batches and taken[-1] + length <= max_tokens else None
        if place is None:
            batches.append([index])
            taken.append(len(examples[index]))
        else:
            batches[place].append(index)
            taken[place] += length
    return batches


def passes(
    examples: Sequence[TrainingExample], max_tokens: int, ranks: int, *, packed: bool = False
) -> list[list[list[int]]]:
    """Split an update over ranks: [pass][rank] -> indices, a micro-batch as `micro_batches` makes them or an empty one.

    All ranks do as many passes, since they exchange weights in each. As few as can be, and in those the micro-batches
    as small as that number allows, so that the ranks have nearly equal work. Longest first: those of one pass are
    neighbours in length.
    """
    fewest = -(-len(micro_batches(examples, max_tokens, packed=packed)) // ranks)
    total = sum(len(example) for example in examples)
    low, high = min(max_tokens, max(1, -(-total // (fewest * ranks)))), max_tokens
    while low < high:
        middle = (low + high) // 2
        if len(micro_batches(examples, middle, packed=packed)) <= fewest * ranks:
            high = middle
        else:
            low = middle + 1
    batches = micro_batches(examples, high, packed=packed)
    batches += [[] for _ in range(fewest * ranks - len(batches))]
    return [batches[start : start + ranks] for start in range(0, len(batches), ranks)]


def group_indices(examples: Sequence[TrainingExample]) -> npt.NDArray[np.int64]:
    """[N] integers from 0, equal for equal `group_id`.

    Raises:
        LearningError: a group has one member here, so that its statistics mean nothing.
    """
    names, inverse, sizes = np.unique(
        [example.group_id for example in examples], return_inverse=True, return_counts=True
    )
    if (sizes < 2).any():
        raise LearningError(
            f"{int((sizes < 2).sum())} of {len(names)} groups have one trajectory (first: {names[sizes < 2][0]}), and "
            "the objective compares the members of a group. Use at least 2 rollouts_per_prompt, and do not drop "
            "truncated responses (reward.truncated)."
        )
    return inverse.astype(np.int64)
