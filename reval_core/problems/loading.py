"""Reads problems from files, folders, globs, hub data sets and the built-in set.

Bad input is an error that names file and line, and nothing is dropped in silence: a missing question, an empty gold
answer or a broken line stops the start of a run, before anything is generated.
"""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from reval_core.config import ProblemFile
from reval_core.errors import ProblemError
from reval_core.home import expand
from reval_core.identity import finite
from reval_core.problems.arithmetic import arithmetic_problems
from reval_core.problems.hub import fetched
from reval_core.problems.problem import Problem, ask

Row = dict[str, Any]
Taken = TypeVar("Taken")
Made = TypeVar("Made")
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".csv")
OURS = ("question", "answer", "id", "messages")
"""Names that `fields` maps to a file's columns; every other column is metadata."""
SHOWN = 5
"""Faults of a file that are told; the others are counted."""


def load_problems(
    source: ProblemFile,
    check_gold: Callable[[str], None] | None = None,
    *,
    prepare: Callable[[list[Row]], list[Row]] | None = None,
) -> list[Problem]:
    """Read one source.

    Args:
        source: path, mapping of fields, filter and limit.
        check_gold: raises ValueError for a gold answer that cannot be graded against; None for a reward that needs
            none, whose verdicts may depend on every column.
        prepare: makes the rows of a file into rows that have the columns; as many as there were, in order.

    Raises:
        ProblemError: a file is missing or malformed (with its line), a field is missing, a gold answer is unusable.
    """
    unknown = sorted(set(source.fields) - set(OURS))
    if unknown:
        raise ProblemError(f"{source.path}: fields maps {unknown[0]!r}, which is none of {', '.join(OURS)}.")
    problems: list[Problem] = []
    for label, rows in _tables(source):
        if prepare is not None:
            rows = list(zip((line for line, _ in rows), prepare([row for _, row in rows]), strict=True))
        kept = _filtered(rows, source.filter, label) if source.filter else rows
        problems += _problems(kept, label, source.fields, check_gold)
    if source.limit is not None:
        problems = problems[: source.limit]
    if not problems:
        raise ProblemError(
            f"{source.path}: no problem is left" + (f" after filter {source.filter!r}." if source.filter else ".")
        )
    return problems


def _problems(
    rows: list[tuple[int, Row]], label: str, fields: Mapping[str, str], check_gold: Callable[[str], None] | None
) -> list[Problem]:
    return _whole(lambda at: problem_of(at[1], at[0], label, fields, check_gold), rows)


def _whole(make: Callable[[Taken], Made], items: Iterable[Taken]) -> list[Made]:
    """What each item is made into; the faults of all come in one error, so that a file is mended in one go."""
    made, faults = [], []
    for item in items:
        try:
            made.append(make(item))
        except ProblemError as error:
            faults.append(str(error))
    if faults:
        more = [f"... and {len(faults) - SHOWN:,} more of this file."] if len(faults) > SHOWN else []
        raise ProblemError("\n".join([*faults[:SHOWN], *more]))
    return made


def _tables(source: ProblemFile) -> Iterator[tuple[str, list[tuple[int, Row]]]]:
    if source.path.startswith("builtin:"):
        kind, _, split = source.path.removeprefix("builtin:").partition("/")
        if kind != "arithmetic" or split not in ("train", "heldout"):
            raise ProblemError(f"{source.path!r} is not built in; there are builtin:arithmetic/train and .../heldout.")
        yield source.path, list(enumerate((dict(row) for row in arithmetic_problems(split)), start=1))
    elif source.path.startswith("hf:"):
        yield source.path, list(enumerate(_hub_rows(source.path.removeprefix("hf:"), source.split), start=1))
    else:
        for path in _files(source.path):
            yield path.name, _read(path)


def _files(pattern: str) -> list[Path]:
    path = expand(pattern)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES))
    elif path.is_file():
        found = [path]
    else:
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    if not found:
        raise ProblemError(f"There is no problem file at {path} (from {pattern!r}). Give a file, a folder or a glob.")
    return found


def _read(path: Path) -> list[tuple[int, Row]]:
    if not path.name.endswith(SUFFIXES):
        raise ProblemError(f"{path.name}: cannot read this kind of file; known are {', '.join(SUFFIXES)}.")
    if path.suffix == ".parquet":
        try:
            return list(enumerate(pq.read_table(path).to_pylist(), start=1))
        except pa.ArrowInvalid as error:
            raise ProblemError(f"{path} is not a readable Parquet file: {error}") from error
    text = _text(path)
    if path.suffix == ".csv":
        return list(_csv_rows(text, path))
    if ".jsonl" in path.name:
        lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
        return _whole(lambda at: (at[0], _json_line(at[1], path, at[0])), lines)
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise ProblemError(f"{path}, line {error.lineno}: not JSON ({error.msg}).") from error
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"{path}: not JSON that can be read ({error}).") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProblemError(f"{path}: expected a JSON list of objects.")
    return list(enumerate(rows, start=1))


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, Row]]:
    """(line on which it ends, row) of a table with a header; texts may hold commas and line breaks in quotes."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = reader.fieldnames or ()
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            raise ProblemError(f"{path}: two columns are called {twice!r}; give one of them another name.")
        for row in reader:
            if None in row or None in row.values():
                raise ProblemError(f"{path}, line {reader.line_num}: not as many cells as the header has.")
            yield reader.line_num, row
    except csv.Error as error:
        raise ProblemError(f"{path}, line {reader.line_num}: not CSV ({error}).") from error


def _text(path: Path) -> str:
    """The text of a file, without the mark of the byte order that some programs put before it."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ProblemError(f"{path} is not a whole gzip file: {error}") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ProblemError(f"{path}, line {line}: not UTF-8 text.") from error


