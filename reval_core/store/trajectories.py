"""Sampled responses, their verdicts and their reference scores: appended through Arrow, never row by row.

Every function takes the connection of an open transaction (`Store.write`) or of a read (`Store.read`), so a stage can
put its last rows and its own row in ``stages`` into one transaction. Appending the same rows twice changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from reval_core.errors import StoreError
from reval_core.identity import digest
from reval_core.store import payloads
from reval_core.store import statements as sql
from reval_core.store.migrations import now

PART_SCHEMA = pa.schema(
    [
        ("trajectory_id", pa.string()),
        ("problem_id", pa.string()),
        ("sample_index", pa.int32()),
        ("prompt_id", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("prompt_text", pa.string()),
        ("response_ids", pa.list_(pa.int32())),
        ("completion", pa.string()),
        ("finish_reason", pa.string()),
        ("behaviour_logprob", pa.float64()),
        ("seed", pa.uint64()),
    ]
)
"""Columns of a part: some finished responses of one batch."""

VERDICT_SCHEMA = pa.schema(
    [
        ("trajectory_id", pa.string()),
        ("gold_digest", pa.string()),
        ("status", pa.string()),
        ("reward", pa.float64()),
        ("answer", pa.string()),
        ("tier", pa.string()),
        ("seconds", pa.float64()),
        ("details", pa.string()),
    ]
)

SCORE_SCHEMA = pa.schema([("trajectory_id", pa.string()), ("logprob", pa.float64()), ("root_value", pa.float64())])


@dataclass(frozen=True)
class BatchRecord:
    """What made a batch of responses; its id is the digest of it (design: identity)."""

    purpose: str
    policy_id: str
    weights_checksum: str
    tokenizer_id: str
    round: int
    generation: int
    engine: str
    sampling: Mapping[str, Any]
    prompt_ids: tuple[str, ...]
    """Digests of the rendered prompts' token ids, in order."""
    problem_ids: tuple[str, ...]
    samples_per_prompt: int

    @property
    def batch_id(self) -> str:
        """Digest of policy, prompts, sampling settings (with stop set and seed), engine, round and generation."""
        return digest(
            "bat",
            {
                "purpose": self.purpose,
                "policy_id": self.policy_id,
                "prompts": list(zip(self.problem_ids, self.prompt_ids, strict=True)),
                "samples_per_prompt": self.samples_per_prompt,
                "sampling": dict(self.sampling),
                "engine": self.engine,
                "round": self.round,
                "generation": self.generation,
            },
        )

    @property
    def trajectory_count(self) -> int:
        """Responses in the whole batch."""
        return len(self.problem_ids) * self.samples_per_prompt


def trajectory_id(batch_id: str, problem_id: str, sample_index: int) -> str:
    """Name of one response of a batch."""
    return digest("trj", [batch_id, problem_id, sample_index])


def prompt_digest(token_ids: Sequence[int]) -> str:
    """Name of a rendered prompt."""
    return digest("prm", [int(token) for token in token_ids])


def check_part(part: pa.Table) -> None:
    """Refuse a table that is no part.

    Raises:
        StoreError: its columns or their types are not those of `PART_SCHEMA`.
    """
    if part.schema != PART_SCHEMA:
        raise StoreError(f"A part has the columns {part.schema.names}, expected {PART_SCHEMA.names} with their types.")


def append_part(
    connection: duckdb.DuckDBPyConnection,
    batch: BatchRecord,
    part: pa.Table,
    *,
    run_id: str | None,
    attempt: int | None,
) -> None:
    """Append some finished responses of a batch, and the batch's own row when it is the first part."""
    check_part(part)
    batch_id, created = batch.batch_id, now()
    sql.rows(
        connection,
        "trajectories",
        "add_batch",
        batch_id=batch_id,
        purpose=batch.purpose,
        policy_id=batch.policy_id,
        weights_checksum=batch.weights_checksum,
        tokenizer_id=batch.tokenizer_id,
        round=batch.round,
        generation=batch.generation,
        engine=batch.engine,
        sampling=json.dumps(dict(batch.sampling)),
        prompt_count=len(batch.problem_ids),
        trajectory_count=batch.trajectory_count,
        run_id=run_id,
        attempt=attempt,
        created_at=created,
    )
    if part.num_rows == 0:
        return
    sql.rows(connection, "trajectories", "add_prompts", {"part": part})
    sql.rows(connection, "trajectories", "add_payloads", {"part": part})
    sql.rows(
        connection,
        "trajectories",
        "add_trajectories",
        {"part": part},
        batch_id=batch_id,
        run_id=run_id,
        attempt=attempt,
        created_at=created,
    )


