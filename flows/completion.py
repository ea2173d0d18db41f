"""The text at the prompt: which names it can hold, whether it is complete, and what may stand where the cursor is.

The names are read once and kept, so that completing a word asks the store nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from reval_core.store.sqlfiles import description, query_names, query_text

Offers = Iterable[tuple[str, str]]
"""Texts that may stand at the cursor, each with its meaning, the likeliest first."""

VIEWS = (
    "SELECT view_name AS name, comment FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal ORDER BY name"
)
TABLES = "SELECT table_name AS name, comment FROM duckdb_tables() WHERE schema_name = 'store' ORDER BY name"
COLUMNS = "SELECT schema_name, table_name, column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal"
RUNS = "SELECT run_id AS name FROM runs ORDER BY last_active_at DESC"
KEYWORDS = "SELECT keyword_name AS name FROM duckdb_keywords() ORDER BY name"
FUNCTIONS = (
    "SELECT DISTINCT function_name AS name FROM duckdb_functions() WHERE function_type <> 'pragma' ORDER BY name"
)

READ_FROM = re.compile(r"\b(?:from|join|describe|summarize)\s+(?:[\w.]+\s*,\s*)*[\w.]*$", re.IGNORECASE)
"""A text at whose end a table's name stands."""
TABLE_AND_ALIAS = re.compile(r"(?:\b(?:from|join)\s|,)\s*([\w.]+)(?=(?:\s+(?:as\s+)?(\w+))?)", re.IGNORECASE)
"""A table that a statement may read, and the word after it."""


