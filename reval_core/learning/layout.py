"""Where the sequences of a micro-batch stand in the tensors that a model reads: padded rows, or one packed row.

Everything is worked out on the CPU, where lengths are known, so that on a GPU no indexing has to wait for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reval_core.learning.batch import TrainingExample, pad


@dataclass(frozen=True, eq=False)
class Layout:
    """B sequences in R rows of W tokens, and their N response tokens."""

    input_ids: Tensor
    """[R, W] int64; R is B padded, 1 packed"""
    position_ids: Tensor
    """[R, W] int64, from 0 in each sequence"""
    attention_mask: Tensor | None
    """[R, W] int64, 1 at prompt and response tokens; None when packed, where there is nothing else"""
    boundaries: Tensor | None
    """[B + 1] int32, packed: sequence b has the tokens boundaries[b] to boundaries[b + 1]"""
    lengths: tuple[int, ...]
    """[B] tokens of each sequence, on the host; empty when padded"""
    predicting: Tensor
    """[N] the positions right before response tokens, as indices into R * W"""
    labels: Tensor
    """[N] the response tokens"""
    response_mask: Tensor
    """[B, T] bool, where a sequence's response tokens stand in values given back per token"""
    cells: Tensor
    """[N] the true cells of it, as indices into B * T"""
    first: Tensor
    """[B] each sequence's first response token, among the N"""

    def to(self, device: torch.device) -> Layout:
        """The same on a device; a copy to a GPU is not waited for."""
        if device.type == "cpu":
            return self
        tensors = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "lengths"}
        sent = {name: send(value, device) for name, value in tensors.items() if value is not None}
        return replace(self, **sent)  # type: ignore[arg-type]


def send(values: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on a device. To a GPU it goes through pinned memory, so that the host need not wait."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def padded_layout(examples: Sequence[TrainingExample], pad_id: int = 0) -> Layout:
    """One sequence a row, filled up to the longest on the right."""
    batch = pad(examples, pad_id)
    return masked_layout(batch.input_ids, batch.attention_mask.bool(), batch.response_mask)


def masked_layout(input_ids: Tensor, attended: Tensor, response: Tensor) -> Layout:
    """The layout that masks [B, T] describe; padding may stand on either side and hold any ids."""
    input_ids = input_ids.masked_fill(~attended, 0)
    cells = response.flatten().nonzero().squeeze(1)
    lengths = response.sum(dim=1)
    return Layout(
        input_ids=input_ids,
        position_ids=(attended.long().cumsum(dim=1) - 1).clamp(min=0),
        attention_mask=attended.long(),
        boundaries=None,
        lengths=(),
        predicting=cells - 1,
        labels=input_ids.flatten()[cells].long(),
        response_mask=response,
        cells=cells,
        first=lengths.cumsum(dim=0) - lengths,
    )


def packed_layout(examples: Sequence[TrainingExample]) -> Layout:
    """All sequences one after another in one row, with nothing between them."""
    total = np.array([len(example) for example in examples])
    response = np.array([len(example.response_ids) for example in examples])
    ends = total.cumsum()
    in_response = _counted_up(response)
    mask = np.arange(response.max()) < response[:, None]
    arrays = {
        "input_ids": np.concatenate([part for e in examples for part in (e.prompt_ids, e.response_ids)])[None],
        "position_ids": _counted_up(total)[None],
        "predicting": np.repeat(ends - response - 1, response) + in_response,
        "labels": np.concatenate([example.response_ids for example in examples]),
        "cells": np.repeat(np.arange(len(examples)) * mask.shape[1], response) + in_response,
        "first": response.cumsum() - response,
    }
    return Layout(
        **{name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()},
        attention_mask=None,
        boundaries=torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32)),
        lengths=tuple(total.tolist()),
        response_mask=torch.from_numpy(mask),
    )


def _counted_up(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0 .. length - 1 for each length, one after another."""
    return np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
