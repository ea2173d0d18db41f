"""Puts completions of other systems into the store, as responses of a policy of which nothing but its name is known.

A policy of the kind ``foreign`` stands for a model of a source. A batch of the purpose ``imported`` holds its responses
to all problems that it answered equally often, so that batches are regular; what was said is part of the batch's name,
so other completions are another batch and the same file is known. Labels that come along become verdicts.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from reval_core.identity import digest, text_digest
from reval_core.problems import Problem, Prompt
from reval_core.store import Store, lineage, trajectories
from reval_core.store import statements as sql
from reval_core.store.exchange import foreign
from reval_core.store.exchange.columns import SLICE_BYTES
from reval_core.store.exchange.foreign import Completion, Unusable
from reval_core.store.exchange.tally import Step, Tally, no_step
from reval_core.store.exchange.tokenising import Tokeniser, Unwritable
from reval_core.store.lineage import PolicyRecord
from reval_core.store.migrations import now
from reval_core.store.trajectories import PART_SCHEMA, VERDICT_SCHEMA, BatchRecord

UNKNOWN = "unknown"
"""Stands for the weights and the tokenizer of a foreign policy."""
_BYTES_A_CHARACTER = 8
"""A character of a completion with the tokens that it becomes, at worst one a byte."""
_ROW_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("problem_id", "messages", "question", "source", "external_id", "metadata")),
        *((name, pa.string()) for name in ("gold_digest", "gold", "prompt_id", "prompt_text")),
        ("prompt_ids", pa.list_(pa.int32())),
        ("response_ids", pa.list_(pa.int32())),
        ("completion", pa.string()),
        ("finish_reason", pa.string()),
        ("label", pa.bool_()),
    ]
)
"""A usable row in tokens, between reading and appending."""


@dataclass(frozen=True)
class _Said:
    """What names one usable row and tells it from others."""

    model: str
    problem_id: str
    prompt_id: str
    sample: int | None
    completion: str
    """Digest of its text and its end."""
    label: bool | None


@dataclass(frozen=True)
class _Place:
    """Where a row stands in its batch."""

    batch: BatchRecord
    batch_id: str
    sample_index: int

    def trajectory_id(self, problem_id: str) -> str:
        return trajectories.trajectory_id(self.batch_id, problem_id, self.sample_index)


def import_completions(
    store: Store, path: Path, tokeniser: Tokeniser, fields: Mapping[str, str], step: Step = no_step
) -> Tally:
    """Take a file of completions in, whatever sampled them; doing it twice changes nothing.

    Its rows are put into tokens first, in a file aside, since only the whole of it says which row is which sample of
    which batch; then they are appended by slices of about `SLICE_BYTES`.

    Args:
        store: prepared.
        path: .jsonl, .jsonl.gz or .parquet; its name is the source's.
        tokeniser: of the model that is to learn from them, or any one.
        fields: our names (`foreign.FIELDS`) to the file's columns, where they differ.
        step: told how far the appending is.

    Raises:
        ProblemError: a field is none of ours, or the file itself is damaged; nothing of it went in.
    """
    foreign.check_fields(fields)
    tally, said = Tally(), list[_Said]()
    # it has no name, so that a kill leaves nothing behind
    with tempfile.TemporaryFile(dir=store.path.parent) as aside:
        with pa.ipc.new_stream(aside, _ROW_SCHEMA) as writer:
            for rows in _in_tokens(foreign.read(path, fields), tokeniser, said, tally):
                writer.write_table(rows)
        aside.seek(0)
        places = _places(said, path.name, tokeniser.tokenizer_id)
        labels = _labels(said, places, path.name)
        start = 0
        for batch in pa.ipc.open_stream(aside):
            here = places[start : start + batch.num_rows]
            with store.write() as connection:
                tally.known += _append(connection, pa.table(batch), here, path.name, labels)
            start += batch.num_rows
            step(start, len(said))
    tally.new = len(said) - tally.known
    tally.labels = sum(row.label is not None for row in said)
    return tally


def _in_tokens(
    rows: Iterator[Completion | Unusable], tokeniser: Tokeniser, said: list[_Said], tally: Tally
) -> Iterator[pa.Table]:
    """The usable rows in slices; what names them is added to ``said``, the others are counted in ``tally``."""
    ready: list[dict[str, Any]] = []
    prompts: dict[str, Prompt] = {}
    size = 0
    for row in rows:
        tally.read += 1
        if isinstance(row, Unusable):
            tally.refuse(row.reason, f"{row.where}: {row.detail}")
            continue
        try:
            ready.append(_row(row, tokeniser, prompts))
        except Unwritable as error:
            tally.refuse(error.reason, f"{row.where}: {error}")
            continue
        said.append(_said(row, ready[-1]))
        size += _BYTES_A_CHARACTER * (len(row.text) + len(ready[-1]["prompt_text"]))
        if size > SLICE_BYTES:
            yield pa.Table.from_pylist(ready, _ROW_SCHEMA)
            ready, prompts, size = [], {}, 0
    yield pa.Table.from_pylist(ready, _ROW_SCHEMA)


def _row(row: Completion, tokeniser: Tokeniser, prompts: dict[str, Prompt]) -> dict[str, Any]:
    """Values of `_ROW_SCHEMA`; a problem is rendered once for the rows that ask it."""
    problem = row.problem
    name = problem.problem_id
    response = tokeniser.write(row.text, truncated=row.truncated)
    if name not in prompts:
        prompts[name] = tokeniser.render(problem)
    prompt = prompts[name]
    return {
        **_problem(problem, name),
        "prompt_id": trajectories.prompt_digest(prompt.token_ids),
        "prompt_text": prompt.text,
        "prompt_ids": np.asarray(prompt.token_ids, np.int32),
        "response_ids": np.asarray(response.token_ids, np.int32),
        "completion": response.text,
        "finish_reason": response.finish_reason,
        "label": row.label,
    }


def _problem(problem: Problem, name: str) -> dict[str, str]:
    return {
        "problem_id": name,
        "messages": json.dumps([dict(message) for message in problem.messages]),
        "question": problem.question,
        "source": problem.source,
        "external_id": problem.external_id,
        "metadata": json.dumps(dict(problem.metadata), default=str),
        "gold_digest": problem.gold_digest,
        "gold": problem.gold,
    }


def _said(row: Completion, values: Mapping[str, Any]) -> _Said:
    completion = text_digest("cmp", f"{values['finish_reason']} {values['completion']}")
    return _Said(row.model, values["problem_id"], values["prompt_id"], row.sample, completion, row.label)


def _places(said: Sequence[_Said], source: str, tokenizer_id: str) -> list[_Place]:
    """Each row's batch and sample index: by the file's sample number where it has one, else by the order of rows."""
    asked: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, one in enumerate(said):
        asked[one.model, one.problem_id].append(row)
    regular: dict[tuple[str, int], list[list[int]]] = defaultdict(list)
    for (model, _), rows in sorted(asked.items()):
        samples = [said[row].sample for row in rows]
        ordered = [row for _, row in sorted(zip(samples, rows, strict=True))] if None not in samples else rows
        regular[model, len(rows)].append(ordered)
    places: dict[int, _Place] = {}
    for (model, _), groups in regular.items():
        batch = _batch([[said[row] for row in rows] for rows in groups], model, source, tokenizer_id)
        batch_id = batch.batch_id
        for rows in groups:
            places |= {row: _Place(batch, batch_id, index) for index, row in enumerate(rows)}
    return [places[row] for row in range(len(said))]


def _batch(groups: Sequence[Sequence[_Said]], model: str, source: str, tokenizer_id: str) -> BatchRecord:
    """A batch of all problems that a model answered equally often."""
    return BatchRecord(
        purpose="imported",
        policy_id=foreign_policy(model, source).policy_id,
        weights_checksum=UNKNOWN,
        tokenizer_id=tokenizer_id,
        round=0,
        generation=0,
        engine="imported",
        sampling={
            "source": source,
            "model": model,
            "tokenizer_id": tokenizer_id,
            "completions": digest("cmp", [[one.completion for one in group] for group in groups]),
        },
        prompt_ids=tuple(group[0].prompt_id for group in groups),
        problem_ids=tuple(group[0].problem_id for group in groups),
        samples_per_prompt=len(groups[0]),
    )


def foreign_policy(model: str, source: str) -> PolicyRecord:
    """The policy that stands for a model of a source."""
    settings = {"model": model, "source": source}
    return PolicyRecord(digest("pol", settings), "foreign", None, None, settings, 0, UNKNOWN, UNKNOWN, None)


@dataclass(frozen=True)
class _Labels:
    """The verifier that stands for the labels of a file."""

    verifier_id: str
    settings: Mapping[str, str]


def _labels(said: Sequence[_Said], places: Sequence[_Place], source: str) -> _Labels:
    """Named by the source and by what was labelled how, so that mended labels are verdicts of another verifier."""
    told = sorted(
        (place.trajectory_id(one.problem_id), one.label)
        for one, place in zip(said, places, strict=True)
        if one.label is not None
    )
    settings = {"source": source, "labels": digest("lab", told)}
    return _Labels(digest("ver", settings), settings)


def _append(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table, places: Sequence[_Place], source: str, labels: _Labels
) -> int:
    """Append a slice; how many of its rows were known."""
    names = [place.trajectory_id(p) for place, p in zip(places, rows.column("problem_id").to_pylist(), strict=True)]
    part = (
        rows.append_column("trajectory_id", pa.array(names, pa.string()))
        .append_column("sample_index", pa.array([place.sample_index for place in places], pa.int32()))
        .append_column("seed", pa.array(np.zeros(len(places), np.uint64)))
        .append_column("behaviour_logprob", pa.nulls(len(places), pa.float64()))
    )
    ((known, _),) = sql.rows(connection, "exchange", "counts", {"part": part})
    recorded_at = now()
    for area, name in (("problems", "add_problems"), ("problems", "add_sources"), ("exchange", "add_read_golds")):
        sql.rows(connection, area, name, {"part": part}, recorded_at=recorded_at)
    responses = part.select(PART_SCHEMA.names)
    batches = {place.batch_id: place.batch for place in places}
    for batch_id, batch in batches.items():
        policy = foreign_policy(batch.sampling["model"], source)
        lineage.add_policy(connection, policy, run_id=None, attempt=None)
        own = pa.array([place.batch_id == batch_id for place in places])
        trajectories.append_part(connection, batch, responses.filter(own), run_id=None, attempt=None)
    _add_labels(connection, part, source, labels)
    return known


def _add_labels(connection: duckdb.DuckDBPyConnection, part: pa.Table, source: str, labels: _Labels) -> None:
    told = part.filter(part.column("label").is_valid())
    if not told.num_rows:
        return
    truths = told.column("label").to_pylist()
    verdicts = pa.table(
        {
            "trajectory_id": told.column("trajectory_id"),
            "gold_digest": told.column("gold_digest"),
            "status": ["correct" if truth else "incorrect" for truth in truths],
            "reward": [float(truth) for truth in truths],
            "answer": pa.nulls(len(truths), pa.string()),
            "tier": ["label"] * len(truths),
            "seconds": [0.0] * len(truths),
            "details": [f"row {row} of {source}" for row in told.column("external_id").to_pylist()],
        },
        schema=VERDICT_SCHEMA,
    )
    trajectories.add_verifier(connection, labels.verifier_id, f"label of {source}", 1, labels.settings)
    trajectories.add_verdicts(connection, labels.verifier_id, verdicts)
