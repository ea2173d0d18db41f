"""Generate: sample the round's responses with the current policy, and append them to the store as they finish."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

from reval_core.identity import ROLLOUT_VERSION, sample_seed
from reval_core.problems import Prompt
from reval_core.rollouts import SampleRequest, SamplingSettings, sample_within
from reval_core.store import trajectories
from reval_core.store.trajectories import BatchRecord
from tasks import disk
from tasks.commit import Commit
from tasks.parts import Parts
from tasks.references import Batch
from tasks.run import Here, Run
from tasks.stage import stage
from tasks.swap import swap

log = logging.getLogger(__name__)


def batch_record(
    run: Run,
    policy_id: str,
    prompts: list[Prompt],
    *,
    purpose: str,
    samples_per_prompt: int,
    settings: SamplingSettings,
    seed: int,
    round: int,
    generation: int,
) -> BatchRecord:
    """Everything that a batch's id is the digest of."""
    return BatchRecord(
        purpose=purpose,
        policy_id=policy_id,
        weights_checksum=run.policies.checksum(policy_id),
        tokenizer_id=run.base.tokenizer_id,
        round=round,
        generation=generation,
        engine=run.engine.name,
        sampling={
            **settings.recorded(),
            "seed": seed,
            "version": ROLLOUT_VERSION,
            "engine_args": run.config.rollouts.engine.args,
        },
        prompt_ids=tuple(trajectories.prompt_digest(prompt.token_ids) for prompt in prompts),
        problem_ids=tuple(prompt.problem_id for prompt in prompts),
        samples_per_prompt=samples_per_prompt,
    )


def training_batch(here: Here, policy_id: str) -> BatchRecord:
    """The batch that this iteration generates."""
    run = here.run
    return batch_record(
        run,
        policy_id,
        here.prompts,
        purpose="training",
        samples_per_prompt=run.config.rollouts.rollouts_per_prompt,
        settings=run.sampling,
        seed=run.config.run.seed,
        round=here.iteration,
        generation=here.generation,
    )


def _inputs(here: Here, policy_id: str) -> dict[str, Any]:
    return {"batch_id": training_batch(here, policy_id).batch_id}


@stage("generate", reference=Batch, inputs=_inputs)
def generate(here: Here, policy_id: str) -> Commit[Batch]:
    """Sample what is not stored yet of the round's batch; a killed attempt's finished responses are kept."""
    batch = training_batch(here, policy_id)
    return sample_batch(here.run, batch, here.prompts, here.run.sampling, seed_key=batch.batch_id)


def sample_batch(
    run: Run, batch: BatchRecord, prompts: list[Prompt], settings: SamplingSettings, *, seed_key: str
) -> Commit[Batch]:
    """Sample the missing responses of a batch; they go to the store in parts, the stage's row follows when it is whole.

    Args:
        run: the worker's doors.
        batch: what is sampled.
        prompts: in the batch's order.
        settings: how.
        seed_key: what the samples' seeds derive from, beside seed, problem and sample index.
    """
    with run.store.read() as connection:
        before = trajectories.batch_rows(connection, batch.batch_id)
    stored = {(row.problem_id, row.sample_index) for row in before}
    requests = _requests(batch, prompts, seed_key=seed_key, seed=int(batch.sampling["seed"]))
    missing = [r for r in requests if (r.problem_id, r.sample_index) not in stored]
    if stored and missing:
        log.info("%d of %d responses were stored by an earlier attempt", len(stored), len(requests))
    if missing:
        disk.check_responses(run, len(missing), settings.max_new_tokens)
        swap(run, batch.policy_id, missing, settings)
        # the weights that sample, which need not be the first realisation of their policy; no part of the batch's id
        batch = replace(batch, weights_checksum=run.policies.checksum(batch.policy_id))
    with Parts(run, batch, prompts, missing) as parts:
        known = [(row.response_tokens, row.finish_reason) for row in before]
        for done, sample in enumerate(sample_within(run.engine, missing, settings, known), start=1):
            parts.add(sample)
            run.progress.step("generate", done, len(missing))
        parts.check_whole()
    run.engine.sleep()
    _tell_cuts(parts.reasons, len(missing))
    tokens = parts.tokens + sum(row.response_tokens for row in before)
    truncated = parts.truncated + sum(row.truncated for row in before)
    return Commit(
        Batch(batch.batch_id, batch.policy_id, len(requests), tokens, truncated),
        partial(trajectories.check_batch, batch=batch),
    )


def _tell_cuts(reasons: Counter[str], count: int) -> None:
    """Say what a budget or a deadline has cut, beside the round's figure of all that were cut."""
    for reason in ("budget", "deadline"):
        if reasons[reason]:
            log.info("the %s cut %d of %d responses; they are stored as they are", reason, reasons[reason], count)


def _requests(batch: BatchRecord, prompts: list[Prompt], *, seed_key: str, seed: int) -> list[SampleRequest]:
    """One request for each response; a problem that comes twice in a round counts its samples on."""
    requests: list[SampleRequest] = []
    seen: Counter[str] = Counter()
    for prompt in prompts:
        for _ in range(batch.samples_per_prompt):
            index = seen[prompt.problem_id]
            seen[prompt.problem_id] += 1
            requests.append(
                SampleRequest(
                    problem_id=prompt.problem_id,
                    sample_index=index,
                    seed=sample_seed(seed_key, seed, prompt.problem_id, index),
                    prompt_ids=prompt.token_ids,
                )
            )
    return requests