@dataclass(frozen=True)
class Column:
    """A column of a view or table: its name, SQL type, and what it holds."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True)
class Names:
    """What the store had when it was read; mappings go from a name to what it means."""

    views: Mapping[str, str]
    """The public views."""
    tables: Mapping[str, str]
    """The base tables, without their schema ``store``."""
    columns: Mapping[str, list[Column]]
    """Of ``rounds`` (a view) or ``store.rounds`` (a base table or a view that others are made of)."""
    queries: Mapping[str, str]
    """The named queries and the question that each answers."""
    runs: tuple[str, ...]
    """Ids, the one that was active last first."""
    keywords: tuple[str, ...]
    functions: tuple[str, ...]

    def table(self, name: str) -> str | None:
        """The key of `columns` that a name in a statement means; a base table may be named without its schema."""
        name = name.lower()
        return next((key for key in (name, f"store.{name}") if key in self.columns), None)


def read_names(query: Callable[[str], pa.Table]) -> Names:
    """Ask the store for its names.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """

    def listed(sql: str) -> tuple[str, ...]:
        return tuple(query(sql).column("name").to_pylist())

    def explained(sql: str) -> dict[str, str]:
        return {row["name"]: row["comment"] or "" for row in query(sql).to_pylist()}

    columns: dict[str, list[Column]] = {}
    for schema, table, *column in zip(*(column.to_pylist() for column in query(COLUMNS).columns), strict=True):
        name, kind, comment = column
        columns.setdefault(table if schema == "main" else f"{schema}.{table}", []).append(
            Column(name, kind, comment or "")
        )
    return Names(
        views=explained(VIEWS),
        tables=explained(TABLES),
        columns=columns,
        queries={name: description(query_text(name).partition("\n")[0]) for name in query_names()},
        runs=listed(RUNS),
        keywords=listed(KEYWORDS),
        functions=tuple(name for name in listed(FUNCTIONS) if name.isidentifier() and not name.startswith("_")),
    )


def split(text: str, names: Names) -> tuple[list[str], str]:
    """What a text asks for, in order, and the statement at its end that is not complete ("" when it is).

    A statement ends with a semicolon outside of quotes and comments, which DuckDB's tokens tell, and keeps it. A
    command is a line, or a line's part before a semicolon, and has none.
    """
    found = []
    while text := text.lstrip():
        line = text.partition("\n")[0]
        command = line if line.startswith("\\") else line.partition(";")[0]
        if _is_command(command, names):
            found.append(command.rstrip("; \t\r"))
            text = text[len(command) :]
            continue
        tokens = [(place, kind) for place, kind in duckdb.tokenize(text) if kind != duckdb.token_type.comment]
        coded = text.encode()  # places are counted in bytes
        ends = (place for place, kind in tokens if kind == duckdb.token_type.operator and coded[place] == ord(";"))
        end = next(ends, None)
        if end is None:
            return found, text if tokens else ""
        if end > tokens[0][0]:  # not a semicolon alone
            found.append(coded[: end + 1].decode())
        text = coded[end + 1 :].decode()
    return found, ""


def _is_command(line: str, names: Names) -> bool:
    """Whether a line is a backslash command, or a word that names a query rather than beginning a statement."""
    if line.startswith("\\"):
        return True
    word = line.partition(" ")[0].strip()
    alone = re.fullmatch(r"[A-Za-z_]\w*(\s+\w+=.*)?\s*", line) is not None
    return word in names.queries or (alone and word.lower() not in names.keywords)


class StoreCompleter(Completer):
    """Completes backslash commands, named queries and SQL.

    Args:
        names: gives the names as they were read last.
        parameters: what ``\\set`` has set; may change later.
        commands: the backslash commands and what each does.
    """

    def __init__(self, names: Callable[[], Names], parameters: Mapping[str, str], commands: Mapping[str, str]) -> None:
        self._names = names
        self._parameters = parameters
        self._commands = commands

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """What begins as the word before the cursor does, upper or lower case alike."""
        before = document.text_before_cursor.lstrip()
        if before.startswith("\\o "):
            path = Document(before.removeprefix("\\o ").lstrip())
            yield from PathCompleter(expanduser=True).get_completions(path, complete_event)
            return
        word, offers = self.offers(before, document.text)
        seen = {word}
        for text, meaning in offers:
            if text.lower().startswith(word.lower()) and text not in seen:
                seen.add(text)
                yield Completion(text, start_position=-len(word), display_meta=meaning)

    def offers(self, before: str, text: str) -> tuple[str, Offers]:
        """The word at the cursor and what may stand in its place.

        Args:
            before: what stands before the cursor.
            text: the whole text; what a statement reads from may stand after the cursor.
        """
        names = self._names()
        command, space, rest = before.partition(" ")
        if before.startswith("\\"):
            return self._arguments(command, rest.lstrip()) if space else (command, self._commands.items())
        if before.count("'") % 2:  # within a text; a run's id is what nobody can type by heart
            return before.rpartition("'")[2], _meaning("run", names.runs)
        if space and command in names.queries:
            taken = re.findall(r"\$([A-Za-z_]\w*)", query_text(command))
            runs = [f"run={run}" for run in names.runs] if "run" in taken else []
            return re.findall(r"\S*$", before)[0], _meaning("", [*(f"{name}=" for name in taken), *runs])
        word = re.findall(r"[\w$.]*$", before)[0]
        if word == before:
            words = {"help": "what can be typed here", "exit": "leave"}
            return word, [*names.queries.items(), *words.items(), *_cased(word, names.keywords)]
        return word, self._of_statement(word, before, text)

    def _arguments(self, command: str, argument: str) -> tuple[str, Offers]:
        """What may follow a backslash command."""
        names = self._names()
        if command == "\\d":
            return argument, [*names.views.items(), *((f"store.{name}", told) for name, told in names.tables.items())]
        if command == "\\dq":
            return argument, names.queries.items()
        if command == "\\set" and argument.startswith("run "):
            return argument.removeprefix("run ").lstrip(), _meaning("run", names.runs)
        if command in ("\\set", "\\unset"):
            return argument, [*self._parameters.items(), ("run", "a run, by its first letters")]
        return argument, ()

    def _of_statement(self, word: str, before: str, text: str) -> Iterator[tuple[str, str]]:
        """What may stand in a SQL statement."""
        names = self._names()
        if word.startswith("$"):
            yield from ((f"${name}", value) for name, value in self._parameters.items())
            return
        tables = {f"store.{name}": told for name, told in names.tables.items()}
        if READ_FROM.search(before):
            yield from (*names.views.items(), ("store.", "the base tables"), *tables.items())
            return
        read = _read_tables(text, names)
        if "." in word:
            yield from tables.items()
            owner = word.rpartition(".")[0]
            yield from _columns(names, [read.get(owner.lower()) or names.table(owner)], f"{owner}.")
            return
        yield from _columns(names, read.values() or names.views)
        yield from names.views.items()
        yield from _cased(word, names.keywords)
        yield from _meaning("function", (f"{name}(" for name in names.functions))


def _read_tables(statement: str, names: Names) -> dict[str, str]:
    """The tables that a statement reads, by their names and aliases."""
    found = {}
    for match in TABLE_AND_ALIAS.finditer(statement):
        table = names.table(match[1])
        if table is not None:
            found[match[1].lower()] = table
            if match[2]:
                found[match[2].lower()] = table
    return found


def _columns(names: Names, tables: Iterable[str | None], prefix: str = "") -> Iterator[tuple[str, str]]:
    for table in tables:
        for column in names.columns.get(table or "", ()):
            yield f"{prefix}{column.name}", f"{column.type}  {column.comment}"


def _meaning(meaning: str, texts: Iterable[str]) -> list[tuple[str, str]]:
    return [(text, meaning) for text in texts]


def _cased(word: str, keywords: Iterable[str]) -> list[tuple[str, str]]:
    """Keywords in capitals where the word is."""
    return _meaning("keyword", (text.upper() for text in keywords) if word.isupper() else keywords)
