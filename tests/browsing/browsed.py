"""A small store for the browser: two problems, a base and a policy one step from it, hostile completions, verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from reval_core.config import LoraConfig, ObjectiveConfig, OptimizerConfig
from reval_core.config_files import parse_config
from reval_core.home import Home
from reval_core.learning.adapters import adapted, adapter_tensors
from reval_core.policies.folder import (
    Manifest,
    base_policy_id,
    load_model,
    load_tokenizer,
    save_policy,
    tokenizer_id,
    weights_checksum,
)
from reval_core.policies.steps import learning_settings
from reval_core.problems import Problem, ask
from reval_core.process import ProcessIdentity
from reval_core.store import Store, lineage, problems, replay, runs, stages, trajectories
from reval_core.store.lineage import UPDATE_ROW_SCHEMA, PolicyRecord, UpdateRecord
from reval_core.store.runs import RunRecord
from reval_core.store.trajectories import PART_SCHEMA, VERDICT_SCHEMA, BatchRecord
from reval_core.verification import Verifier

RUN, LEARNED, PRUNED, ADAPTED = "sums-0a1b2c3d", "pol_" + "1" * 32, "pol_" + "2" * 32, "pol_" + "3" * 32
LORA = LoraConfig(rank=2, alpha=4)
BETA = 0.25
QUESTIONS = (("What is <b>1+2</b>?", "3"), ("What is 3+4?", "7"))
SCRIPT = "<script>alert(1)</script>"
COMPLETIONS = (
    f"{SCRIPT} so $x = \\frac{{1}}{{2}}$ and \\boxed{{3}}",
    '"><img src=x onerror=alert(1)> so \\boxed{4}',
    r"$\text{</mtext></math><script>alert(2)</script>}$ $\href{javascript:alert(3)}{x}$ \boxed{7}",
    "no box & no answer\n" + "long " * 100_000,
)
"""Two to each problem."""
IDS = ((5, 13, 6, 1), (7, 1), (5, 12, 9, 10, 1), (3, 4, 5))
"""Tokens of the arithmetic tokenizer; the texts are not theirs."""


@dataclass(frozen=True)
class Browsed:
    """The root, and what stands in it."""

    home: Home
    base: Path
    base_id: str
    training: tuple[str, ...]
    """Trajectories of round 0, in the order of `COMPLETIONS`."""
    evaluation: tuple[str, ...]
    """The same texts by the learned policy."""
    problem_ids: tuple[str, ...]


def build(home: Home, base: Path) -> Browsed:
    """Everything, through the store's own doors."""
    store = Store(home.database)
    store.prepare()
    asked = [Problem(ask(question), gold=gold, source="test", external_id=gold) for question, gold in QUESTIONS]
    base_id = base_policy_id(base)
    config = parse_config({"problems": [{"path": "builtin:arithmetic/train"}]}).model_dump(mode="json")
    with Verifier(1) as verifier, store.write() as connection:
        runs.add(connection, RunRecord(RUN, "sums", config, "cfg", 0, base_id, verifier.verifier_id, {}))
        problems.add(connection, asked)
        trajectories.add_verifier(connection, verifier.verifier_id, "math", 2, {})
        for record in (*_policies(home, base, base_id), _adapted(home, base, base_id)):
            lineage.add_policy(connection, record, run_id=RUN, attempt=1)
    training = _sampled(store, _batch(base, base_id, "training", asked), asked)
    evaluation = _sampled(store, _batch(base, LEARNED, "evaluation", asked), asked)
    _learned(store, _batch(base, base_id, "training", asked), training, asked)
    return Browsed(home, base, base_id, training, evaluation, tuple(one.problem_id for one in asked))


def _policies(home: Home, base: Path, base_id: str) -> list[PolicyRecord]:
    model = load_model(base)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    settings = learning_settings(ObjectiveConfig(beta=BETA), OptimizerConfig(), "float32")
    tokens, checksum = tokenizer_id(base), weights_checksum(model)
    folder = home.policies / LEARNED
    save_policy(folder, model, base, Manifest(LEARNED, checksum, tokens, base_id, base_id, 1, RUN, 0), None)
    made: dict[str, Any] = {"kind": "learned", "parent_policy_id": base_id, "reference_policy_id": base_id}
    made |= {"settings": settings, "updates_done": 1, "tokenizer_id": tokens}
    return [
        PolicyRecord(base_id, "base", None, None, {}, 0, tokens, weights_checksum(load_model(base)), str(base)),
        PolicyRecord(LEARNED, weights_checksum=checksum, folder=f"policies/{LEARNED}", **made),
        PolicyRecord(PRUNED, weights_checksum="wts_gone", folder=None, **made),
    ]


