"""An update over several ranks: seconds, share of the peak, memory of each, and what saving costs. One rank of them.

    python benchmarks/learner.py --ranks 2 --shape qwen2.5-7b      # starts this under torchrun

Weights are random and the same for any number of ranks, so the printed losses are, too, but for rounding: compare
`--ranks 2` with `--ranks 1` of a shape that fits one device.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from learner import ROUND, SHAPES, Bench, ours, read_lengths
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.learning.activations import checkpoint_activations, use_kernels
from reval_core.learning.batch import TrainingExample, passes
from reval_core.learning.sharding import ShardedLearner, shard

UPDATES = 3


def spread_model(shape: str, device: torch.device, kernels: Any, recompute: Any, dtype: str) -> Any:
    """Random weights in shards; a tensor is whole on a rank only while it is drawn."""
    config = Qwen2Config(**SHAPES[shape], max_position_embeddings=32_768, rope_theta=1e6)
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config).eval()
    use_kernels(model, kernels)
    checkpoint_activations(model, recompute, kernels)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    shard(model, mesh, dtype, device)
    for name, parameter in model.named_parameters():
        source = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
        whole = torch.empty(parameter.shape, device=device)
        if whole.dim() > 1:
            whole.normal_(0.0, config.initializer_range, generator=source)
        else:
            whole.fill_(0.0 if name.endswith("bias") else 1.0)
        own = distribute_tensor(whole, mesh, parameter.placements, src_data_rank=None)
        parameter.data.to_local().copy_(own.to_local())
    rotary = type(model.model.rotary_emb)(config)
    for name, buffer in rotary.named_buffers():
        model.model.rotary_emb.get_buffer(name).copy_(buffer)
    return model


def with_scores(examples: list[TrainingExample], vocabulary: int) -> list[TrainingExample]:
    """As a uniform reference would score them, which nothing here has."""
    value = float(np.log(vocabulary))
    return [replace(e, ref_logprob=-value * len(e.response_ids), ref_root_value=value) for e in examples]


def timed(bench: Bench, run: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds with all ranks at the line before and after, and the result."""
    dist.all_reduce(torch.zeros(1))
    bench.wait()
    started = time.perf_counter()
    found = run()
    bench.wait()
    dist.all_reduce(torch.zeros(1))
    return time.perf_counter() - started, found


def measure(bench: Bench, arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Updates on all examples, and what writing weights and state costs."""
    dtype = "bfloat16" if bench.gpu else "float32"
    kernels, recompute = ours(bench)[-1][0], json.loads(arguments.recompute)
    model = spread_model(bench.shape, device, kernels, recompute, dtype)
    optimizer = OptimizerConfig(max_tokens_per_micro_batch=arguments.max_tokens, packing=bench.gpu)
    learner = ShardedLearner(model, ObjectiveConfig(), optimizer, compute_dtype=dtype)
    examples = with_scores(bench.examples, SHAPES[bench.shape]["vocab_size"])
    reports = [learner.update(examples)]
    if bench.gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(UPDATES):
        took, report = timed(bench, lambda: learner.update(examples))
        seconds.append(took)
        reports.append(report)
    peak = torch.tensor([torch.cuda.max_memory_allocated() / 1e9 if bench.gpu else 0.0])
    dist.all_reduce(peak, dist.ReduceOp.MAX)
    # ranks of one machine have one parent, torchrun
    place = Path(arguments.folder or tempfile.gettempdir()) / f"reval-bench-{os.getppid()}"
    try:
        weights_s, _ = timed(bench, lambda: learner.write_weights(place / "model"))
        state_s, _ = timed(bench, lambda: learner.write_state(place / "optimizer"))
    finally:
        if dist.get_rank() == 0:
            shutil.rmtree(place)
    took = float(np.median(seconds))
    tokens = sum(len(example) for example in examples)
    return {
        "ranks": dist.get_world_size(),
        "shape": bench.shape,
        "parameters": bench.parameters,
        "responses": len(examples),
        "tokens": tokens,
        "passes": len(passes(examples, arguments.max_tokens, dist.get_world_size(), packed=bench.gpu)),
        "seconds": took,
        "seconds_per_1024": took * ROUND / len(examples),
        "tokens_per_s": tokens / took,
        "of_peak": bench.operations(examples) / took / bench.peak / dist.get_world_size(),
        "peak_gb": peak.item(),
        "write_weights_s": weights_s,
        "write_state_s": state_s,
        "losses": [report.loss for report in reports],
        "grad_norms": [report.grad_norm for report in reports],
    }


def main() -> None:
    """Measure as a rank; rank 0 prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--responses", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=16384, help="of a micro-batch")
    parser.add_argument("--recompute", default='"mlp"', help='as JSON: false, true, "gates", "mlp"')
    parser.add_argument("--lengths", type=Path)
    parser.add_argument("--folder", type=Path, help="where weights and state are written for a moment")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    lengths, source = read_lengths(arguments.lengths)
    bench = Bench(arguments.shape, device.type, arguments.responses, lengths)
    found = measure(bench, arguments, device) | {"lengths": source, "torch": torch.__version__, "peak": bench.peak}
    if dist.get_rank() == 0:
        for name, value in found.items():
            print(f"{name}: {value}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
