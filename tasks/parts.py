"""Finished responses on their way to the store: checked as they come, and never long at risk.

They are flushed every ``flush_seconds``, also while the engine is silent over a last long response, and at the end,
also when an error or a person cuts the sampling short. The stage's own commit comes after, for a whole batch only.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa

from reval_core.errors import RolloutError, StoreError, StoreLocked
from reval_core.problems import Prompt
from reval_core.rollouts import FINISH_REASONS, Sample, SampleRequest
from reval_core.store import trajectories
from reval_core.store.trajectories import PART_SCHEMA, BatchRecord
from tasks.run import Run

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""Seconds to wait for the database while responses come and when sampling was cut short; then the part is kept
beside it."""


class Parts:
    """The responses of a batch that are being sampled.

    Args:
        run: the worker's doors.
        batch: what they belong to.
        prompts: the batch's prompts.
        requests: what is asked of the engine.
    """

    def __init__(self, run: Run, batch: BatchRecord, prompts: list[Prompt], requests: list[SampleRequest]) -> None:
        self._run, self._batch, self._batch_id = run, batch, batch.batch_id
        self._prompts = {prompt.problem_id: prompt for prompt in prompts}
        self._prompt_digests = dict(zip(batch.problem_ids, batch.prompt_ids, strict=True))
        self._asked = {(request.problem_id, request.sample_index): request for request in requests}
        self._rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._failure: StoreError | None = None
        self._flusher = threading.Thread(target=self._flush_now_and_then, daemon=True)
        self.tokens = 0
        """Tokens of the responses that were added."""
        self.reasons: Counter[str] = Counter()
        """How many of them ended why."""

    def __enter__(self) -> Parts:
        self._flusher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._flusher.join()
        if error is None:
            if self._failure is not None:
                raise self._failure
            self._flush(wait_s=None)
        elif self._failure is None:
            try:
                self._flush(wait_s=PATIENCE_S)
            except StoreError as failure:
                log.warning("%s", failure)  # what cut the sampling short is the error to show

    def add(self, sample: Sample) -> None:
        """Take a finished response.

        Raises:
            RolloutError: it is none that was asked for and is still missing, or it is no response.
            StoreError: earlier ones could not be stored; they are kept beside the database.
        """
        if self._failure is not None:
            raise self._failure
        row = self._row(sample)
        with self._lock:
            self._rows.append(row)
        self.tokens += len(sample.token_ids)
        self.reasons[sample.finish_reason] += 1

    @property
    def truncated(self) -> int:
        """How many of them were cut."""
        return self.reasons.total() - self.reasons["stop"]

    def check_whole(self) -> None:
        """Refuse a batch of which the engine left something out.

        Raises:
            RolloutError: names the first one.
        """
        if self._asked:
            problem_id, index = next(iter(self._asked))
            raise RolloutError(
                f"The rollout engine {self._run.engine.name} ended without {len(self._asked)} of the responses it was "
                f"asked for, the first is sample {index} of {problem_id}. The others are stored; start again."
            )

    def _row(self, sample: Sample) -> dict[str, Any]:
        asked = self._asked.get((sample.request.problem_id, sample.request.sample_index))
        where = f"sample {sample.request.sample_index} of {sample.request.problem_id}"
        if asked is None or asked != sample.request:
            raise self._refused(f"{where}, which was not asked for or came before")
        if sample.policy_id not in (None, self._batch.policy_id):
            raise self._refused(f"{where} by the weights of {sample.policy_id}, not of {self._batch.policy_id}")
        if not sample.token_ids:
            raise self._refused(f"{where} without a token; the least is EOS alone")
        if sample.finish_reason not in FINISH_REASONS:
            known = ", ".join(FINISH_REASONS)
            raise self._refused(f"{where} with finish_reason {sample.finish_reason!r}; there are {known}")
        del self._asked[asked.problem_id, asked.sample_index]
        return {
            "trajectory_id": trajectories.trajectory_id(self._batch_id, asked.problem_id, asked.sample_index),
            "problem_id": asked.problem_id,
            "sample_index": asked.sample_index,
            "prompt_id": self._prompt_digests[asked.problem_id],
            "prompt_ids": list(asked.prompt_ids),
            "prompt_text": self._prompts[asked.problem_id].text,
            "response_ids": list(sample.token_ids),
            "completion": self._text(sample),
            "finish_reason": sample.finish_reason,
            "behaviour_logprob": sample.logprob,
            "seed": asked.seed,
        }

    def _refused(self, what: str) -> RolloutError:
        return RolloutError(f"The rollout engine {self._run.engine.name} gave {what}. What it gave before is stored.")

    def _text(self, sample: Sample) -> str:
        """Text of the response without the token that ended it; other special tokens stay visible."""
        ids = sample.token_ids[:-1] if sample.finish_reason == "stop" else sample.token_ids
        text: str = self._run.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _flush_now_and_then(self) -> None:
        while not self._ended.wait(self._run.config.store.flush_seconds):
            try:
                self._flush(wait_s=PATIENCE_S, held="raise")
            except StoreLocked:
                continue  # next time, or at the end: whoever cuts the sampling short waits for this
            except StoreError as failure:
                self._failure = failure
                return

    def _flush(self, *, wait_s: float | None, held: Literal["keep aside", "raise"] = "keep aside") -> None:
        with self._lock:
            rows = pa.Table.from_pylist(self._rows, schema=PART_SCHEMA)
        if rows.num_rows == 0:
            return
        run = self._run
        run.store.append_batch(self._batch, rows, run_id=run.run_id, attempt=run.attempt, wait_s=wait_s, held=held)
        with self._lock:
            del self._rows[: rows.num_rows]
