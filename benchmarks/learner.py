"""The learner at the size of language models: tokens a second, share of the machine's peak, memory, seconds per update.

    python benchmarks/learner.py                              # on a GPU: the shape of Qwen2.5-1.5B, random weights
    python benchmarks/learner.py --shape tiny --responses 8   # what a CPU does unasked
    python benchmarks/learner.py --json result.json
    python benchmarks/learner.py --lora-24gb                  # one iteration with adapters, held to 24 GB
    python benchmarks/learner.py --ranks 2 --shape qwen2.5-7b # over two GPUs (learner_ranks.py), and nothing else

Response lengths are those of REVAL_DATA/completions/rollout_groups_areal.jsonl.gz, of `--lengths FILE` (a JSON list of
[prompt, response] token counts), or, where there is neither, log-normal with a median of 3,700 tokens; all are cut so
that prompt and response have at most 8,192. Token ids are random. Floating-point operations are
6 N T + 6 layers width sum(T_i^2), recomputation not counted; the peak they are held against is an 8192^3 bfloat16
product of random numbers timed in the same run. Memory is the allocator's peak, less what it is said to stand beside.

Rows named "HF" are Hugging Face's own forward pass with all logits; rows named "TRL" its LM head without logits and the
loss of GRPO, where trl is installed. Both have pure bfloat16 weights and padded rows, so they hold and add up less.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lora_iteration
import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.learning.activations import checkpoint_activations, use_kernels
from reval_core.learning.batch import TrainingExample, micro_batches, pad
from reval_core.learning.calibration import calibrate
from reval_core.learning.learner import Learner
from reval_core.learning.precision import round_weights
from reval_core.learning.reference import reference_scores, set_learning_mode

ROOT = Path(__file__).resolve().parents[1]
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-1.5b": {
        "vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
    "qwen2.5-7b": {
        "vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False,
    },
    # heads of 32, which vLLM has kernels for on a CPU
    "tiny": {
        "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
    },
}  # fmt: skip
LONGEST = 8192
"""Tokens of prompt and response."""
ROUND = 1024
"""Responses of an update in the published settings."""
WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
"""Calls that hold up the host; one of the second is the benchmark's own."""


