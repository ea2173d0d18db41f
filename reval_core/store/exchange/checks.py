"""Holds rows of an exported file against what they say of themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reval_core.identity import digest
from reval_core.store.exchange.selection import PURPOSES
from reval_core.store.trajectories import prompt_digest, trajectory_id

_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "purpose": PURPOSES,
    "finish_reason": ("stop", "length", "budget", "deadline"),
    "verdicts.status": ("correct", "incorrect", "no_answer", "timeout", "error", "rejected"),
}
_MAY_BE_NULL = {
    "behaviour_logprob",
    "verdicts.answer",
    "verdicts.verifier",
    "verdicts.verifier_version",
    "verdicts.verifier_settings",
    "provenance.run_id",
    "provenance.attempt",
    "provenance.batch_run_id",
    "provenance.batch_attempt",
}
_JSON = {"sampling", "sources.metadata", "verdicts.verifier_settings"}


class Unfit(Exception):
    """A file that cannot be taken in, and why."""


def check(table: pa.Table, start: int) -> None:
    """Hold a slice of a file against the schema's rules and its own ids.

    Args:
        table: rows of an export, in the types of `columns.SCHEMA`.
        start: number of the file's rows before it.

    Raises:
        Unfit: names the first row (counted from 1) that does not hold, and what is wrong there.
    """
    for name in table.column_names:
        _check_values(name, table.column(name).combine_chunks(), np.arange(start + 1, start + 1 + table.num_rows))
    _check_responses(table, start)
    _check_prompts(table, start)


def _check_values(name: str, values: pa.Array, rows: np.ndarray) -> None:
    """Nulls, words that are not allowed and broken JSON, also inside lists and structs.

    Args:
        name: of the column, or ``column.field``.
        values: [n]
        rows: [n] the file's row of each value.
    """
    if name not in _MAY_BE_NULL:
        _refuse(pc.is_null(values), rows, f"{name} is null")
    if name in _ALLOWED:
        allowed = pc.is_in(values, pa.array(_ALLOWED[name]))
        _refuse(pc.invert(allowed), rows, f"{name} is none of {', '.join(_ALLOWED[name])}")
    if name in _JSON:
        broken = {text for text in pc.unique(values).to_pylist() if text is not None and not _is_json(text)}
        _refuse(pc.is_in(values, pa.array(broken, pa.string())), rows, f"{name} is not JSON")
    if pa.types.is_list(values.type):
        _check_values(f"{name}", pc.list_flatten(values), rows[pc.list_parent_indices(values).to_numpy()])
    elif pa.types.is_struct(values.type):
        for field in values.type:
            _check_values(f"{name}.{field.name}", pc.struct_field(values, field.name), rows)


def _refuse(wrong: pa.Array, rows: np.ndarray, what: str) -> None:
    at = np.flatnonzero(wrong.to_numpy(zero_copy_only=False))
    if len(at):
        raise Unfit(f"row {rows[at[0]]}: {what}")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _check_responses(table: pa.Table, start: int) -> None:
    columns = (table.column(name).to_pylist() for name in ("trajectory_id", "batch_id", "problem_id", "sample_index"))
    lengths = pc.list_value_length(table.column("response_ids")).to_numpy()
    for row, (name, *made_of, length) in enumerate(zip(*columns, lengths, strict=True), start=start + 1):
        if name != trajectory_id(*made_of):
            raise Unfit(f"row {row}: its trajectory_id is not the digest of batch_id, problem_id and sample_index")
        if not length:
            raise Unfit(f"row {row}: a response without a token")


def _check_prompts(table: pa.Table, start: int) -> None:
    """Each pair of an id and what it is the digest of, computed once where rows repeat it."""
    ids = table.column("prompt_ids").combine_chunks()
    tokens, ends = ids.flatten().to_numpy(), np.cumsum(pc.list_value_length(ids).to_numpy())
    names, problems = (table.column(name).to_pylist() for name in ("prompt_id", "problem_id"))
    held: set[tuple[str, bytes | str]] = set()
    for index, messages in enumerate(table.column("messages").to_pylist()):
        prompt = tokens[ends[index - 1] if index else 0 : ends[index]]
        if (names[index], prompt.tobytes()) not in held:
            if names[index] != prompt_digest(prompt):
                raise Unfit(f"row {start + index + 1}: its prompt_id is not the digest of prompt_ids")
            held.add((names[index], prompt.tobytes()))
        if (problems[index], str(messages)) not in held:
            if problems[index] != digest("prb", messages):
                raise Unfit(f"row {start + index + 1}: its problem_id is not the digest of messages")
            held.add((problems[index], str(messages)))
