"""Generate: sample the round's responses with the current policy, and append them to the store as they finish."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from reval_core.identity import ROLLOUT_VERSION, sample_seed
from reval_core.problems import Prompt
from reval_core.rollouts import Sample, SampleRequest, SamplingSettings
from reval_core.store import trajectories
from reval_core.store.trajectories import PART_SCHEMA, BatchRecord
from tasks.commit import Commit
from tasks.references import Batch
from tasks.run import Here, Run
from tasks.stage import stage

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
            **asdict(settings),
            "stop_ids": list(settings.stop_ids),
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
    """Sample the missing responses of a batch; parts go to the store every ``flush_seconds``, the last with the stage.

    Args:
        run: the worker's doors.
        batch: what is sampled.
        prompts: in the batch's order.
        settings: how.
        seed_key: what the samples' seeds derive from, beside seed, problem and sample index.
    """
    with run.store.read() as connection:
        stored = trajectories.stored_samples(connection, batch.batch_id)
    requests = _requests(batch, prompts, seed_key=seed_key, seed=int(batch.sampling["seed"]))
    missing = [r for r in requests if (r.problem_id, r.sample_index) not in stored]
    if stored and missing:
        log.info("%d of %d responses were stored by an earlier attempt", len(stored), len(requests))
    if missing:
        run.engine.load(batch.policy_id, run.policies.model(batch.policy_id))
        # the weights that sample, which need not be the first realisation of their policy; no part of the batch's id
        batch = replace(batch, weights_checksum=run.policies.checksum(batch.policy_id))
    part = _Part(run, batch, {prompt.problem_id: prompt for prompt in prompts})
    if missing:
        for done, sample in enumerate(run.engine.sample(missing, settings), start=1):
            part.add(sample)
            run.progress.step("generate", done, len(missing))
    rows = part.table()

    def write(connection: Any) -> None:
        trajectories.append_part(connection, batch, rows, run_id=run.run_id, attempt=run.attempt)

    def rescue(error: Exception) -> None:
        run.store.keep_aside(batch, rows, error, run_id=run.run_id, attempt=run.attempt)

    tokens, truncated = part.tokens, part.truncated
    if stored:
        with run.store.read() as connection:
            known = trajectories.batch_rows(connection, batch.batch_id)
        fresh = set(rows.column("trajectory_id").to_pylist())
        before = [row for row in known if row.trajectory_id not in fresh | part.flushed]
        tokens += sum(row.response_tokens for row in before)
        truncated += sum(row.truncated for row in before)
    return Commit(Batch(batch.batch_id, batch.policy_id, len(requests), tokens, truncated), write, rescue)


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


class _Part:
    """Finished responses that are not in the store yet."""

    def __init__(self, run: Run, batch: BatchRecord, prompts: dict[str, Prompt]) -> None:
        self._run, self._batch, self._prompts = run, batch, prompts
        self._batch_id = batch.batch_id
        self._prompt_digests = dict(zip(batch.problem_ids, batch.prompt_ids, strict=True))
        self._rows: list[dict[str, Any]] = []
        self._flushed_at = time.monotonic()
        self.flushed: set[str] = set()
        self.tokens = 0
        self.truncated = 0

    def add(self, sample: Sample) -> None:
        """Take a finished response, and send what waits to the store when it has waited long enough."""
        request = sample.request
        prompt = self._prompts[request.problem_id]
        self._rows.append(
            {
                "trajectory_id": trajectories.trajectory_id(self._batch_id, request.problem_id, request.sample_index),
                "problem_id": request.problem_id,
                "sample_index": request.sample_index,
                "prompt_id": self._prompt_digests[request.problem_id],
                "prompt_ids": list(request.prompt_ids),
                "prompt_text": prompt.text,
                "response_ids": list(sample.token_ids),
                "completion": self._text(sample),
                "finish_reason": sample.finish_reason,
                "behaviour_logprob": sample.logprob,
                "seed": request.seed,
            }
        )
        self.tokens += len(sample.token_ids)
        self.truncated += sample.finish_reason == "length"
        if time.monotonic() - self._flushed_at > self._run.config.store.flush_seconds:
            self._flush()

    def table(self) -> pa.Table:
        return pa.Table.from_pylist(self._rows, schema=PART_SCHEMA)

    def _flush(self) -> None:
        rows = self.table()
        self._run.store.append_batch(self._batch, rows, run_id=self._run.run_id, attempt=self._run.attempt)
        self.flushed |= set(rows.column("trajectory_id").to_pylist())
        self._rows = []
        self._flushed_at = time.monotonic()

    def _text(self, sample: Sample) -> str:
        """Text of the response without the token that ended it; other special tokens stay visible."""
        ids = sample.token_ids[:-1] if sample.finish_reason == "stop" else sample.token_ids
        text: str = self._run.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text
