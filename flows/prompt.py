"""The prompt of ``reval sql``: statements, named queries and backslash commands, in the manner of psql.

Every question is one short read-only connection (`Prompt.query`); between two inputs none is open, so that a prompt
that is left open stops no run.
"""

from __future__ import annotations

import difflib
import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition, completion_is_selected
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from flows import asking, listing
from flows.completion import StoreCompleter, read_names, split
from flows.given import parameters_of
from flows.opening import counted
from reval_core.errors import ConfigError, RevalError, StoreError
from reval_core.home import Home
from reval_core.store.migrations import now
from reval_core.store.sqlfiles import query_text
from reval_core.visible import visible


def open_prompt(home: Home, console: Console, limit: int) -> None:
    """Ask for input and answer it until the user leaves.

    Args:
        limit: rows that are shown of a result.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """
    prompt = Prompt(home, console, limit)
    prompt.greet()
    session = _session(prompt)
    while True:
        try:
            prompt.answer(session.prompt("reval> "))
        except KeyboardInterrupt:  # clears the line
            continue
        except EOFError:  # Ctrl-D, or a command that leaves
            return


def _session(prompt: Prompt) -> PromptSession[str]:
    """The line editor: Enter gives the text to `Prompt.answer` when it is complete, and begins a new line before."""
    keys = KeyBindings()

    @keys.add("enter", filter=completion_is_selected)
    def _take_completion(event: KeyPressEvent) -> None:
        event.current_buffer.complete_state = None

    meanings = {name: command.meaning for name, command in COMMANDS.items()}
    session: PromptSession[str] = PromptSession(
        history=_history(prompt),
        lexer=PygmentsLexer(SqlLexer),
        completer=StoreCompleter(lambda: prompt.names, prompt.parameters, meanings),
        complete_while_typing=False,  # with Tab, as in psql
        multiline=Condition(lambda: bool(split(get_app().current_buffer.text, prompt.names)[1])),
        prompt_continuation="    -> ",
        key_bindings=keys,
    )
    session.default_buffer.on_text_insert += _only_utf8
    return session


def _only_utf8(buffer: Buffer) -> None:
    """Put ? in the place of bytes that are no UTF-8, which neither DuckDB nor the history's file takes."""
    text = buffer.text.encode(errors="replace").decode()
    if text != buffer.text:
        buffer.text = text


def _history(prompt: Prompt) -> History:
    path = prompt.home.root / "sql_history"
    try:
        path.touch(mode=0o600)
    except OSError as error:
        prompt.console.print(f"This prompt's history is not kept: {path}: {error.strerror}", markup=False)
        return InMemoryHistory()
    return FileHistory(path)


