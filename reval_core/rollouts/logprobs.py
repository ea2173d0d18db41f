"""Log-probabilities of sampled responses by the model itself, in whole forward passes without an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from reval_core.rollouts.engine import Sample

MOST_TOKENS = 4096
"""Tokens of a forward pass at most, padding counted: their logits are float32 numbers of the whole vocabulary."""


def with_logprobs(samples: Iterable[Sample], model: Any, temperature: float, *, compute_dtype: str) -> Iterator[Sample]:
    """The same samples with the log-probabilities that the model gives them, some at a time, in the order given."""
    waiting: list[Sample] = []
    longest = 0
    for sample in samples:
        longest = max(longest, _length(sample))
        if waiting and longest * (len(waiting) + 1) > MOST_TOKENS:
            yield from _replaced(waiting, model, temperature, compute_dtype)
            waiting, longest = [], _length(sample)
        waiting.append(sample)
    yield from _replaced(waiting, model, temperature, compute_dtype)


def response_logprobs(model: Any, samples: Sequence[Sample], temperature: float, *, compute_dtype: str) -> list[float]:
    """Sum of log softmax(logits / temperature) of each response's tokens in nats, as `Sample.logprob` is defined.

    Args:
        model: the policy; left as it was.
        samples: computed side by side, padded at the end, where a causal model does not look.
        temperature: of the sampling.
        compute_dtype: "float32", or "bfloat16" under autocast.
    """
    if not samples:
        return []
    device = next(model.parameters()).device
    width = max(_length(sample) for sample in samples)
    ids = torch.zeros((len(samples), width), dtype=torch.long)  # [B, T]
    response = torch.zeros((len(samples), width), dtype=torch.bool)  # [B, T] tokens that were sampled
    for row, sample in enumerate(samples):
        whole = (*sample.request.prompt_ids, *sample.token_ids)
        ids[row, : len(whole)] = torch.tensor(whole)
        response[row, len(sample.request.prompt_ids) : len(whole)] = True
    training = model.training
    model.eval()
    try:
        logprobs = _token_logprobs(model, ids.to(device), temperature, autocast=compute_dtype == "bfloat16")
    finally:
        model.train(training)
    kept = torch.where(response[:, 1:], logprobs.cpu().double(), 0.0)
    return kept.sum(-1).tolist()


@torch.no_grad()
def _token_logprobs(model: Any, ids: Tensor, temperature: float, *, autocast: bool) -> Tensor:
    """[B, T - 1] float32: of each token after the first; long sequences go through the KV cache piece by piece."""
    cache, pieces = DynamicCache(), []
    step = max(1, MOST_TOKENS // ids.shape[0])
    for start in range(0, ids.shape[1] - 1, step):
        read = ids[:, start : min(start + step, ids.shape[1] - 1)]
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=autocast):
            logits = model(input_ids=read, past_key_values=cache, use_cache=True).logits
        following = ids[:, start + 1 : start + 1 + read.shape[1], None]
        pieces.append(torch.log_softmax(logits.float() / temperature, dim=-1).gather(-1, following).squeeze(-1))
    return torch.cat(pieces, dim=1)


def _replaced(samples: list[Sample], model: Any, temperature: float, compute_dtype: str) -> Iterator[Sample]:
    sums = response_logprobs(model, samples, temperature, compute_dtype=compute_dtype)
    for sample, logprob in zip(samples, sums, strict=True):
        yield replace(sample, logprob=logprob)


def _length(sample: Sample) -> int:
    return len(sample.request.prompt_ids) + len(sample.token_ids)
