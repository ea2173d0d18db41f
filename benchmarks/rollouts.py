"""Rollout engines at the size of a round: tokens a second, seconds of a weight swap, memory, share of an iteration.

    python benchmarks/rollouts.py                                       # on a GPU: the shape of Qwen2.5-1.5B
    python benchmarks/rollouts.py --shape tiny --prompts 4 --longest 48 # what a CPU does unasked
    python benchmarks/rollouts.py --engines vllm --json result.json

Random weights never stop by themselves, so a set of random stop tokens is drawn that a response meets after `--mean`
tokens on average: lengths are ragged, nearly geometric, and cut at `--longest`, the same for every engine. Prompts are
of random tokens, with the lengths of REVAL_DATA/completions/rollout_groups_areal.jsonl.gz where it is there.

An engine that is not installed is named and left out. The engine on transformers decodes batches one after another,
which makes its time grow by their number: `--part` responses are sampled and the round is extrapolated by tokens. A
swap is what a round pays for new weights: handing them over and waking up. Memory is what the device has more in use
than before the engine, looked at whenever a response ends; asleep is what is left of it while the learner works. An
update and the scoring under the reference are measured on `--updated` of the sampled responses and extrapolated by
tokens. The share is generation and swap, of those two, scoring, and K updates; verification and store are left out.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learner import SHAPES, Bench, free, learner_of, ours, read_lengths, scored

from reval_core.config import EngineConfig
from reval_core.errors import ConfigError
from reval_core.identity import sample_seed
from reval_core.learning.batch import TrainingExample
from reval_core.learning.learner import Learner
from reval_core.rollouts import ENGINES, RolloutEngine, Sample, SampleRequest, SamplingSettings, make_engine

KS = (1, 2, 4, 8)
HEAD = ("engine", "responses", "tokens", "mean", "95 %", "cut", "s", "tokens/s", "swap s", "GB awake", "asleep",
        "s a round", *(f"K={k}" for k in KS))  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A round: its requests and how they are sampled."""

    requests: list[SampleRequest]
    settings: SamplingSettings

    @property
    def some(self) -> SamplingSettings:
        """A few tokens each, to warm up with."""
        return replace(self.settings, max_new_tokens=min(8, self.settings.max_new_tokens))


