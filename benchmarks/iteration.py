"""One iteration of configs/deepseek-r1-distill-qwen-1.5b.yaml on random weights and real problems, stage by stage.

    REVAL_DATA=... python benchmarks/iteration.py               # on a GPU: Qwen2.5-1.5B's shape, 32 prompts x 8
    REVAL_DATA=... python benchmarks/iteration.py --engine vllm # where vLLM is installed
    REVAL_DATA=... python benchmarks/iteration.py --shape tiny --prompts 4 --longest 32   # what a CPU does unasked

Stages, store (DuckDB, leases, commits) and grading are a run's own, called without a server; Prefect and MLflow need
not be installed (`no_prefect.py`). The tokenizer is a byte-level BPE trained on the problems' questions and filled up
to the model's full vocabulary with pairs of its tokens, so that every sampled id has a text; it makes more tokens of a
question than the model's own, so the limit of prompts is lifted. Random weights do not stop: each response is cut at
the length of a real one (REVAL_DATA/completions/rollout_groups_areal.jsonl.gz), drawn by its seed, at most `--longest`.
On a GPU the kernels are Liger's where liger-kernel is installed. Beside torch and transformers it needs duckdb, httpx,
jinja2, psutil, pyarrow, pydantic, python-flint, PyYAML and rich.

The timeline is the stages' wall time with the device idle before and after. Below it stands what the configuration's
own size would take: decoding by the number of steps that its batches would take, at the measured seconds of a step
(vLLM's, which has no batches, by response tokens; its start is a line of its own, and no part of an iteration);
grading, scoring and updates by response tokens; the store by responses. A step's time grows with context and rows, and
attention with length squared, so both are underestimated from a run that is shorter. At a tiny shape the figures say
nothing; that it runs does.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from capped_engine import CappedTransformers, CappedVllm, Plan
from learner import SHAPES
from no_prefect import stand_in
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2 import Qwen2Tokenizer
from transformers.utils import logging as transformers_logging

from reval_core.config import Config
from reval_core.config_files import apply_override, parse_config, read_tree
from reval_core.home import Home
from reval_core.identity import sample_seed
from reval_core.policies.tiny import byte_tokenizer
from reval_core.problems import load_problems
from reval_core.rollouts import SampleRequest

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "deepseek-r1-distill-qwen-1.5b.yaml"
CHAT = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}<|assistant|>"
CONTEXT = 32_768
STAGES = ("generate", "verify", "score", "calibrate", "persist", "learn")
ON_A_CPU = ("model.dtype=float32", "model.gradient_checkpointing=false", "optimizer.packing=false", "model.device=cpu")


def base_model(folder: Path, shape: str, texts: list[str], dtype: torch.dtype) -> None:
    """Random weights in a shape, with a tokenizer whose every id has a text."""
    size = SHAPES[shape]["vocab_size"]
    trained = byte_tokenizer().train_new_from_iterator(texts, size)
    state = json.loads(trained.backend_tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = state["vocab"]
    pieces, rng = [piece for piece in vocabulary if not piece.startswith("<|")], np.random.default_rng(0)
    while len(vocabulary) < size:
        pair = "".join(pieces[index] for index in rng.integers(0, len(pieces), 2))
        vocabulary.setdefault(pair, len(vocabulary))
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[tuple(pair) for pair in state["merges"]],
        unk_token=trained.unk_token,
        eos_token=trained.eos_token,
        pad_token=trained.pad_token,
        model_max_length=CONTEXT,
        chat_template=CHAT,
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        **SHAPES[shape],
        max_position_embeddings=CONTEXT,
        rope_theta=1e6,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2ForCausalLM(config)
    model.to(dtype).cpu().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def reduced(full: Config, base: Path, *, prompts: int, longest: int, scale: float, gpu: bool, engine: str) -> Config:
    """The configuration with fewer prompts, shorter responses and the random base; one round, never evaluated."""
    tree = full.model_dump(mode="json")
    kernels = "liger" if gpu and importlib.util.find_spec("liger_kernel") else "torch"
    vllm = (
        f"rollouts.engine.args.context={longest + CONTEXT // 2}",
        f"rollouts.engine.args.eager={str(not gpu).lower()}",
    )
    overrides = [
        f"model.path={base}",
        f"model.kernels={kernels}",
        f"rollouts.prompts_per_iteration={prompts}",
        f"rollouts.max_new_tokens={longest}",
        f"rollouts.max_prompt_tokens={CONTEXT // 2}",
        f"rollouts.engine.use=capped_engine:{'CappedVllm' if engine == 'vllm' else 'CappedTransformers'}",
        f"rollouts.engine.args.scale={scale}",
        *(vllm if engine == "vllm" else ()),
        "run.iterations=1",
        "run.name=iteration",
        *("evaluation.before=false", "evaluation.after=false", "evaluation.every=null", "evaluation.benchmarks=[]"),
        *(() if gpu else ON_A_CPU),
    ]
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree)


class Timeline:
    """Seconds and peak memory of each part, printed as it ends."""

    def __init__(self, gpu: bool) -> None:
        self.gpu, self.rows = gpu, dict[str, dict[str, float]]()
        self.started = time.perf_counter()
        print("| | from s | seconds | peak GB |\n|---|---|---|---|", flush=True)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A line of it."""
        self._wait()
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        yield
        self._wait()
        seconds = time.perf_counter() - started
        peak = torch.cuda.max_memory_allocated() / 1e9 if self.gpu else 0.0
        self.rows[name] = {"from": started - self.started, "seconds": seconds, "peak": peak}
        told = f"{peak:.1f}" if self.gpu else ""
        print(f"| {name} | {started - self.started:.1f} | {seconds:.2f} | {told} |", flush=True)

    def _wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()