def batch_ids(connection: duckdb.DuckDBPyConnection, batch_id: str) -> list[str]:
    """Ids of a batch's responses in their canonical order."""
    return [row.trajectory_id for row in batch_rows(connection, batch_id)]


def check_batch(connection: duckdb.DuckDBPyConnection, batch: BatchRecord) -> None:
    """Refuse to commit a batch that is not whole.

    Raises:
        StoreError: the store has more or fewer of its responses than it stands for.
    """
    found = len(stored_samples(connection, batch.batch_id))
    if found != batch.trajectory_count:
        raise StoreError(
            f"The store has {found} responses of batch {batch.batch_id}, which stands for {batch.trajectory_count}. "
            "It is not committed; start again to sample what is missing."
        )


def row_group_bytes(connection: duckdb.DuckDBPyConnection) -> float:
    """About how many bytes of payloads a full row group of DuckDB holds, or as many as there are."""
    row = sql.row(connection, "trajectories", "row_group_bytes")
    assert row is not None
    return float(row[0])


def stored_samples(connection: duckdb.DuckDBPyConnection, batch_id: str) -> set[tuple[str, int]]:
    """(problem_id, sample_index) of the responses of a batch that are there already."""
    rows = sql.rows(connection, "trajectories", "stored_samples", batch_id=batch_id)
    return {(problem_id, int(index)) for problem_id, index in rows}


@dataclass(frozen=True)
class Tokens:
    """Token ids of one stored trajectory."""

    trajectory_id: str
    prompt_ids: np.ndarray
    """[P] int32"""
    response_ids: np.ndarray
    """[R] int32, EOS included when it was generated"""
    truncated: bool


def tokens(connection: duckdb.DuckDBPyConnection, trajectory_ids: Sequence[str]) -> dict[str, Tokens]:
    """Token ids of the named trajectories, in one read; of those that were archived from their files.

    Raises:
        StoreError: the payload of one of them is nowhere.
    """
    wanted = payloads.named(trajectory_ids)
    found = _tokens(sql.table(connection, "trajectories", "tokens", {"wanted": wanted}))
    missing = [name for name in wanted.column("trajectory_id").to_pylist() if name not in found]
    if missing:
        elsewhere = {"archived": payloads.archived(connection, missing)}
        found |= _tokens(sql.table(connection, "trajectories", "archived_tokens", elsewhere))
    return found


def _tokens(rows_found: pa.Table) -> dict[str, Tokens]:
    prompts, responses = _lists(rows_found.column("prompt_ids")), _lists(rows_found.column("response_ids"))
    return {
        name: Tokens(name, prompt, response, finish != "stop")
        for name, prompt, response, finish in zip(
            rows_found.column("trajectory_id").to_pylist(),
            prompts,
            responses,
            rows_found.column("finish_reason").to_pylist(),
            strict=True,
        )
    }


def _lists(column: pa.ChunkedArray) -> list[np.ndarray]:
    arrays: list[np.ndarray] = []
    for chunk in column.chunks:
        values = chunk.values.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        offsets = chunk.offsets.to_numpy()
        arrays += [values[start:end] for start, end in pairwise(offsets)]
    return arrays


def reference_scores(
    connection: duckdb.DuckDBPyConnection, trajectory_ids: Sequence[str], reference_policy_id: str, scoring_id: str
) -> dict[str, tuple[float, float]]:
    """(log pi_ref, V_ref(s1)) of those of the named trajectories that have been scored under this reference."""
    wanted = pa.table({"trajectory_id": pa.array(sorted(set(trajectory_ids)), pa.string())})
    found = sql.table(
        connection,
        "trajectories",
        "reference_scores",
        {"wanted": wanted},
        reference_policy_id=reference_policy_id,
        scoring_id=scoring_id,
    )
    columns = (found.column(name).to_pylist() for name in ("trajectory_id", "logprob", "root_value"))
    return {name: (logprob, root_value) for name, logprob, root_value in zip(*columns, strict=True)}