def _adapted(home: Home, base: Path, base_id: str) -> PolicyRecord:
    """A policy that is an adapter over the base."""
    model = adapted(load_model(base), LORA)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for weight in adapter_tensors(model).values():
            weight.add_(0.2 * torch.randn_like(weight))
    settings = learning_settings(ObjectiveConfig(beta=BETA), OptimizerConfig(), "float32", LORA)
    tokens, checksum = tokenizer_id(base), weights_checksum(model)
    told = Manifest(ADAPTED, checksum, tokens, base_id, base_id, 1, None, 0, base_policy_id=base_id)
    save_policy(home.policies / ADAPTED, model, base, told, None)
    return PolicyRecord(
        ADAPTED, "learned", base_id, base_id, settings, 1, tokens, checksum, folder=f"policies/{ADAPTED}"
    )


def _batch(base: Path, policy_id: str, purpose: str, asked: list[Problem]) -> BatchRecord:
    return BatchRecord(
        purpose=purpose,
        policy_id=policy_id,
        weights_checksum="wts",
        tokenizer_id=tokenizer_id(base),
        round=0,
        generation=0,
        engine="by hand",
        sampling={"seed": 0},
        prompt_ids=("prm_0", "prm_1"),
        problem_ids=tuple(one.problem_id for one in asked),
        samples_per_prompt=2,
    )


def _sampled(store: Store, batch: BatchRecord, asked: list[Problem]) -> tuple[str, ...]:
    rows, verdicts = [], []
    with Verifier(1) as verifier:
        for place, (completion, ids) in enumerate(zip(COMPLETIONS, IDS, strict=True)):
            problem = asked[place // 2]
            name = trajectories.trajectory_id(batch.batch_id, problem.problem_id, place % 2)
            rows.append(
                {
                    "trajectory_id": name,
                    "problem_id": problem.problem_id,
                    "sample_index": place % 2,
                    "prompt_id": batch.prompt_ids[place // 2],
                    "prompt_ids": [3, 12, 4],
                    "prompt_text": problem.question,
                    "response_ids": list(ids),
                    "completion": completion,
                    "finish_reason": "stop" if ids[-1] == 1 else "length",
                    "behaviour_logprob": -2.0,
                    "seed": place,
                }
            )
            found = verifier.verify(problem.gold, completion)
            told = {name: getattr(found, name) for name in ("status", "reward", "answer", "tier", "seconds", "details")}
            verdicts.append({"trajectory_id": name, "gold_digest": problem.gold_digest, **told})
        verifier_id = verifier.verifier_id
    store.append_batch(batch, pa.Table.from_pylist(rows, schema=PART_SCHEMA), run_id=RUN, attempt=1)
    with store.write() as connection:
        table = pa.Table.from_pylist(verdicts[:-1], schema=VERDICT_SCHEMA)  # the last one is not graded yet
        trajectories.add_verdicts(connection, verifier_id, table)
    return tuple(row["trajectory_id"] for row in rows)


def _learned(store: Store, batch: BatchRecord, names: tuple[str, ...], asked: list[Problem]) -> None:
    """The first two are admitted, and trained on once."""
    golds = [asked[0].gold_digest] * 2
    entries = pa.table([range(2), names[:2], golds, [1.0, 0.0]], schema=replay.ENTRY_SCHEMA)
    zero = [0.0] * 2
    members = pa.table([range(2), names[:2], [1.0, 0.0], [1.0] * 2, zero, zero, zero], schema=UPDATE_ROW_SCHEMA)
    outputs = {"generate": {"batch_id": batch.batch_id}, "learn": {"policy_id": LEARNED, "updates": 1}}
    with store.write() as connection:
        replay.admit(connection, RUN, 0, "ver", entries)
        for stage, output in outputs.items():
            lease = stages.take_lease(connection, f"{stage}/0", ProcessIdentity.mine())
            stages.commit(connection, lease, stage, {}, output, seconds=1.0, run_id=RUN, attempt=1)
            stages.link(connection, RUN, 0, stage, "", lease.stage_key, executed=True, attempt=1)
        update = UpdateRecord(0, "fresh", 1.0, 1.0, 1e-5, False, 6, members)
        lineage.add_updates(connection, LEARNED, [update], lineage.Counter())


def text_of(ids: tuple[int, ...], base: Path) -> list[str]:
    """What the base's tokenizer says of each token."""
    return [load_tokenizer(base).decode([token], skip_special_tokens=False) for token in ids]


class Page(HTMLParser):
    """The elements and attributes of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def links(self) -> list[str]:
        return [value for name, value in self.attributes if name in ("href", "action", "src")]