class Prompt:
    """What commands have set, and what an input does.

    Attributes:
        names: the store's names as they were read last.
        parameters: values of ``$name`` in later statements.
        expanded: results are shown one column a line.
        timing: seconds are shown.
        files: where the next results go; None for the terminal.
    """

    def __init__(self, home: Home, console: Console, limit: int) -> None:
        self.home = home
        self.console = console
        self.limit = limit
        self.names = read_names(self.query)
        self.parameters: dict[str, str] = {}
        self.expanded = False
        self.timing = False
        self.files: Iterator[Path] | None = None

    def query(self, sql: str, values: Mapping[str, Any] | None = None) -> pa.Table:
        """The one way to the store: opens it, asks, closes it."""
        return asking.store_of(self.home).query(sql, **(values or {}))

    def greet(self) -> None:
        """Say which root it is, how many runs it has, and how current they are."""
        runs = self.query("SELECT run_id, last_active_at FROM runs ORDER BY last_active_at DESC").to_pylist()
        current = [
            f"{run['run_id']} active {_ago((now() - run['last_active_at']).total_seconds())}" for run in runs[:1]
        ]
        self._say(f"{self.home.root}: {', '.join([counted(len(runs), 'run'), *current])}. \\? for help, \\q to leave.")

    def answer(self, text: str) -> None:
        """Do what a text says; errors and Ctrl-C end it, and are told.

        Raises:
            EOFError: the user leaves.
        """
        try:
            asked, rest = split(text, self.names)
            for each in asked:
                self._do(each)
            if rest:  # Alt-Enter gives a statement without its semicolon
                self._statement(rest)
        except KeyboardInterrupt:
            self._say("\nInterrupted.")  # behind the terminal's ^C, or DuckDB's bar
        except RevalError as error:
            told = one_line(error)
            self.console.print(f"[red]Error:[/] {escape(visible(told))}", soft_wrap=True)
            if re.search("not exist|not found|no query", told):
                with suppress(RevalError):  # completion goes on with the names that it has
                    self.names = read_names(self.query)

    def _do(self, text: str) -> None:
        if text.endswith(";"):
            self._statement(text)
            return
        name, *rest = text.split(maxsplit=1)
        words = _words(rest[0]) if rest else []
        if name.startswith("\\") or name in WORDS:
            self._command(WORDS.get(name, name), words)
        else:
            self._named_query(name, words)

    def _command(self, name: str, words: list[str]) -> None:
        if name not in COMMANDS:
            raise ConfigError(f"There is no command {name}. There are {', '.join(COMMANDS)}; \\? says what they do.")
        command = COMMANDS[name]
        if len(words) > len(command.arguments.split()):
            raise ConfigError(f"Too many words. Write it as: {name} {command.arguments}".rstrip())
        command.do(self, *words)

    def _named_query(self, name: str, given: list[str]) -> None:
        if name in self.names.views:
            raise StoreError(
                f"{name} is a view, not a named query: FROM {name}; shows its rows, \\d {name} its columns."
            )
        taken = parameters_of(query_text(name))
        kept = {key: value for key, value in self.parameters.items() if key in taken}
        values = kept | asking.parameters(self.home, name, given)
        values, run = asking.with_newest_run(asking.store_of(self.home), name, values)
        self._ask(name, values)
        if run is not None and self.files is None:
            self._say(f"of {run}, the newest run (run=RUN behind the name for another)")

    def _statement(self, sql: str) -> None:
        taken = parameters_of(sql)
        for name in taken:
            if name not in self.parameters:
                raise ConfigError(f"${name} has no value yet. Give it one: \\set {name} VALUE")
        self._ask(sql, {name: self.parameters[name] for name in taken})

    def _ask(self, sql: str, values: Mapping[str, str]) -> None:
        began = time.perf_counter()
        result = asking.with_readable_intervals(self.query(sql, values))
        seconds = time.perf_counter() - began
        if result.column_names in ([], ["Success"]):  # of a statement that has no rows
            self._say("Done. Each statement has its own connection: settings and temporary tables end with it.")
        elif self.files is not None:
            path = next(self.files)
            asking.write_file(result, path)
            self._say(f"{counted(result.num_rows, 'row')} written to {path}")
        else:
            with asking.writing(None):
                self._show(result)
        if self.timing:
            self._say(f"{seconds:.3f} s")

    def _show(self, result: pa.Table) -> None:
        more = "--limit, \\o FILE"
        if self.expanded:
            asking.show_expanded(result, self.console, self.limit, more)
        else:
            asking.show(result, self.console, self.limit, more, "\\x for one column a line, \\o FILE")

    def _describe(self, name: str = "") -> None:
        self.names = read_names(self.query)
        if not name:
            self._list(("view", "a row"), self.names.views.items())
            self._say("\\d NAME lists columns, \\dt the base tables under the views, \\dq the named queries.")
            return
        table = self.names.table(name)
        if table is None:
            near = difflib.get_close_matches(name, self.names.columns, n=1)
            hint = f"Did you mean {near[0]}?" if near else "\\d lists the views, \\dt the base tables."
            raise StoreError(f"There is no view or table {name}. {hint}")
        comment = self.names.views.get(table) or self.names.tables.get(table.removeprefix("store."), "")
        self._say(f"{table}: {comment}" if comment else table)
        rows = ((column.name, column.type, column.comment) for column in self.names.columns[table])
        self._list(("column", "type", "meaning"), rows)

    def _list_tables(self) -> None:
        self.names = read_names(self.query)
        rows = ((f"store.{name}", comment) for name, comment in self.names.tables.items())
        self._list(("base table", "what it holds"), rows)
        self._say("These may change with a version; the views (\\d) stay.")

    def _list_queries(self, name: str = "") -> None:
        if name:
            sql = query_text(name).strip()
            self.console.print(Syntax(sql, "sql", theme="ansi_dark", background_color="default", word_wrap=True))
            return
        self._list(("named query", "what it answers"), self.names.queries.items())
        self._say("NAME runs one, NAME run=RUN for another run than the newest, \\dq NAME shows its text.")

    def _list_runs(self) -> None:
        listing.list_runs(self.home, self.console)

    def _toggle_expanded(self) -> None:
        self.expanded = not self.expanded
        self._say(f"Results are shown {'one column a line' if self.expanded else 'as tables'}.")

    def _toggle_timing(self) -> None:
        self.timing = not self.timing
        self._say(f"Timing is {'on' if self.timing else 'off'}.")

    def _redirect(self, name: str = "") -> None:
        if not name:
            self.files = None
            self._say("Results are shown here.")
            return
        path = Path(name).expanduser()
        if path.suffix not in asking.ENDINGS:
            raise ConfigError(f"{name} ends in none of {', '.join(asking.ENDINGS)}: the ending says the format.")
        self.files = _files(path)
        self._say(f"Results go to {path}, further ones to files numbered from 2; \\o shows them here again.")

    def _set(self, name: str = "", value: str | None = None) -> None:
        if not name:
            self._list(("parameter", "value"), ((f"${key}", text) for key, text in self.parameters.items()))
            return
        if value is None or not name.isidentifier():
            raise ConfigError(
                "Write it as: \\set NAME VALUE, for example \\set run quickstart; \\unset NAME takes it back."
            )
        self.parameters[name] = asking.find_run(asking.store_of(self.home), value) if name == "run" else value
        self._say(f"${name} is {self.parameters[name]}")

    def _unset(self, name: str = "") -> None:
        if name not in self.parameters:
            known = ", ".join(self.parameters) or "none"
            raise ConfigError(f"There is no parameter {name!r} to take back; set are: {known}.")
        del self.parameters[name]

    def _help(self) -> None:
        rows = [
            ("SELECT ...;", "SQL, over as many lines as it needs, up to a semicolon; the store is only read"),
            ("NAME [run=RUN]", "a named query; the first letters of a run's id are enough"),
            *((f"{name} {command.arguments}".rstrip(), command.meaning) for name, command in COMMANDS.items()),
        ]
        self._list(("type", "to"), rows)
        self._say(
            "Tab completes names, Ctrl-R searches the history, Ctrl-C ends a query or clears the line, Ctrl-D leaves."
        )

    def _leave(self) -> None:
        raise EOFError

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def _list(self, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
        table = Table(*header, show_edge=False)
        for row in rows:
            table.add_row(*map(escape, row))
        self.console.print(table)


@dataclass(frozen=True)
class Command:
    """A backslash command: what may follow it, what it is for, and what it does with the words that follow."""

    arguments: str
    meaning: str
    do: Callable[..., None]


COMMANDS = {
    "\\d": Command("[NAME]", "list the views, or the columns of a view or base table", Prompt._describe),
    "\\dt": Command("", "list the base tables", Prompt._list_tables),
    "\\dq": Command("[NAME]", "list the named queries, or show the text of one", Prompt._list_queries),
    "\\dr": Command("", "list the runs", Prompt._list_runs),
    "\\x": Command("", "show results one column a line, or as tables again", Prompt._toggle_expanded),
    "\\o": Command(
        "[FILE]", "write the next results to a .csv, .json or .parquet file, or show them", Prompt._redirect
    ),
    "\\timing": Command("", "show how long a statement took, or no longer", Prompt._toggle_timing),
    "\\set": Command("[NAME VALUE]", "set $NAME for later statements, or list what is set", Prompt._set),
    "\\unset": Command("NAME", "take a value back", Prompt._unset),
    "\\?": Command("", "this help", Prompt._help),
    "\\q": Command("", "leave; also \\quit, exit or Ctrl-D", Prompt._leave),
}
WORDS = {"help": "\\?", "exit": "\\q", "quit": "\\q", "\\quit": "\\q", "\\h": "\\?"}
"""Other ways to write a command."""


def one_line(error: RevalError) -> str:
    """An error's message without line breaks."""
    placed = re.sub(r"\n\s*LINE (\d+):.*", r" (line \1)", str(error), flags=re.DOTALL)
    return " ".join(placed.split())


def _files(path: Path) -> Iterator[Path]:
    """The file, then as many beside it, numbered from 2, as there are results; none of these overwrites another."""
    yield path
    for number in count(2):
        beside = path.with_stem(f"{path.stem}-{number}")
        if not beside.exists():
            yield beside


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} cannot be read as words: {error}.") from error


def _ago(seconds: float) -> str:
    """How long ago, in the largest unit of which there are two or more."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