@dataclass(frozen=True)
class BatchRow:
    """One stored response of a batch, without its payload."""

    trajectory_id: str
    problem_id: str
    sample_index: int
    response_tokens: int
    finish_reason: str

    @property
    def truncated(self) -> bool:
        """Whether it was cut."""
        return self.finish_reason != "stop"


def batch_rows(connection: duckdb.DuckDBPyConnection, batch_id: str) -> list[BatchRow]:
    """The responses of a batch in their canonical order (problem, sample)."""
    found = sql.rows(connection, "trajectories", "batch_rows", batch_id=batch_id)
    return [BatchRow(*row) for row in found]


def completions(connection: duckdb.DuckDBPyConnection, batch_id: str) -> list[tuple[str, str, str]]:
    """(trajectory_id, problem_id, completion) of a batch in canonical order; those that were archived from their files.

    Raises:
        StoreError: a text is nowhere.
    """
    texts: dict[str, str] = dict(sql.rows(connection, "trajectories", "completions", batch_id=batch_id))
    rows_found = batch_rows(connection, batch_id)
    missing = [row.trajectory_id for row in rows_found if row.trajectory_id not in texts]
    texts |= payloads.archived_texts(connection, missing)
    return [(row.trajectory_id, row.problem_id, texts[row.trajectory_id]) for row in rows_found]


@dataclass(frozen=True)
class GradedRow:
    """One response of a batch with its verdict."""

    trajectory_id: str
    problem_id: str
    group_id: str
    """What a centred reward subtracts the mean of: the responses to one prompt of one batch."""
    sample_index: int
    truncated: bool
    gold_digest: str
    status: str
    reward: float
    answer: str | None


def graded_rows(
    connection: duckdb.DuckDBPyConnection, batch_id: str, verifier_id: str, golds: pa.Table
) -> list[GradedRow]:
    """The responses of a batch with the verdicts of one verifier against the gold answers that count.

    Args:
        golds: table (problem_id, gold_digest), each problem once.
    """
    found = sql.table(
        connection,
        "trajectories",
        "batch_verdicts",
        {"golds_used": golds},
        batch_id=batch_id,
        verifier_id=verifier_id,
    ).to_pylist()
    return [
        GradedRow(
            trajectory_id=row["trajectory_id"],
            problem_id=row["problem_id"],
            group_id=f"{batch_id}/{row['problem_id']}",
            sample_index=row["sample_index"],
            truncated=row["finish_reason"] != "stop",
            gold_digest=row["gold_digest"],
            status=row["status"],
            reward=row["reward"],
            answer=row["answer"],
        )
        for row in found
    ]


def add_verifier(
    connection: duckdb.DuckDBPyConnection, verifier_id: str, name: str, version: int, settings: Mapping[str, Any]
) -> None:
    """Record what a verifier_id stands for."""
    sql.rows(
        connection,
        "trajectories",
        "add_verifier",
        verifier_id=verifier_id,
        name=name,
        version=version,
        settings=json.dumps(dict(settings)),
        recorded_at=now(),
    )


def add_verdicts(connection: duckdb.DuckDBPyConnection, verifier_id: str, verdicts: pa.Table) -> None:
    """Append verdicts (a table of `VERDICT_SCHEMA`); ones that stand already stay."""
    sql.rows(connection, "trajectories", "add_verdicts", {"part": verdicts}, verifier_id=verifier_id, graded_at=now())


def add_reference_scores(
    connection: duckdb.DuckDBPyConnection, reference_policy_id: str, scoring_id: str, scores: pa.Table
) -> None:
    """Append reference scalars (a table of `SCORE_SCHEMA`); ones that stand already stay."""
    sql.rows(
        connection,
        "trajectories",
        "add_reference_scores",
        {"part": scores},
        reference_policy_id=reference_policy_id,
        scoring_id=scoring_id,
    )
