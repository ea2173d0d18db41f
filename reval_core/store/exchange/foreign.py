"""Reads completions of other systems: JSON lines or Parquet with a question, a gold answer and a completion a row.

A row that cannot be used is given as `Unusable` with its line, so that the others go in and it can be counted.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reval_core.errors import ProblemError
from reval_core.problems import Problem
from reval_core.problems.loading import OURS, encodable, problem_of, value_of

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
OF_THE_COMPLETION = ("completion", "model", "label", "truncated", "sample", "dataset")
FIELDS = (*OURS, *OF_THE_COMPLETION)
"""Names that ``fields`` maps to a file's columns; every other column is the problem's metadata."""
UNKNOWN_MODEL = "unknown"
_ROWS = 256


@dataclass(frozen=True)
class Completion:
    """One usable row."""

    problem: Problem
    text: str
    model: str
    label: bool | None
    """Whether its own system found it right; None: it does not say."""
    truncated: bool
    sample: int | None
    """Number of the sample, where the file has one; otherwise the order of the rows counts."""
    where: str
    """File and line."""


@dataclass(frozen=True)
class Unusable:
    """One row that cannot be used."""

    reason: str
    where: str
    detail: str


def check_fields(fields: Mapping[str, str]) -> None:
    """Refuse names that are none of ours.

    Raises:
        ProblemError: names the first one.
    """
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ProblemError(f"The fields map {unknown[0]!r}, which is none of {', '.join(FIELDS)}.")


def read(path: Path, fields: Mapping[str, str]) -> Iterator[Completion | Unusable]:
    """The rows of a file in order, one at a time.

    Args:
        path: .jsonl, .jsonl.gz or .parquet.
        fields: our names to the file's columns, where they differ. A gold answer is looked for under ``answer``, then
            under ``gold``.

    Raises:
        ProblemError: the file itself is damaged.
    """
    for line, row in _rows(path):
        yield row if isinstance(row, Unusable) else _completion(row, path.name, line, fields)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | Unusable]]:
    if path.suffix == ".parquet":
        try:
            with pq.ParquetFile(path) as file:
                batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=_ROWS))
                yield from enumerate((row for batch in batches for row in batch), start=1)
        except (pa.ArrowInvalid, OSError) as error:
            raise ProblemError(f"{path} is not a readable Parquet file: {error}") from error
        return
    line = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for line, data in enumerate(file, start=1):
                if data.strip():
                    yield line, _json(data, f"{path.name}, line {line}")
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ProblemError(f"{path} is not a whole gzip file (after line {line}): {error}") from error


def _json(data: bytes, where: str) -> dict[str, Any] | Unusable:
    try:
        row = json.loads(data)
    except UnicodeDecodeError:
        return Unusable("that cannot be read", where, "not UTF-8 text")
    except json.JSONDecodeError as error:
        return Unusable("that cannot be read", where, f"not JSON ({error.msg} at column {error.colno})")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or lists without end
        return Unusable("that cannot be read", where, f"not JSON that can be read ({error})")
    if not isinstance(row, dict):
        return Unusable("that cannot be read", where, f"expected a JSON object, found {type(row).__name__}")
    return row


def _completion(row: dict[str, Any], label: str, line: int, fields: Mapping[str, str]) -> Completion | Unusable:
    where = f"{label}, line {line}"
    column = {name: fields.get(name, name) for name in FIELDS}
    if "answer" not in fields and "answer" not in row:
        column["answer"] = "gold"
    text, model, dataset, sample = (
        value_of(row, column[name]) for name in ("completion", "model", "dataset", "sample")
    )
    try:
        truth, cut = (_truth(value_of(row, column[name]), column[name]) for name in ("label", "truncated"))
        problem = _problem(row, label, line, column, dataset)
    except ValueError as error:
        return Unusable("with a value of another kind", where, str(error))
    except ProblemError as error:
        return Unusable("without a usable problem", where, str(error).removeprefix(f"{where}: "))
    if not isinstance(text, str):
        found = f"{column['completion']!r} is missing or no text; there are {', '.join(row)}"
        return Unusable("without a completion", where, f"column {found}; map one with completion=COLUMN")
    model = UNKNOWN_MODEL if model is None else str(model)
    try:
        encodable(model, where, "the model's name")  # the tokenizer looks at the completion
    except ProblemError as error:
        return Unusable("that cannot be written as text", where, str(error).removeprefix(f"{where}: "))
    return Completion(
        problem=problem,
        text=text,
        model=model,
        label=truth,
        truncated=bool(cut),
        sample=sample if isinstance(sample, int) else None,
        where=where,
    )


def _problem(row: dict[str, Any], label: str, line: int, column: Mapping[str, str], dataset: Any) -> Problem:
    """The row's problem as a problem file's would be read; a data set that the row names is its source."""
    used = {column[name] for name in OF_THE_COMPLETION}
    rest = {name: value for name, value in row.items() if name not in used}
    ours = {name: column[name] for name in OURS}
    source = {"source": dataset} if dataset is not None and "source" not in row else {}
    return problem_of(rest | source, line, label, ours, lambda gold: None)


def _truth(value: Any, column: str) -> bool | None:
    """True, false or unknown; 0 and 1 stand for them, NaN for unknown.

    Raises:
        ValueError: it is something else.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise ValueError(f"column {column!r} is {value!r}, neither true, false nor null")
