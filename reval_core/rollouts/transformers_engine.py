"""The default engine: transformers' forward pass with a KV cache and our own sampling loop.

The loop is ours because `generate` applies the defaults of a model's generation_config.json (top-p, top-k, repetition
penalty) in silence and has one random state for a whole batch. Here only the settings of the run count, and each
sample has its own noise. Sequences of like length are decoded together; finished ones leave the batch. A deadline's
time is shared among the decoded batches by their size, so that none goes without and order decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from reval_core.rollouts.engine import FinishReason, Sample, SampleRequest, SamplingSettings
from reval_core.rollouts.noise import uniform
from reval_core.rollouts.sampling import sample_step


class TransformersEngine:
    """Samples with the model object it is given, so learner and engine share one copy of the weights.

    Args:
        compute_dtype: precision of the forward pass; float32, or bfloat16 under autocast.
        pad_id: token put into padding; it never reaches the model.
        max_batch_sequences: sequences decoded together.
        max_batch_tokens: prompt plus response tokens of a decoded batch, which bounds the KV cache.
    """

    keeps = frozenset({"token_budget", "deadline_s"})
    copies_weights = False

    def __init__(
        self,
        *,
        compute_dtype: str = "float32",
        pad_id: int = 0,
        max_batch_sequences: int = 256,
        max_batch_tokens: int = 1_000_000,
    ) -> None:
        self.name = f"transformers/{compute_dtype}"
        self._autocast = compute_dtype == "bfloat16"
        self._pad_id = pad_id
        self._max_sequences = max_batch_sequences
        self._max_tokens = max_batch_tokens
        self._model: Any = None
        self._policy_id: str | None = None

    def load(self, policy_id: str, model: Any) -> None:
        """Sample from this model object from now on."""
        self._policy_id, self._model = policy_id, model

    def sleep(self) -> None:
        """Nothing: there is no memory but the model's."""

    def close(self) -> None:
        """Let go of the model."""
        self._model = None

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Iterator[Sample]:
        """Responses; a batch of like prompt lengths at a time, each response as soon as it ends."""
        training = self._model.training
        self._model.eval()
        end = monotonic() + (math.inf if settings.deadline_s is None else settings.deadline_s)
        left = len(requests)
        try:
            for batch in list(self._batches(requests, settings)):
                now = monotonic()
                for sample in self._decode(batch, settings, until=now + (end - now) * len(batch) / left):
                    yield replace(sample, policy_id=self._policy_id)
                left -= len(batch)
        finally:
            self._model.train(training)

    def limits(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> np.ndarray:
        """[B] tokens of each response at most; a subclass may have lengths of its own."""
        return np.full(len(requests), settings.max_new_tokens)

    def _batches(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Iterator[list[SampleRequest]]:
        batch: list[SampleRequest] = []
        # longest first: a batch that does not fit the memory fails at once
        for request in sorted(requests, key=lambda r: -_width(r)):
            # those that go on have all come equally far, so the widest also ends widest
            longest = len(batch[0].prompt_ids if batch else request.prompt_ids) + settings.max_new_tokens
            if batch and (len(batch) >= self._max_sequences or (len(batch) + 1) * longest > self._max_tokens):
                yield batch
                batch = []
            batch.append(request)
        if batch:
            yield batch

    def _decode(self, requests: list[SampleRequest], settings: SamplingSettings, *, until: float) -> Iterator[Sample]:
        device = next(self._model.parameters()).device
        stop = torch.tensor(settings.stop_ids, device=device)
        state = _Rows.start(requests, self.limits(requests, settings), self._pad_id, device)
        logits = self._forward(state, state.prompt)
        while True:
            noise = torch.from_numpy(uniform(state.seeds, state.lengths))
            tokens, logprobs = sample_step(logits, noise, settings)
            state.append(tokens, logprobs)
            reasons = state.reasons(torch.isin(tokens, stop), late=monotonic() >= until)
            yield from state.ended(reasons)
            if all(reasons):
                return
            state.leave(reasons)
            logits = self._forward(state, state.newest())

    def _forward(self, state: _Rows, input_ids: Tensor) -> Tensor:
        """[B, V] logits behind the last token of each row."""
        positions = (state.mask.cumsum(-1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=self._autocast):
            output = self._model(
                input_ids=input_ids,
                attention_mask=state.mask,
                position_ids=positions,
                past_key_values=state.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return output.logits[:, -1]


def _width(request: SampleRequest) -> int:
    """Tokens that stand before the next one."""
    return len(request.prompt_ids) + len(request.begun)


@dataclass
class _Rows:
    """The sequences that are still decoded; every field has one row each."""

    requests: list[SampleRequest]
    prompt: Tensor
    """[B, P] left-padded ids of the prompt and of what was begun"""
    mask: Tensor
    """[B, P + t] 1 where a token stands"""
    seeds: np.ndarray
    """[B] uint64"""
    lengths: np.ndarray
    """[B] uint64, tokens of the response so far"""
    limits: np.ndarray
    """[B] tokens of the response at most"""
    responses: list[list[int]]
    logprobs: list[float]
    cache: DynamicCache

    @classmethod
    def start(cls, requests: list[SampleRequest], limits: np.ndarray, pad_id: int, device: torch.device) -> _Rows:
        """Left-padded rows of the requests, with nothing sampled yet behind what was begun."""
        width = max(map(_width, requests))
        prompt = np.full((len(requests), width), pad_id, dtype=np.int64)
        mask = np.zeros((len(requests), width), dtype=np.int64)
        for row, request in enumerate(requests):
            prompt[row, width - _width(request) :] = request.prompt_ids + request.begun
            mask[row, width - _width(request) :] = 1
        return cls(
            requests=list(requests),
            prompt=torch.from_numpy(prompt).to(device),
            mask=torch.from_numpy(mask).to(device),
            seeds=np.array([request.seed for request in requests], dtype=np.uint64),
            lengths=np.array([len(request.begun) for request in requests], dtype=np.uint64),
            limits=limits,
            responses=[list(request.begun) for request in requests],
            logprobs=[request.begun_logprob for request in requests],
            cache=DynamicCache(),
        )

    def append(self, tokens: Tensor, logprobs: Tensor) -> None:
        for row, (token, logprob) in enumerate(zip(tokens.tolist(), logprobs.tolist(), strict=True)):
            self.responses[row].append(token)
            self.logprobs[row] += logprob
        self.lengths = self.lengths + np.uint64(1)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.requests), 1)], dim=1)

    def newest(self) -> Tensor:
        """[B, 1] last token of each row"""
        return torch.tensor([[response[-1]] for response in self.responses], device=self.mask.device)

    def reasons(self, stopped: Tensor, *, late: bool) -> list[FinishReason | None]:
        """Why each row has ended; None where it goes on."""
        unended: FinishReason | None = "deadline" if late else None
        full = (self.lengths >= self.limits).tolist()
        return [
            "stop" if ended else "length" if most else unended
            for ended, most in zip(stopped.tolist(), full, strict=True)
        ]

    def ended(self, reasons: list[FinishReason | None]) -> Iterator[Sample]:
        for row, reason in enumerate(reasons):
            if reason is not None:
                yield Sample(
                    request=self.requests[row],
                    token_ids=tuple(self.responses[row]),
                    finish_reason=reason,
                    logprob=self.logprobs[row],
                )

    def leave(self, reasons: list[FinishReason | None]) -> None:
        """Take ended rows out of the batch and the cache."""
        if not any(reasons):
            return
        rows = [row for row, reason in enumerate(reasons) if reason is None]
        keep = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(keep)
        self.mask = self.mask[keep]
        self.seeds, self.lengths, self.limits = self.seeds[rows], self.lengths[rows], self.limits[rows]
        self.requests = [self.requests[row] for row in rows]
        self.responses = [self.responses[row] for row in rows]
        self.logprobs = [self.logprobs[row] for row in rows]
