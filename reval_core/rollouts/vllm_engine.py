"""vLLM in the worker's own process: weights go from the learner to the engine in memory, on one GPU or on a CPU.

The engine is made at the first `load` from the model's configuration, without weights of its own, and stays. Each other
policy is handed over tensor by tensor; between two batches it sleeps, its weights and KV cache given up.
"""

from __future__ import annotations

import gc
import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

from reval_core.config_engine import VllmConfig
from reval_core.errors import ConfigError, RolloutError
from reval_core.rollouts.engine import FINISH_REASONS, Sample, SampleRequest, SamplingSettings
from reval_core.rollouts.logprobs import with_logprobs
from reval_core.rollouts.vllm_library import (
    LOGPROBS_MODE,
    check_arguments,
    finite,
    is_cut,
    library,
    named_weights,
    sampling,
    version,
)


class VllmEngine:
    """Samples with a copy of the weights, by continuous batching.

    Args:
        compute_dtype: precision of weights and forward pass.
        max_batch_sequences: sequences decoded together.
        context: tokens of the longest sequence, prompt and response; None: what the model was made for.
        own: the section ``rollouts.engine.vllm``.
        arguments: further ones of vLLM's EngineArgs.
    """

    copies_weights = True
    keeps = frozenset({"token_budget", "deadline_s"})

    def __init__(
        self,
        *,
        compute_dtype: str = "float32",
        max_batch_sequences: int = 256,
        context: int | None = None,
        own: VllmConfig | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = f"vllm-{version()}/{compute_dtype}"
        self._dtype = compute_dtype
        self._sequences, self._context = max_batch_sequences, context
        self._own, self._arguments = own or VllmConfig(), dict(arguments or {})
        self._engine: Any = None
        self._policy_id: str | None = None
        self._model: Any = None
        self._sleeps = False

    def load(self, policy_id: str, model: Any) -> None:
        """Take the policy's weights over, unless they are there; the first time, make the engine.

        Raises:
            RolloutError: the policy is an adapter, or another architecture than the engine was made for.
            ConfigError: vLLM cannot run with these arguments or on the model's device.
        """
        if self._policy_id == policy_id and self._model is model:
            return
        weights = list(named_weights(model))
        self._policy_id = None
        with undisturbed():
            if self._engine is None:
                self._engine = self._start(model)
            if self._sleeps:
                self._engine.wake_up(tags=["weights"])
            self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            if self._sleeps:
                self._engine.wake_up(tags=["kv_cache"])
            self._engine.reset_prefix_cache()  # what is cached of prompts was computed with other weights
        self._sleeps = False
        self._policy_id, self._model = policy_id, model

    def sample(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Iterator[Sample]:
        """Finished responses as they end. With top_k or top_p their log-probabilities are the model's own."""
        if self._policy_id is None:
            raise RolloutError("The vLLM engine was asked to sample before a policy was loaded, or after it slept.")
        samples = self._sampled(requests, settings)
        if is_cut(settings):
            return with_logprobs(samples, self._model, settings.temperature, compute_dtype=self._dtype)
        return samples

    def sleep(self) -> None:
        """Let go of the model, and give up weights and KV cache where that is configured and on a GPU."""
        self._policy_id = self._model = None  # whose weights may be learned from now on
        if self._engine is None or self._sleeps or not self._can_sleep:
            return
        with undisturbed():
            self._engine.sleep(level=2)  # the weights are not kept: the next load brings newer ones
        self._sleeps = True

    def close(self) -> None:
        """End the engine, and with it every process group of this process: vLLM leaves none behind."""
        engine, self._engine, self._policy_id, self._model, self._sleeps = self._engine, None, None, None, False
        if engine is None:
            return
        engine.engine_core.shutdown()
        del engine
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def limits(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> np.ndarray:
        """[B] tokens of each response at most; a subclass may have lengths of its own."""
        return np.full(len(requests), settings.max_new_tokens)

    @property
    def _can_sleep(self) -> bool:
        return self._own.sleeps and torch.cuda.is_available()

    def _sampled(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Iterator[Sample]:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        engine, policy_id = self._engine, self._policy_id
        end = math.inf if settings.deadline_s is None else monotonic() + settings.deadline_s
        # what is unfinished at a deadline has to be here, token by token; without one a response comes when it is whole
        kind = RequestOutputKind.FINAL_ONLY if end == math.inf else RequestOutputKind.DELTA
        under_way: dict[str, _Response] = {}
        try:
            for number, (request, limit) in enumerate(zip(requests, self.limits(requests, settings), strict=True)):
                asked = sampling(request, replace(settings, max_new_tokens=int(limit)))
                own = SamplingParams(**asked, detokenize=False, output_kind=kind)
                read = [*request.prompt_ids, *request.begun]
                engine.add_request(str(number), {"type": "token", "prompt_token_ids": read}, own)
                under_way[str(number)] = _Response(request)
            while under_way:
                with undisturbed():
                    outputs = engine.step()
                for output in outputs:
                    under_way[output.request_id].add(output.outputs[0])
                    if output.finished:
                        yield under_way.pop(output.request_id).sample(output.outputs[0].finish_reason, policy_id)
                late = [key for key, response in under_way.items() if response.tokens] if monotonic() >= end else []
                if late:  # whoever waits for a first token gets it
                    engine.abort_request(late)
                for key in late:
                    yield under_way.pop(key).sample("deadline", policy_id)
        finally:
            if under_way:  # nobody asks for them any more
                engine.abort_request(list(under_way))

    def _start(self, model: Any) -> Any:
        device = next(model.parameters()).device
        if device.type == "cuda" and device.index not in (None, 0):
            raise ConfigError(
                f"rollouts.engine.use 'vllm' works on the first GPU that its process sees; the model is on {device}. "
                f"Set CUDA_VISIBLE_DEVICES={device.index} and model.device: cuda."
            )
        check_arguments(self._arguments)
        vllm = library()
        made_for = getattr(model.config, "max_position_embeddings", None)
        lengths = [length for length in (self._context, made_for) if length is not None]
        with tempfile.TemporaryDirectory(prefix="reval-vllm-") as folder:
            _write_outline(model, Path(folder))
            arguments = vllm.EngineArgs(
                model=folder,
                load_format="dummy",  # the first weights come like all others
                skip_tokenizer_init=True,
                generation_config="vllm",
                logprobs_mode=LOGPROBS_MODE,
                dtype=self._dtype,
                seed=0,
                max_model_len=min(lengths) if lengths else None,
                max_num_seqs=self._sequences,
                gpu_memory_utilization=self._own.memory,
                enable_sleep_mode=self._can_sleep,
                distributed_executor_backend="uni",
                disable_log_stats=True,
                **{"use_tqdm_on_load": False} | self._arguments,  # its bars would be drawn across our progress
            )
            try:
                return vllm.LLMEngine.from_engine_args(arguments)
            except (ValueError, TypeError, RuntimeError) as error:
                raise ConfigError(f"vLLM {version()} cannot run {type(model).__name__} so: {error}") from error


def _write_outline(model: Any, folder: Path) -> None:
    """What vLLM is to build: the model's configuration, with no weights beside it."""
    model.config.save_pretrained(folder)


class _Response:
    """What has been sampled of a response, with what was begun before."""

    def __init__(self, request: SampleRequest) -> None:
        self.request = request
        self.tokens = list(request.begun)
        self.logprob = request.begun_logprob

    def add(self, output: Any) -> None:
        """Tokens that are new, with their log-probabilities."""
        self.tokens += output.token_ids
        self.logprob += sum(
            found[token].logprob for token, found in zip(output.token_ids, output.logprobs, strict=True)
        )

    def sample(self, reason: Any, policy_id: str | None) -> Sample:
        """The response as it stands.

        Raises:
            RolloutError: it did not end as one that we asked for.
        """
        if reason not in FINISH_REASONS:
            raise RolloutError(
                f"vLLM ended sample {self.request.sample_index} of {self.request.problem_id} with {reason!r} after "
                f"{len(self.tokens)} tokens; what ended before is stored."
            )
        return Sample(self.request, tuple(self.tokens), reason, finite(self.logprob, policy_id), policy_id)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Give random states and threads of this process back as they were: vLLM seeds all and sets threads of its own."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    set_threads, threads = torch.set_num_threads, torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads = set_threads
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu)