def _json_line(line: str, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ProblemError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}).") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or lists without end
        raise ProblemError(f"{path}, line {number}: not JSON that can be read ({error}).") from error
    if not isinstance(row, dict):
        raise ProblemError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}.")
    return row


def _hub_rows(name: str, split: str) -> Iterable[Row]:
    try:
        import datasets
    except ImportError as error:
        raise ProblemError(f"hf:{name} needs the library datasets: pip install 'reval[hub]'.") from error
    repository, _, subset = name.partition("#")
    return fetched(lambda: datasets.load_dataset(repository, subset or None, split=split))


def _filtered(rows: list[tuple[int, Row]], condition: str, label: str) -> list[tuple[int, Row]]:
    """Rows that meet a SQL condition on their columns."""
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    table = pa.table({name: _column([row.get(name) for _, row in rows]) for name in columns})
    place = "_" * (1 + max(map(len, columns), default=0))  # as no column is called
    with duckdb.connect(":memory:") as connection:
        connection.register("problems", table.append_column(place, pa.array(range(len(rows)), pa.int64())))
        try:
            kept = connection.execute(f"SELECT {place} FROM problems WHERE {condition} ORDER BY {place}").fetchall()
        except duckdb.Error as error:
            raise ProblemError(
                f"{label}: filter {condition!r} failed: {error} Columns: {', '.join(columns)}."
            ) from error
    return [rows[index] for (index,) in kept]


def _column(values: list[Any]) -> pa.Array:
    """A column for the filter; one that mixes types, or has what Arrow has not, is text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        texts = [None if value is None else str(value).encode("utf-8", "replace").decode() for value in values]
        return pa.array(texts, pa.string())


def problem_of(
    row: Row, line: int, label: str, fields: Mapping[str, str], check_gold: Callable[[str], None] | None
) -> Problem:
    """A row of a file as a problem.

    Args:
        row: its columns.
        line: number of the row, which is its id where it has none.
        label: what the file is called; the source where the row names none.
        fields: our name to the file's column.
        check_gold: refuses a gold answer that cannot be graded against by a ValueError; None where none is needed.

    Raises:
        ProblemError: names the row and what is wrong with it.
    """
    where, row = f"{label}, line {line}", finite(row)  # a gap in a table of numbers is a NaN there
    column = {name: fields.get(name, name) for name in OURS}
    messages = value_of(row, column["messages"])
    question = messages if messages is not None else value_of(row, column["question"])
    if question is None:
        raise ProblemError(
            f"{where}: column {column['question']!r} is missing or null. "
            f"There are {', '.join(row)}; map one with fields: {{question: ...}} or --fields question=..."
        )
    gold = value_of(row, column["answer"])
    gold_text = encodable("" if gold is None else str(gold), where, "the gold answer")
    if check_gold is not None:
        if gold is None:
            raise ProblemError(
                f"{where}: column {column['answer']!r} is missing or null. "
                f"There are {', '.join(row)}; map one with fields: {{answer: ...}} or --fields answer=..."
            )
        if isinstance(gold, list | dict):
            kind = type(gold).__name__
            raise ProblemError(
                f"{where}: the gold answer {gold_text[:80]!r} is a {kind}, and no response could match it. Write it as "
                "the text that stands in the box; map another column with fields: {answer: ...}."
            )
        try:
            check_gold(gold_text)
        except ValueError as error:
            raise ProblemError(
                f"{where}: the gold answer {gold_text[:80]!r} cannot be graded against: {error}"
            ) from error
    source, external_id = row.get("source"), value_of(row, column["id"])
    return Problem(
        messages=_messages(question, where),
        gold=gold_text,
        source=encodable(label if source is None else str(source), where, "the source"),
        external_id=encodable(str(line if external_id is None else external_id), where, "the id"),
        metadata=_metadata(row, {*column.values(), "source"}, where),
        graded_on="row" if check_gold is None else "gold",
    )


def _metadata(row: Row, used: set[str], where: str) -> Row:
    """The columns that are not used."""
    rest = {key: value for key, value in row.items() if key not in used}
    encodable(json.dumps(rest, ensure_ascii=False, default=str), where, "its further columns")
    return rest


def value_of(row: Row, column: str) -> Any:
    """What stands in a column, or, for ``a.b`` where no column is called so, in the field b of the mapping in a."""
    if column in row or "." not in column:
        return row.get(column)
    outer, _, inner = column.partition(".")
    within = row.get(outer)
    return value_of(within, inner) if isinstance(within, dict) else None


def _messages(question: Any, where: str) -> tuple[Mapping[str, str], ...]:
    if isinstance(question, str):
        if not question.strip():
            raise ProblemError(f"{where}: the question is empty.")
        return ask(encodable(question, where, "the question"))
    whole = (
        isinstance(question, list)
        and question
        and all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
            for m in question
        )
    )
    if not whole:
        raise ProblemError(f"{where}: a question is text or a list of messages with role and content.")
    if question[-1]["role"] != "user":
        raise ProblemError(
            f"{where}: the last message is by {question[-1]['role']!r}; the model answers a user message."
        )
    return tuple({name: encodable(m[name], where, "the question") for name in ("role", "content")} for m in question)


def encodable(text: str, where: str, what: str) -> str:
    """The text, where it is one.

    Raises:
        ProblemError: it holds half of a surrogate pair, which no file and no tokenizer can write.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ProblemError(
            f"{where}: half of a surrogate pair at character {error.start} of {what}; it cannot be written as text."
        ) from error
    return text