def asked(bench: Bench, prompts: int, rollouts: int, longest: int, mean: float) -> Asked:
    """The requests of a round in canonical order, and stop tokens by which they get their lengths."""
    rng = np.random.default_rng(0)
    vocabulary = SHAPES[bench.shape]["vocab_size"]
    lengths, _ = read_lengths(None)
    requests = []
    for number in range(prompts):
        length = max(1, min(lengths[number % len(lengths)][0], longest // 4))
        ids = tuple(rng.integers(0, vocabulary, length).tolist())
        name = f"prb_{number}"
        requests += [SampleRequest(name, index, sample_seed("bat", 0, name, index), ids) for index in range(rollouts)]
    stops = rng.choice(vocabulary, max(1, round(vocabulary / mean)), replace=False)
    return Asked(requests, SamplingSettings(longest, 1.0, 1.0, 0, tuple(sorted(stops.tolist()))))


class Memory:
    """What the device has in use beside what it had at first; None on a CPU."""

    def __init__(self, gpu: bool) -> None:
        self.gpu = gpu
        self.before = self.used()
        self.most = 0

    def used(self) -> int:
        """Bytes, by any process."""
        if not self.gpu:
            return 0
        free_bytes, total = torch.cuda.mem_get_info()
        return total - free_bytes

    def look(self) -> None:
        """Keep the most that was seen."""
        self.most = max(self.most, self.used() - self.before)

    def now(self) -> float | None:
        """GB after what can be given back was."""
        if not self.gpu:
            return None
        gc.collect()
        torch.cuda.empty_cache()
        return (self.used() - self.before) / 1e9


def measured(bench: Bench, engine: RolloutEngine, model: Any, round_: Asked, part: int) -> tuple[dict, list[Sample]]:
    """An engine's row without the shares, and what it sampled.

    Args:
        bench: shape and device.
        engine: made, with nothing loaded.
        model: the policy, which stays the learner's.
        round_: of which the first `part` responses are sampled.
        part: their number.
    """
    free(bench)
    memory = Memory(bench.gpu)
    sleep = getattr(engine, "sleep", lambda: None)
    engine.load("pol_0", model)  # makes what it has to make once
    list(engine.sample(round_.requests[:8], round_.some))
    swaps = []
    for number in (1, 2, 3):
        sleep()
        bench.wait()
        started = time.perf_counter()
        engine.load(f"pol_{number}", model)
        bench.wait()
        swaps.append(time.perf_counter() - started)
    samples = []
    started = time.perf_counter()
    for sample in engine.sample(round_.requests[:part], round_.settings):
        samples.append(sample)
        memory.look()
    bench.wait()
    seconds = time.perf_counter() - started
    sleep()
    lengths = np.array([len(sample.token_ids) for sample in samples])
    tokens = int(lengths.sum())
    of_round = tokens * len(round_.requests) / part
    found = {
        "engine": engine.name,
        "responses": len(samples),
        "tokens": tokens,
        "mean": float(lengths.mean()),
        "p95": float(np.quantile(lengths, 0.95)),
        "cut": sum(sample.finish_reason != "stop" for sample in samples) / len(samples),
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "swap": sorted(swaps)[1],
        "awake": memory.most / 1e9 if bench.gpu else None,
        "asleep": memory.now(),
        "round_tokens": of_round,
        "round_seconds": seconds * of_round / tokens,
    }
    return found, samples


def learning_seconds(
    bench: Bench, learner: Learner, samples: Sequence[Sample], count: int
) -> tuple[float, float, list[TrainingExample]]:
    """Seconds per token of an update and of scoring under a reference, and what they were measured on."""
    chosen = samples[:: max(1, len(samples) // count)][:count]
    examples = [
        TrainingExample(
            f"{sample.request.problem_id}/{sample.request.sample_index}",
            sample.request.problem_id,
            np.array(sample.request.prompt_ids, np.int32),
            np.array(sample.token_ids, np.int32),
            float(number % 3 == 0),
        )
        for number, sample in enumerate(chosen)
    ]
    tokens = sum(len(sample.token_ids) for sample in chosen)
    examples = scored(learner, examples)
    scoring = bench.seconds(lambda: scored(learner, examples), repeats=1)
    update = bench.seconds(lambda: learner.update(examples), repeats=1)
    return update / tokens, scoring / tokens, examples


def shares(row: dict, update: float, scoring: float) -> list[float]:
    """Of an iteration's seconds, those of generation and swap, for each K."""
    generation, tokens = row["round_seconds"] + row["swap"], row["round_tokens"]
    return [generation / (generation + tokens * (scoring + k * update)) for k in KS]


def engines(names: Sequence[str], bench: Bench, sequences: int, batch_tokens: int) -> dict[str, RolloutEngine | str]:
    """Each engine, or why there is none."""
    made: dict[str, RolloutEngine | str] = {}
    for name in names:
        if name not in ENGINES:
            made[name] = "not in this version: left out"
            continue
        config = EngineConfig(use=name, max_batch_sequences=sequences, max_batch_tokens=batch_tokens)
        try:
            made[name] = make_engine(config, compute_dtype="bfloat16" if bench.gpu else "float32", pad_id=0)
        except ConfigError as error:
            made[name] = f"left out: {error}"
    return made


def line(row: dict) -> str:
    """A row of the table."""
    gigabytes = ["" if row[name] is None else f"{row[name]:.1f}" for name in ("awake", "asleep")]
    cells = [
        row["engine"], f"{row['responses']:,}", f"{row['tokens']:,}", f"{row['mean']:,.0f}", f"{row['p95']:,.0f}",
        f"{row['cut']:.2f}", f"{row['seconds']:.1f}", f"{row['tokens_per_s']:,.0f}", f"{row['swap']:.3f}", *gigabytes,
        f"{row['round_seconds']:.1f}", *(f"{share:.2f}" for share in row["shares"]),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument(
        "--shape", choices=("qwen2.5-1.5b", "qwen2.5-7b", "tiny"), default="qwen2.5-1.5b" if gpu else "tiny"
    )
    parser.add_argument("--prompts", type=int, default=128 if gpu else 4)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--longest", type=int, default=8192 if gpu else 48, help="response tokens at most")
    parser.add_argument("--mean", type=float, help="response tokens on average were none cut; 3,700 of 8,192")
    parser.add_argument("--engines", nargs="+", default=["transformers", "vllm"])
    parser.add_argument("--part", type=int, default=256, help="responses that the engine on transformers samples")
    parser.add_argument("--sequences", type=int, default=256, help="decoded together")
    parser.add_argument("--batch-tokens", type=int, default=2_500_000, help="of a decoded batch of the same engine")
    parser.add_argument("--updated", type=int, default=32, help="responses of the update that is measured")
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    bench = Bench(arguments.shape, "cuda" if gpu else "cpu", 1, read_lengths(None)[0])
    bench.longest = arguments.longest + arguments.longest // 4
    round_ = asked(
        bench, arguments.prompts, arguments.rollouts, arguments.longest, arguments.mean or arguments.longest * 0.45
    )
    kernels = ours(bench)[-1][0]
    recompute = "mlp" if kernels == "liger" else False
    learner = learner_of(bench, kernels, recompute, 2 * bench.longest)
    device = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} CPU threads"
    print(
        f"{arguments.shape}, {bench.parameters:,} parameters; {device}, torch {torch.__version__}; a round of "
        f"{arguments.prompts} prompts x {arguments.rollouts}, responses of at most {arguments.longest:,} tokens\n",
        flush=True,
    )
    rows: list[dict] = []
    skipped: dict[str, str] = {}
    update = scoring = 0.0
    for name, engine in engines(arguments.engines, bench, arguments.sequences, arguments.batch_tokens).items():
        if isinstance(engine, str):
            skipped[name] = engine
            continue
        count = len(round_.requests)
        part = min(arguments.part, count) if name == "transformers" else count
        row, samples = measured(bench, engine, learner.model, round_, part)
        if not rows:
            update, scoring, used = learning_seconds(bench, learner, samples, arguments.updated)
        engine.close()
        free(bench)
        rows.append(row | {"shares": shares(row, update, scoring)})
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for row in rows:
        print(line(row))
    for name, why in skipped.items():
        print(f"| {name} | {why} |{' |' * (len(HEAD) - 2)}")
    if rows:
        tokens = rows[0]["round_tokens"]
        print(
            f"\nupdate {tokens * update:.1f} s and scoring {tokens * scoring:.1f} s a round of {tokens:,.0f} tokens, "
            f"extrapolated from {len(used)} responses; K=...: share of generation and swap in an iteration of K updates"
        )
    if arguments.json:
        found = {"rows": rows, "skipped": skipped, "update_s_per_token": update, "scoring_s_per_token": scoring}
        arguments.json.write_text(json.dumps(found | {"device": device}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