def one_iteration(config: Config, full: Config, home: Home, timeline: Timeline) -> tuple[Plan, Plan, dict[str, Any]]:
    """The stages in their order; sizes as run and in full, and what the store then says of the round."""
    from tasks.generate import generate
    from tasks.learn import learn
    from tasks.open_run import open_run
    from tasks.persist import persist
    from tasks.progress import Progress
    from tasks.run import Here
    from tasks.score import calibrate_reference, score
    from tasks.verify import verify

    opened = open_run(config, home, progress=Progress(quiet=True))
    with timeline.part("opening the run"):
        run = opened.__enter__()
    try:
        here, policy = Here(run, 0), run.record.base_policy_id
        reference = run.reference_during(0)
        assert reference is not None
        with timeline.part("starting the engine"):
            run.engine.load(policy, run.policies.model(policy))
            run.engine.sleep()
        with timeline.part("generate"):
            batch = generate(here, policy)
        with timeline.part("verify"):
            verdicts = verify(here, batch)
        with timeline.part("score"):
            score(here, batch, reference)
        with timeline.part("calibrate"):
            calibrate_reference(here, reference, batch)
        with timeline.part("persist"):
            persist(here, batch, verdicts)
        with timeline.part("learn"):
            learn(here, policy, reference)
        assert isinstance(run.engine, CappedTransformers | CappedVllm)
        small = _plan(run, batch.batch_id, run.engine, config)
        whole = _plan(run, batch.batch_id, run.engine, full, scale=1.0)
    finally:
        opened.__exit__(*sys.exc_info())
    (row,) = run.store.query("SELECT * FROM rounds").to_pylist()
    (entries,) = run.store.query("SELECT count(*) AS n FROM store.replay_entries").to_pylist()
    told = {name: row[name] for name in ("trajectories", "tokens_generated", "truncated_share", "updates", "loss")}
    return small, whole, told | {"replay_entries": entries["n"], "store_mb": _megabytes(home)}


def _plan(
    run: Any, batch_id: str, engine: CappedTransformers | CappedVllm, config: Config, scale: float | None = None
) -> Plan:
    """What a round of the configuration's size takes: the prompts that it had, and further ones of the same file."""
    rollouts = config.rollouts
    found = run.store.query("SELECT DISTINCT problem_id FROM store.trajectories ORDER BY ALL").to_pylist()
    own = {row["problem_id"]: None for row in found}
    names = list(own | dict.fromkeys(run.problems))[: rollouts.prompts_per_iteration]
    requests = []
    for name in names:
        ids = run.renderer.render(run.problems[name]).token_ids
        for index in range(rollouts.rollouts_per_prompt):
            seed = sample_seed(batch_id, config.run.seed, name, index)
            requests.append(SampleRequest(name, index, seed, ids))
    return engine.plan(requests, replace(run.sampling, max_new_tokens=rollouts.max_new_tokens), scale)


