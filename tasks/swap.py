"""Brings the engine to a policy, and holds what it then samples from against the learner's model."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from reval_core.identity import short
from reval_core.rollouts import SampleRequest, SamplingSettings
from reval_core.rollouts.sync import check_sync, measure_sync
from tasks.run import Run

log = logging.getLogger(__name__)


def swap(run: Run, policy_id: str, requests: Sequence[SampleRequest], settings: SamplingSettings) -> None:
    """Have the engine sample from the policy; one with weights of its own is checked first.

    Args:
        run: the worker's doors.
        policy_id: what is to be sampled from.
        requests: what will be asked for; the check takes the first prompts.
        settings: how.

    Raises:
        RolloutError: the engine cannot take the weights, or samples from others.
    """
    model, check, dtype = run.policies.model(policy_id), run.config.rollouts.engine.check, run.config.model.dtype
    run.engine.load(policy_id, model)
    if not (run.engine.copies_weights and check.samples):
        return
    sync = measure_sync(run.engine, model, requests, settings, check, compute_dtype=dtype)
    log.info(
        "%s has the weights of %s: log-probabilities of %d tokens are %.2g nats a token off the model's, at worst %.2g",
        run.engine.name, short(policy_id), sync.tokens, sync.mean, sync.worst,
    )  # fmt: skip
    check_sync(sync, run.engine, policy_id, check, compute_dtype=dtype)
