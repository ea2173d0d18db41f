"""One iteration with adapters in the memory of a small GPU: `python benchmarks/learner.py --lora-24gb`.

The settings are those of configs/qwen2.5-1.5b-lora-24gb.yaml, the weights random in that shape. PyTorch's allocator is
held to 24 GB, so what does not fit fails here as it would there; the CUDA context, some 0.5 GB, is not in it. Responses
stop nowhere before `max_new_tokens`, so the KV cache is as large as it gets. On a CPU everything is tiny.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reval_core.config import Config
from reval_core.config_files import apply_override, parse_config, read_tree
from reval_core.learning.activations import checkpoint_activations
from reval_core.learning.adapters import adapted, adapter_numbers, adapter_tensors
from reval_core.learning.batch import TrainingExample
from reval_core.learning.calibration import calibrate
from reval_core.learning.learner import Learner
from reval_core.learning.reference import reference_scores
from reval_core.rollouts import Sample, SampleRequest, SamplingSettings
from reval_core.rollouts.transformers_engine import TransformersEngine

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "qwen2.5-1.5b-lora-24gb.yaml"
LIMIT = 24e9
"""Bytes."""
ON_A_CPU = (
    "model.dtype=float32",
    "model.kernels=torch",
    "model.lora.rank=4",
    "rollouts.max_prompt_tokens=16",
    "rollouts.max_new_tokens=24",
    "rollouts.engine.max_batch_sequences=8",
    "rollouts.engine.max_batch_tokens=320",
    "optimizer.packing=false",
)


def settings(gpu: bool, overrides: tuple[str, ...] = ()) -> Config:
    """The configuration, made small for a CPU."""
    tree = read_tree(CONFIG)
    for override in (*(() if gpu else ON_A_CPU), *overrides):
        apply_override(tree, override)
    return parse_config(tree)


def one_iteration(bench: Any, config: Config) -> dict[str, Any]:
    """Sample a full decoded batch, score it, test the calibration, make K updates, reset the reference, score again.

    Args:
        bench: a `learner.Bench`: its shape and device.
        config: what it runs under.
    """
    if bench.gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, LIMIT / total))
    assert config.model.lora is not None
    half = config.model.dtype == "bfloat16"
    base = bench.model(torch.bfloat16 if half else torch.float32, config.model.kernels).requires_grad_(False).eval()
    model = adapted(base, config.model.lora)
    checkpoint_activations(model, config.model.gradient_checkpointing, config.model.kernels)
    learner = Learner(model, config.objective, config.optimizer, compute_dtype=config.model.dtype)
    print(f"\nadapters of {adapter_numbers(base, config.model.lora):,} numbers, {CONFIG.name}\n")
    print("| | seconds | peak GB allocated | reserved |\n|---|---|---|---|", flush=True)
    table: dict[str, Any] = {}
    with _phase(bench, table, "sampling"):
        samples = _sample(model, config, base.config.vocab_size)
    examples = _examples(samples)
    with _phase(bench, table, "scoring under the base"):
        scored = _scored(base, examples, config)
    with _phase(bench, table, "calibration"):
        report = calibrate(
            base, scored, config.objective, config.optimizer, policy=model, compute_dtype=config.model.dtype
        )
    updates = []
    for index in range(config.objective.updates.total):
        with _phase(bench, table, f"update {index + 1}"):
            updates.append(learner.update(scored))
    snapshot = adapted(base, config.model.lora, adapter_tensors(model), frozen=True)
    with _phase(bench, table, "scoring under a snapshot, after a reset"):
        scored = _scored(snapshot, examples, config)
    with _phase(bench, table, "update after the reset"):
        updates.append(learner.update(scored))
    tokens = sum(len(sample.token_ids) for sample in samples)
    print(f"\n{len(samples)} responses of {tokens / len(samples):,.0f} tokens")
    print(
        f"calibration: {report.same_layout:g} nats in the same layout; {report.tolerance:.3g} allowed between layouts"
    )
    print(f"losses {', '.join(f'{update.loss:.4g}' for update in updates)}; {sum(u.skipped for u in updates)} skipped")
    peak = max((row["allocated"] for row in table.values()), default=0.0)
    if bench.gpu:
        print(f"peak of the iteration: {peak:.2f} GB allocated, of {LIMIT / 1e9:g} GB allowed")
    return {"phases": table, "peak": peak, "same_layout": report.same_layout}


def _sample(model: Any, config: Config, vocabulary: int) -> list[Sample]:
    rollouts, rng = config.rollouts, np.random.default_rng(0)
    longest = rollouts.max_prompt_tokens + rollouts.max_new_tokens
    count = min(rollouts.engine.max_batch_sequences, rollouts.engine.max_batch_tokens // longest)
    requests = [
        SampleRequest(
            f"problem-{index}", 0, index, tuple(rng.integers(0, vocabulary, rollouts.max_prompt_tokens).tolist())
        )
        for index in range(count)
    ]
    engine = TransformersEngine(
        compute_dtype=config.model.dtype,
        max_batch_sequences=rollouts.engine.max_batch_sequences,
        max_batch_tokens=rollouts.engine.max_batch_tokens,
    )
    engine.load("policy", model)
    return list(engine.sample(requests, SamplingSettings(rollouts.max_new_tokens, 1.0, 1.0, 0, ())))


def _examples(samples: list[Sample]) -> list[TrainingExample]:
    return [
        TrainingExample(
            trajectory_id=sample.request.problem_id,
            group_id=sample.request.problem_id,
            prompt_ids=np.array(sample.request.prompt_ids, np.int32),
            response_ids=np.array(sample.token_ids, np.int32),
            reward=float(index % 3 == 0) - 1 / 3,
        )
        for index, sample in enumerate(samples)
    ]


def _scored(reference: Any, examples: list[TrainingExample], config: Config) -> list[TrainingExample]:
    logprob, value = reference_scores(
        reference,
        examples,
        max_tokens=config.optimizer.max_tokens_per_micro_batch,
        packed=config.optimizer.packing,
        compute_dtype=config.model.dtype,
    )
    return [
        replace(example, ref_logprob=float(a), ref_root_value=float(b))
        for example, a, b in zip(examples, logprob, value, strict=True)
    ]


@contextmanager
def _phase(bench: Any, table: dict[str, Any], name: str) -> Iterator[None]:
    """One line: its time, and the allocator's peaks in it."""
    if bench.gpu:
        torch.cuda.reset_peak_memory_stats()
    bench.wait()
    started = time.perf_counter()
    yield
    bench.wait()
    row = {"seconds": time.perf_counter() - started, "allocated": 0.0, "reserved": 0.0}
    if bench.gpu:
        row["allocated"] = torch.cuda.max_memory_allocated() / 1e9
        row["reserved"] = torch.cuda.max_memory_reserved() / 1e9
    table[name] = row
    print(f"| {name} | {row['seconds']:.1f} | {row['allocated']:.2f} | {row['reserved']:.2f} |", flush=True)