def _megabytes(home: Home) -> float:
    return sum(path.stat().st_size for path in home.root.glob("reval.duckdb*")) / 1e6


def extrapolated(timeline: Timeline, small: Plan, full: Plan) -> dict[str, float]:
    """Print and return the seconds of each stage at the configuration's own size."""
    tokens, responses, steps = (
        (f"{name}: {a:,} -> {b:,}", b / a)
        for name, a, b in (
            ("response tokens", small.tokens, full.tokens),
            ("responses", small.responses, full.responses),
            (
                f"decoding steps, of {small.batches} and {full.batches} batches",
                small.steps,
                full.steps,
            ),
        )
    )
    by = {"generate": steps, "verify": tokens, "score": tokens, "persist": responses, "learn": tokens}
    print("\n| at full size | measured s | by | factor | s | share |\n|---|---|---|---|---|---|")
    found = {stage: timeline.rows[stage]["seconds"] * factor for stage, (_, factor) in by.items()}
    total = sum(found.values())
    for stage, (why, factor) in by.items():
        measured = timeline.rows[stage]["seconds"]
        print(f"| {stage} | {measured:.2f} | {why} | {factor:.2f} | {found[stage]:.1f} | {found[stage] / total:.3f} |")
    print(f"| an iteration | | | | {total:.1f} | 1 |")
    return found | {"iteration": total}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-1.5b" if gpu else "tiny")
    parser.add_argument("--prompts", type=int, default=32 if gpu else 4)
    parser.add_argument("--longest", type=int, default=2048 if gpu else 32, help="response tokens at most")
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as on the command line")
    parser.add_argument("--root", type=Path, help="where model and store are made; left out: a folder that is removed")
    parser.add_argument(
        "--without-prefect", action="store_true", help="stand in for Prefect also where it is installed"
    )
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    if "REVAL_DATA" not in os.environ:
        parser.error("set REVAL_DATA to the folder that has deepscaler_40308.jsonl.gz and completions/")
    absent = stand_in(always=arguments.without_prefect)
    swaps = logging.getLogger("tasks.swap")  # how far the engine's log-probabilities are off the model's
    swaps.addHandler(logging.StreamHandler(sys.stdout))
    swaps.setLevel(logging.INFO)
    transformers_logging.disable_progress_bar()
    tree = read_tree(arguments.config)
    for override in arguments.set:
        apply_override(tree, override)
    full = parse_config(tree)
    device = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} CPU threads"
    print(
        f"{arguments.shape} on {device}, torch {torch.__version__}, sampled with {arguments.engine}; "
        f"Prefect {'stood in for' if absent else 'there'}\n"
    )
    with tempfile.TemporaryDirectory(dir=arguments.root) as root:
        timeline = Timeline(gpu)
        with timeline.part("tokenizer and random weights"):
            texts = [problem.question for source in full.problems for problem in load_problems(source)]
            base_model(Path(root) / "base", arguments.shape, texts, torch.bfloat16 if gpu else torch.float32)
        scale = 1.0 if arguments.shape != "tiny" else arguments.longest / 2048
        config = reduced(
            full,
            Path(root) / "base",
            prompts=arguments.prompts,
            longest=arguments.longest,
            scale=scale,
            gpu=gpu,
            engine=arguments.engine,
        )
        small, whole, told = one_iteration(config, full, Home(Path(root) / "home"), timeline)
    measured = sum(timeline.rows[stage]["seconds"] for stage in STAGES)
    print(f"\n{measured:.1f} s for {small.responses} responses of {small.tokens:,} tokens; the store says {told}")
    result = extrapolated(timeline, small, whole)
    print(f"{full.run.iterations} iterations: {full.run.iterations * result['iteration'] / 86_400:.1f} days")
    if arguments.json:
        found = {"device": device, "timeline": timeline.rows, "store": told, "full": result}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