class Bench:
    """A shape on a device, its examples, and the machine's peak."""

    def __init__(self, shape: str, device: str, responses: int, lengths: list[tuple[int, int]]) -> None:
        self.shape, self.device, self.gpu = shape, device, device == "cuda"
        self.longest = LONGEST if self.gpu else 256
        rng = np.random.default_rng(0)
        chosen = [lengths[index] for index in rng.permutation(len(lengths))]
        scale = self.longest / LONGEST
        self.examples = [
            self._example(rng, index, *(max(1, int(scale * part)) for part in chosen[index % len(chosen)]))
            for index in range(responses)
        ]
        self.one = [self._example(rng, responses, self.longest // 64, self.longest)]
        self.peak = self._peak()

    def _example(self, rng: np.random.Generator, index: int, prompt: int, response: int) -> TrainingExample:
        vocabulary = SHAPES[self.shape]["vocab_size"]
        ids = rng.integers(0, vocabulary, min(prompt + response, self.longest)).astype(np.int32)
        prompt = min(prompt, len(ids) - 1)
        return TrainingExample(str(index), str(index // 8), ids[:prompt], ids[prompt:], float(index % 3 == 0))

    def _peak(self) -> float:
        """Operations a second of a square bfloat16 product (float32 on a CPU)."""
        size, dtype = (8192, torch.bfloat16) if self.gpu else (1024, torch.float32)
        a, b = (torch.randn(size, size, device=self.device, dtype=dtype) for _ in range(2))
        return 2 * size**3 / self.seconds(lambda: a @ b, repeats=20, warm=5)

    def model(self, dtype: torch.dtype = torch.float32, kernels: str = "torch", recompute: Any = False) -> Any:
        """Random weights."""
        torch.manual_seed(0)
        config = Qwen2Config(**SHAPES[self.shape], max_position_embeddings=32_768, rope_theta=1e6)
        with torch.device(self.device):
            model = Qwen2ForCausalLM(config).eval()
        if dtype == torch.bfloat16:
            round_weights(model)
        use_kernels(model, kernels)  # type: ignore[arg-type]
        checkpoint_activations(model, recompute, kernels)  # type: ignore[arg-type]
        set_learning_mode(model)
        return model

    def operations(self, examples: list[TrainingExample]) -> float:
        """Of a forward and a backward pass."""
        lengths = np.array([len(example) for example in examples], dtype=float)
        settings = SHAPES[self.shape]
        attention = 6 * settings["num_hidden_layers"] * settings["hidden_size"] * (lengths**2).sum()
        return float(6 * self.parameters * lengths.sum() + attention)

    @property
    def parameters(self) -> int:
        """Of the model, tied ones once."""
        with torch.device("meta"):
            return sum(p.numel() for p in Qwen2ForCausalLM(Qwen2Config(**SHAPES[self.shape])).parameters())

    def seconds(self, run: Callable[[], object], repeats: int = 3, warm: int = 1) -> float:
        """Median wall seconds with the device idle before and after."""
        for _ in range(warm):
            run()
        found = []
        for _ in range(repeats):
            self.wait()
            started = time.perf_counter()
            run()
            self.wait()
            found.append(time.perf_counter() - started)
        return statistics.median(found)

    def wait(self) -> None:
        """For the device."""
        if self.gpu:
            torch.cuda.synchronize()

    def gigabytes(self, run: Callable[[], object], beside: float) -> float | None:
        """Peak of a run less `beside` bytes; None on a CPU."""
        if not self.gpu:
            return None
        gc.collect()
        self.wait()
        torch.cuda.reset_peak_memory_stats()
        run()
        self.wait()
        return (torch.cuda.max_memory_allocated() - beside) / 1e9

    def row(self, name: str, examples: list[TrainingExample], run: Callable[[], object], beside: float) -> dict:
        """One line: a run over examples, measured."""
        seconds = self.seconds(run)
        tokens = sum(len(example) for example in examples)
        found = {
            "name": name,
            "seconds": seconds,
            "tokens_per_s": tokens / seconds,
            "of_peak": self.operations(examples) / seconds / self.peak,
            "beside_gb": self.gigabytes(run, beside),
        }
        memory = "" if found["beside_gb"] is None else f"{found['beside_gb']:.1f}"
        print(
            f"| {name} | {seconds:.3f} | {found['tokens_per_s']:,.0f} | {found['of_peak']:.3f} | {memory} |", flush=True
        )
        return found


def head(title: str, beside: str) -> None:
    """A table's first lines."""
    print(
        f"\n{title}\n\n| | seconds | tokens/s | of the peak | peak GB beside {beside} |\n|---|---|---|---|---|",
        flush=True,
    )


def plain_pass(model: Any, batches: list[list[TrainingExample]], device: str) -> None:
    """Residuals of padded rows by the model's own forward pass with all logits, and their gradient."""
    for examples in batches:
        batch = pad(examples, device=device)
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
        logits, labels, response = logits[:, :-1].float(), batch.input_ids[:, 1:], batch.response_mask[:, 1:]
        value = logits.logsumexp(-1)
        logprob = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1) - value
        first = response.int().argmax(1, keepdim=True)
        residual = (logprob * response).sum(1) + value.gather(1, first).squeeze(1)
        residual.square().mean().backward()


def trl_pass(model: Any, batches: list[list[TrainingExample]], device: str) -> None:
    """GRPO's clipped loss of padded rows through TRL's LM head, which forms no logits."""
    for examples in batches:
        batch = pad(examples, device=device)
        labels = batch.input_ids.masked_fill(~batch.response_mask, -100)
        found = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels, fused_lm_head=True)
        logprob, mask = found.log_probs, batch.response_mask[:, -found.log_probs.shape[1] :]
        ratio = (logprob - logprob.detach()).exp()
        loss = -torch.minimum(ratio, ratio.clamp(0.8, 1.28)) * mask
        (loss.sum() / mask.sum()).backward()


def baselines(bench: Bench) -> Iterator[tuple[str, Any, Callable[[Any, list, str], None]]]:
    """Name, model and pass of everything that is not ours."""
    dtype = torch.bfloat16 if bench.gpu else torch.float32
    yield "HF, all logits", bench.model(dtype), plain_pass
    yield "HF, all logits, layers recomputed", bench.model(dtype, recompute=True), plain_pass
    if bench.gpu and importlib.util.find_spec("trl") and importlib.util.find_spec("datasets"):
        from trl.trainer.utils import add_fused_lm_head

        for recompute in (False, True):
            model = bench.model(dtype, recompute=recompute)
            add_fused_lm_head(model)
            yield f"TRL, fused head{', layers recomputed' * recompute}", model, trl_pass


def ours(bench: Bench) -> list[tuple[str, Any]]:
    """(kernels, recomputed) of the settings to measure."""
    liger = bench.gpu and importlib.util.find_spec("liger_kernel")
    return [("torch", False), *([("liger", what) for what in (False, "gates", "mlp", True)] if liger else [])]


def learner_of(bench: Bench, kernels: str, recompute: Any, max_tokens: int) -> Learner:
    """bfloat16 compute on float32 weights, packed; on a CPU float32 and padded."""
    optimizer = OptimizerConfig(max_tokens_per_micro_batch=max_tokens, packing=bench.gpu)
    model = bench.model(kernels=kernels, recompute=recompute)
    return Learner(model, ObjectiveConfig(), optimizer, compute_dtype="bfloat16" if bench.gpu else "float32")


def scored(learner: Learner, examples: list[TrainingExample]) -> list[TrainingExample]:
    """The examples with their scores under the learner's own weights."""
    optimizer = learner.optimizer_config
    logprob, value = reference_scores(
        learner.model,
        examples,
        max_tokens=optimizer.max_tokens_per_micro_batch,
        packed=optimizer.packing,
        compute_dtype=learner.compute_dtype,
    )
    return [
        replace(example, ref_logprob=float(a), ref_root_value=float(b))
        for example, a, b in zip(examples, logprob, value, strict=True)
    ]


def passes(bench: Bench) -> list[dict]:
    """One sequence of the full length, forward and backward, by everything there is."""
    head(f"One sequence of {bench.longest:,} tokens, forward and backward", "the weights")
    found = []
    for name, model, run in baselines(bench):
        weights = sum(parameter.nbytes for parameter in model.parameters())
        found.append(attempt(bench, name, bench.one, lambda m=model, r=run: r(m, [bench.one], bench.device), weights))
        del model
        free(bench)
    for kernels, recompute in ours(bench):
        learner = learner_of(bench, kernels, recompute, bench.longest)
        examples = scored(learner, bench.one)
        weights = 4 * bench.parameters
        name = f"ours, {kernels}, recomputed: {recompute}"
        found.append(attempt(bench, name, examples, lambda x=learner, e=examples: x.accumulate(e), weights))
        del learner
        free(bench)
    return [row for row in found if row]


def updates(bench: Bench, budgets: list[tuple[int, Any]]) -> list[dict]:
    """An update of all examples; the baselines leave the optimizer's step out."""
    tokens = sum(len(example) for example in bench.examples)
    head(
        f"An update of {len(bench.examples)} responses, {tokens:,} tokens; the baselines' without the optimizer's step",
        "weights and optimizer",
    )
    found = []
    for name, model, run in baselines(bench):
        if "recomputed" in name:
            continue
        split = micro_batches(bench.examples, bench.longest)
        batches = [[bench.examples[index] for index in indices] for indices in split]
        weights = sum(parameter.nbytes for parameter in model.parameters())
        found.append(
            attempt(bench, name, bench.examples, lambda m=model, r=run, b=batches: r(m, b, bench.device), weights)
        )
        del model
        free(bench)
    kernels = ours(bench)[-1][0]
    for max_tokens, recompute in budgets:
        learner = learner_of(bench, kernels, recompute, max_tokens)
        examples = scored(learner, bench.examples)
        weights = 12 * bench.parameters
        name = f"ours, {kernels}, {max_tokens:,} tokens a micro-batch, recomputed: {recompute}"
        found.append(attempt(bench, name, examples, lambda x=learner, e=examples: x.update(e), weights))
        del learner
        free(bench)
    found = [row for row in found if row]
    for row in found:
        row["seconds_per_1024"] = row["seconds"] * ROUND / len(bench.examples)
        print(
            f"{row['name']}: {row['seconds_per_1024']:.1f} s per update of {ROUND:,} responses, extrapolated by number"
        )
    return found


def rounds(bench: Bench, max_tokens: int, recompute: Any, k: int = 4) -> dict:
    """K updates against K times one, how busy the device is, and how often the host waits for it."""
    learner = learner_of(bench, ours(bench)[-1][0], recompute, max_tokens)
    examples = scored(learner, bench.examples[: max(8, len(bench.examples) // 4)])
    single = bench.seconds(lambda: learner.update(examples))
    together = bench.seconds(lambda: [learner.update(examples) for _ in range(k)], repeats=1)
    short = [replace(examples[0], response_ids=examples[0].response_ids[:1])]
    host = bench.seconds(lambda: learner.accumulate(short)) if bench.gpu else None
    split = len(micro_batches(examples, max_tokens, packed=bench.gpu))
    found = {"single": single, "k": k, "together": together, "micro_batches": split, "host": host}
    print(
        f"\n{k} updates of {len(examples)} responses take {together:.2f} s, {together / single:.2f} times one of them"
    )
    if host is not None:
        with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as profile:
            learner.update(examples)
            bench.wait()
        busy, waits = busy_seconds(profile), {name: 0 for name in WAITING}
        for event in profile.events():
            if event.name in waits:
                waits[event.name] += 1
        found |= {"busy": busy, "waits": waits}
        print(f"an update of {split} micro-batches takes {single:.2f} s, device busy {busy:.2f} s, host waits: {waits}")
        print(f"a micro-batch of a few tokens takes {host:.3f} s: what the host needs to launch one")
    check = calibrate(
        learner.model,
        scored(other_layout(learner), examples),
        learner.objective_config,
        learner.optimizer_config,
        compute_dtype=learner.compute_dtype,
    )
    print(
        f"calibration of {check.n_examples} responses: {check.same_layout:g} nats in the same layout, "
        f"{check.stored:.3g} against scores of the other layout, {check.tolerance:.3g} allowed"
    )
    free(bench)
    return found | {"same_layout": check.same_layout, "other_layout": check.stored, "allowed": check.tolerance}


def busy_seconds(profile: torch.profiler.profile) -> float:
    """Time in which the device ran anything."""
    on_device = (event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA)
    total, until = 0.0, 0.0
    for start, end in sorted((event.time_range.start, event.time_range.end) for event in on_device):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total / 1e6


def other_layout(learner: Learner) -> Learner:
    """The learner's model under the other layout, for scoring only."""
    optimizer = learner.optimizer_config
    other = optimizer.model_copy(update={"packing": not optimizer.packing})
    return Learner(learner.model, learner.objective_config, other, compute_dtype=learner.compute_dtype)


def attempt(bench: Bench, name: str, examples: list[TrainingExample], run: Callable[[], object], beside: float) -> dict:
    """A row, or a line that says that it does not fit."""
    try:
        return bench.row(name, examples, run, beside)
    except torch.cuda.OutOfMemoryError:
        print(f"| {name} | out of memory | | | |", flush=True)
        return {}


def free(bench: Bench) -> None:
    """Memory of what was deleted."""
    gc.collect()
    if bench.gpu:
        torch.cuda.empty_cache()


def read_lengths(file: Path | None) -> tuple[list[tuple[int, int]], str]:
    """(prompt, response) token counts, and where they come from."""
    if file is not None:
        return [tuple(pair) for pair in json.loads(file.read_text(encoding="utf-8"))], file.name
    data = Path(os.environ.get("REVAL_DATA", ROOT.parent / "shared" / "data")) / "completions"
    found = data / "rollout_groups_areal.jsonl.gz"
    if found.is_file():
        with gzip.open(found, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return [(row["prompt_tokens"], row["total_tokens"] - row["prompt_tokens"]) for row in rows], found.name
    drawn = np.random.default_rng(1).lognormal(np.log(3700), 0.5, 496).astype(int)
    return [(100, int(length)) for length in drawn], "log-normal, median 3,700"


def over_ranks(arguments: argparse.Namespace, more: list[str]) -> int:
    """Start the ranks, and end as they do."""
    with socket.socket() as free_port:
        free_port.bind(("127.0.0.1", 0))
        port = free_port.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(arguments.ranks)]
    command += ["--node-rank", "0", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    command += [str(Path(__file__).with_name("learner_ranks.py")), "--shape", arguments.shape]
    command += ["--responses", str(arguments.responses), *more]
    for name in ("lengths", "json"):
        if getattr(arguments, name):
            command += [f"--{name}", str(getattr(arguments, name))]
    return subprocess.run(command).returncode


def main() -> int | None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-1.5b" if gpu else "tiny")
    parser.add_argument("--responses", type=int, default=32, help="responses of an update; 1,024 is extrapolated")
    parser.add_argument("--lengths", type=Path, help="JSON list of [prompt, response] token counts")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--lora-24gb", action="store_true", help="only this: lora_iteration.py")
    parser.add_argument("--ranks", type=int, help="measure an update over so many ranks, each with a GPU of its own")
    arguments, of_ranks = parser.parse_known_args()
    if arguments.ranks:
        return over_ranks(arguments, of_ranks)
    if of_ranks:
        parser.error(f"unknown: {' '.join(of_ranks)}")
    lengths, source = read_lengths(arguments.lengths)
    bench = Bench(arguments.shape, "cuda" if gpu else "cpu", arguments.responses, lengths)
    device = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} CPU threads"
    print(
        f"{arguments.shape}, {bench.parameters:,} parameters; {device}, torch {torch.__version__}; peak "
        f"{bench.peak / 1e12:.3g} TFLOP/s; lengths: {source}",
        flush=True,
    )
    if arguments.lora_24gb:
        found = lora_iteration.one_iteration(bench, lora_iteration.settings(gpu))
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        return
    budgets = [
        (bench.longest, "gates"),
        (2 * bench.longest, "gates"),
        (2 * bench.longest, "mlp"),
        (4 * bench.longest, True),
    ]
    if ours(bench)[-1][0] == "torch":
        budgets = [(bench.longest, False), (2 * bench.longest, "mlp")]
    results = {
        "shape": arguments.shape, "device": device, "torch": torch.__version__, "peak": bench.peak, "lengths": source,
        "passes": passes(bench), "updates": updates(bench, budgets), "rounds": rounds(bench, *budgets[1]),
    }  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main())
