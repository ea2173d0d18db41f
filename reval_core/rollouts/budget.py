"""A budget of tokens for a batch of responses: the longest are cut, all at one length, whatever is decoded when.

Every response may first have an equal share of the budget. What those that end sooner leave is shared equally among
the others, and so on, until less than a `LEAST_STEP`-th of the length so far would be gained; then what has not ended
is cut there, with finish_reason budget. So the budget acts as a max_new_tokens that a round finds for itself: it is a
function of the responses alone and not of clocks, batches or crashes, it cuts the longest and lets none be missing. A
response of the batch that was stored by an earlier attempt counts as if it had been sampled now.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import monotonic

from reval_core.rollouts.engine import FinishReason, RolloutEngine, Sample, SampleRequest, SamplingSettings

LEAST_STEP = 16
"""To go on, an engine reads again what a response has so far: for less than this part of it that does not pay."""


def sample_within(
    engine: RolloutEngine,
    requests: Sequence[SampleRequest],
    settings: SamplingSettings,
    stored: Sequence[tuple[int, str]] = (),
) -> Iterator[Sample]:
    """Sample under the settings with their budget; what is cut by it comes last.

    Args:
        engine: one that keeps what the settings ask for.
        requests: what is missing of the batch.
        settings: without a budget the engine's own samples come through as they are.
        stored: (tokens, finish_reason) of the batch's other responses.
    """
    if not requests:
        return
    if settings.token_budget is None:
        yield from engine.sample(requests, settings)
        return
    end = None if settings.deadline_s is None else monotonic() + settings.deadline_s
    budget, whole = settings.token_budget, len(requests) + len(stored)
    # a stored response that the budget cut goes on at every length up to where it was cut
    ended: list[float] = [math.inf if reason == "budget" else tokens for tokens, reason in stored]
    asked = {(request.problem_id, request.sample_index): request for request in requests}
    length, going_on = max(1, min(settings.max_new_tokens, budget // whole)), list(requests)
    while True:
        left_s = None if end is None else max(0.0, end - monotonic())
        unended: list[Sample] = []
        step = replace(settings, max_new_tokens=length, token_budget=None, deadline_s=left_s)
        for sample in engine.sample(going_on, step):
            done = replace(sample, request=asked[sample.request.problem_id, sample.request.sample_index])
            if sample.finish_reason == "length" and len(sample.token_ids) == length < settings.max_new_tokens:
                unended.append(done)
            else:
                ended.append(len(sample.token_ids))
                yield done
        late = end is not None and monotonic() >= end
        further = 0 if late else _share(budget, length, ended, len(unended))
        if not unended or further < max(1, length // LEAST_STEP):
            yield from _cut(unended, "deadline" if late else "budget")
            return
        length = min(settings.max_new_tokens, length + further)
        going_on = [_going_on(sample) for sample in unended]


def _share(budget: int, length: int, ended: Sequence[float], unended: int) -> int:
    """Tokens by which each response that is longer than ``length`` may go on."""
    spent = int(sum(min(tokens, length) for tokens in ended)) + unended * length
    longer = sum(tokens > length for tokens in ended) + unended
    return (budget - spent) // longer if longer else 0


def _going_on(sample: Sample) -> SampleRequest:
    return replace(sample.request, begun=sample.token_ids, begun_logprob=sample.logprob)


def _cut(samples: Sequence[Sample], reason: FinishReason) -> Iterator[Sample]:
    for sample in samples:
        yield replace(sample, finish_reason=reason)
