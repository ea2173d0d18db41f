"""The prompt of `reval sql`: on a real terminal, through prompt_toolkit's own input, and its completer by itself."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from flows.completion import Names, StoreCompleter, split
from flows.prompt import COMMANDS, Prompt, open_prompt
from reval_core.errors import StoreError
from reval_core.home import Home
from reval_core.store import Store

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "store"))  # pytest has only this file's folder on the path
import store_example  # noqa: E402

CTRL_C, CTRL_D, UP, ALT_ENTER = "\x03", "\x04", "\x1b[A", "\x1b\r"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the store's small example: run-a of three rounds, and run-b forked from its round 2."""
    root = tmp_path_factory.mktemp("example")
    store_example.build(root / "reval.duckdb")
    return root


@pytest.fixture
def home(example: Path, tmp_path: Path) -> Home:
    """A copy of the example's root, whose prompt keeps a history."""
    shutil.copytree(example, tmp_path / "root")
    return Home(tmp_path / "root")


def terminal(width: int = 100) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, color_system=None, width=width, highlight=False, emoji=False
    )


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def typed(home: Home, *lines: str, width: int = 100, limit: int = 40) -> str:
    """What the prompt prints when lines are typed, each with Enter, and Ctrl-D at the end."""
    return keys(home, "".join(f"{line}\r" for line in lines) + CTRL_D, width=width, limit=limit)


def keys(home: Home, text: str | bytes, *, width: int = 100, limit: int = 40) -> str:
    console = terminal(width)
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_bytes(text if isinstance(text, bytes) else text.encode())
        open_prompt(home, console, limit)
    return printed(console)


@pytest.fixture
def answer(example: Path) -> Callable[[str], str]:
    """Gives a text to one open prompt on the example; returns what that printed."""
    console = terminal()
    prompt = Prompt(Home(example), console, 40)

    def give(text: str) -> str:
        before = len(printed(console))
        prompt.answer(text)
        return printed(console)[before:]

    return give


def cells(text: str) -> list[list[str]]:
    """Rows of the tables in a text, headers included."""
    return [[cell.strip() for cell in re.split("[┃│]", line)] for line in text.splitlines() if re.search("[┃│]", line)]


# The real terminal


class Screen:
    """``reval sql`` in a pseudo-terminal of its own."""

    def __init__(self, root: Path) -> None:
        self.fd, inner = pty.openpty()
        own_terminal = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{own_terminal}; from flows.cli import main; main()", "sql"],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            env={
                **os.environ,
                "REVAL_HOME": str(root),
                "PYTHONPATH": str(ROOT),
                "TERM": "xterm",
                "COLUMNS": "100",
                "PROMPT_TOOLKIT_NO_CPR": "1",  # nobody answers where the cursor is
            },
        )
        os.close(inner)
        self.seen = ""

    def send(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def read(self, seconds: float) -> bool:
        """Take what is written within so many seconds; false when there was nothing or the program has ended."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        try:
            text = os.read(self.fd, 65536).decode(errors="replace")
        except OSError:  # Linux says so when the other side is closed
            return False
        self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]", "", text)
        return bool(text)

    def until(self, words: str, again: str = "") -> str:
        """Read up to the words; ``again`` is sent every half second until they come. Returns what stood before them."""
        deadline = time.monotonic() + 240
        while words not in self.seen:
            assert time.monotonic() < deadline, f"{words!r} did not come:\n{self.seen}"
            if not self.read(0.5) and again:
                self.send(again)
        before, _, self.seen = self.seen.partition(words)
        return before


@pytest.fixture
def screen(home: Home) -> Iterator[Screen]:
    started = Screen(home.root)
    yield started
    if started.process.poll() is None:
        started.process.kill()
    started.process.wait()
    os.close(started.fd)


def test_on_a_terminal_a_prompt_opens_answers_and_closes(screen: Screen, home: Home) -> None:
    screen.until(f"{home.root}: 2 runs, run-")
    screen.until("reval>")
    screen.send("select 6 * 7\r")
    screen.until("->")
    screen.send("as answer;\r")
    for words in ("answer", "42", "1 row", "reval>"):
        screen.until(words)
    with Store(home.database, lock_wait_s=60).write() as connection:  # the open prompt holds nothing
        connection.execute("CREATE VIEW later AS SELECT 'what came later' AS word")
    screen.send("from later;\r")
    screen.until("what came later")
    screen.until("reval>")
    screen.send("select 'half a line" + CTRL_C)
    screen.until("reval>")
    screen.send("select count(*) from range(1000000000000) as t(a) where a * a % 7 = 3;\r")
    screen.until("Interrupted.", again=CTRL_C)
    screen.until("reval>")
    screen.send("select 'still' || ' here' as word;\r")
    screen.until("still here")
    screen.until("reval>")
    screen.send(CTRL_D)
    while screen.read(120):
        pass
    assert screen.process.wait(timeout=120) == 0
    assert "Traceback" not in screen.seen
    assert "leak" not in screen.seen


def test_without_a_store_the_prompt_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no database at .* `reval train` creates it"):
        open_prompt(Home(tmp_path / "nowhere"), terminal(), 40)
    assert not (tmp_path / "nowhere").exists()


def test_the_command_line_does_not_load_the_prompt() -> None:
    check = "import sys, flows.cli, flows.asking; sys.exit('prompt_toolkit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0


# Where a text ends

NAMES = Names(
    views={"rounds": "", "runs": ""},
    tables={},
    columns={},
    queries={"learning_curve": ""},
    runs=(),
    keywords=("select", "from", "begin"),
    functions=(),
)


@pytest.mark.parametrize(
    ("text", "asked", "rest"),
    [
        ("select 1;", ["select 1;"], ""),
        ("select 1", [], "select 1"),
        ("select 1\n  ;", ["select 1\n  ;"], ""),
        ("select 1; select 2;", ["select 1;", "select 2;"], ""),
        ("select 1; select", ["select 1;"], "select"),
        ("select ';'", [], "select ';'"),
        ("select 'a\nb;", [], "select 'a\nb;"),
        ("select ';' as \";\", $$;$$;", ["select ';' as \";\", $$;$$;"], ""),
        ("select 'ü;ü'; select 'é';", ["select 'ü;ü';", "select 'é';"], ""),
        ("select 1 -- ;", [], "select 1 -- ;"),
        ("select 1 /* ; */;", ["select 1 /* ; */;"], ""),
        ("select 1; -- that is all", ["select 1;"], ""),
        ("-- a remark", [], ""),
        (" ;; ", [], ""),
        ("select", [], "select"),
        ("begin;", ["begin;"], ""),
        ("from rounds", [], "from rounds"),
        ("learning_curve", ["learning_curve"], ""),
        ("learning_curve;", ["learning_curve"], ""),
        ("learning_curve run=a; select 1;", ["learning_curve run=a", "select 1;"], ""),
        ("learning_curve whatever", ["learning_curve whatever"], ""),
        ("lerning_curve run='a b'", ["lerning_curve run='a b'"], ""),
        ("\\d rounds;", ["\\d rounds"], ""),
        ("\\x\nselect 1;\n\\o it's.csv\nruns", ["\\x", "select 1;", "\\o it's.csv", "runs"], ""),
    ],
)
def test_a_text_is_split_into_statements_and_commands(text: str, asked: list[str], rest: str) -> None:
    assert split(text, NAMES) == (asked, rest)


# Statements and named queries


def test_enter_goes_on_until_the_semicolon(home: Home) -> None:
    output = typed(home, "select iteration,", "  accuracy", "from rounds where run_id = 'run-a'", "order by all;")
    assert cells(output) == [["iteration", "accuracy"], ["0", "0.25"], ["1", "0.5"], ["2", "0.75"]]
    assert output.endswith("3 rows\n")


def test_several_statements_of_one_line_are_all_answered(home: Home) -> None:
    output = typed(home, "select 6 as a; select 7 as b; -- done").splitlines()[1:]
    assert [line.strip("━ ") for line in output] == ["a", "", "6", "1 row", "b", "", "7", "1 row"]


def test_alt_enter_asks_without_a_semicolon(home: Home) -> None:
    assert "1 row" in keys(home, "select 1 as a -- no semicolon" + ALT_ENTER + CTRL_D)


def test_the_first_line_says_root_runs_and_how_current(home: Home) -> None:
    first = typed(home).splitlines()[0]
    assert re.fullmatch(rf"{re.escape(str(home.root))}: 2 runs, run-[ab] active \d+ \w+ ago. \\\? for help, .*", first)


def test_a_store_without_runs_says_so(tmp_path: Path) -> None:
    Store(tmp_path / "reval.duckdb").prepare()
    assert typed(Home(tmp_path)).startswith(f"{tmp_path}: 0 runs. ")


def test_a_word_runs_the_named_query(answer: Callable[[str], str]) -> None:
    # run-a: rounds with 1, 2 and 3 of 4 right; run-b shares the first two and then has none
    assert [row[:2] for row in cells(answer("learning_curve run=run-a"))[1:]] == [
        ["0", "0.25"],
        ["1", "0.5"],
        ["2", "0.75"],
    ]
    assert [row[:2] for row in cells(answer("learning_curve run=run-b;"))[1:]] == [
        ["0", "0.25"],
        ["1", "0.5"],
        ["2", "0"],
    ]


def test_what_a_named_query_does_not_take_is_refused(answer: Callable[[str], str]) -> None:
    assert "There is no query 'learning_curv'. Did you mean 'learning_curve'?" in answer("learning_curv")
    assert "the query has no $runn; it takes $run" in answer("learning_curve runn=x")
    assert "'x': write it as name=value" in answer("learning_curve x")
    assert "There is no run x in this store" in answer("learning_curve run=x")
    assert "No closing quotation" in answer("learning_curve run='x")
    assert "rounds is a view, not a named query: FROM rounds;" in answer("rounds")


def test_what_does_not_fit_is_left_out_and_said(home: Home) -> None:
    output = typed(home, "select 12345678 as first, 'x' as second, * from rounds;", width=60)
    (header, row, *_) = cells(output)
    assert header[:2] == ["first", "second"]
    assert row[:2] == ["12345678", "x"]
    shown = len(header)
    columns = 2 + len(Prompt(home, terminal(), 1).names.columns["rounds"])
    assert f"{columns - shown} columns not shown (\\x for one column a line, \\o FILE)" in output
    assert max(map(len, output.splitlines()[1:])) <= 60


def test_the_rows_shown_are_limited(home: Home) -> None:
    output = typed(home, "from range(5);", "\\x", "from range(5);", limit=2)
    assert output.count("5 rows, 3 not shown (--limit, \\o FILE)\n") == 2
    assert output.count("[ row ") == 2


# Errors


def test_an_error_is_one_line_and_the_prompt_goes_on(home: Home) -> None:
    output = typed(home, "select", "  nosuch", "from rounds;", "selct 1;", "select $nope;", "select 1 as a;")
    errors = [line for line in output.splitlines() if line.startswith("Error: ")]
    assert 'Referenced column "nosuch" not found in FROM clause!' in errors[0]
    assert errors[1].endswith('syntax error at or near "selct" (line 1)')
    assert errors[2] == "Error: $nope has no value yet. Give it one: \\set nope VALUE"
    assert len(output.splitlines()) == 1 + len(errors) + 4  # the greeting before, a table of one row behind


def test_what_would_write_is_refused(answer: Callable[[str], str]) -> None:
    for statement in ("create table x as select 1;", "delete from store.runs;", "drop view rounds;"):
        assert answer(statement).startswith(
            "Error: Nothing can be changed here: the store is read-only through this door"
        )


def test_settings_end_with_their_statement_and_that_is_said(answer: Callable[[str], str]) -> None:
    assert "Each statement has its own connection" in answer("set threads = 1;")


def test_a_date_beyond_pythons_is_an_error(answer: Callable[[str], str]) -> None:
    assert "as column::VARCHAR" in answer("select 'infinity'::timestamp as a;")
    assert "infinity" in answer("select 'infinity'::timestamp::varchar as a;")


def test_an_unknown_command_says_what_there_is(answer: Callable[[str], str]) -> None:
    assert f"There is no command \\foo. There are {', '.join(COMMANDS)};" in answer("\\foo")
    assert "Too many words. Write it as: \\d [NAME]" in answer("\\d a b")
    assert "Too many words. Write it as: \\x\n" in answer("\\x a")


def test_bytes_that_are_no_utf8_become_question_marks(home: Home) -> None:
    assert "a?b" in keys(home, b"select 'a\xffb' as text;\r\x04")


def test_ctrl_c_clears_the_line_and_ends_a_query(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    output = keys(home, "select 'no end" + CTRL_C + "select 2 as b;\r" + CTRL_D)
    assert [row for row in output.splitlines() if "no end" in row] == []
    assert "1 row" in output

    ask = Prompt.query

    def interrupted(self: Prompt, sql: str, *values: object) -> object:
        if "slow" in sql:
            raise KeyboardInterrupt
        return ask(self, sql, *values)  # type: ignore[arg-type]

    monkeypatch.setattr(Prompt, "query", interrupted)
    output = typed(home, "select 'slow'; select 'next';", "select 'after' as word;")
    assert "Interrupted." in output
    assert "next" not in output
    assert "after" in output


@pytest.mark.parametrize("word", ["\\q", "\\quit", "exit", "quit", "exit;"])
def test_words_that_leave(home: Home, word: str) -> None:
    assert "1 row" not in typed(home, word, "select 1;")


# Backslash commands


def test_d_lists_the_views_with_their_comments_and_says_how_to_see_the_tables(answer: Callable[[str], str]) -> None:
    listed = dict(row for row in cells(answer("\\d")) if row[0])
    assert listed["events"].startswith("One row per ")
    assert "chain_stages" not in listed
    assert "replay_entries" not in listed
    assert "\\dt" in answer("\\d")
    tables = dict(row for row in cells(answer("\\dt")) if row[0])
    assert "store.replay_entries" in tables
    assert "store.rounds" in tables
    assert "rounds" not in tables


def test_d_name_lists_the_columns_of_a_view_or_a_table(answer: Callable[[str], str]) -> None:
    view = answer("\\d rounds")
    assert view.startswith("rounds: One row per finished round of a run")
    assert ["iteration", "INTEGER", "Round, from 0."] in cells(view)
    assert "accuracy" not in answer("\\d store.rounds")
    assert answer("\\d replay_entries") == answer("\\d store.replay_entries") == answer("\\d Replay_Entries")
    assert ["iteration", "INTEGER"] in [row[:2] for row in cells(answer("\\d store.chain_stages"))]
    assert "There is no view or table round. Did you mean rounds?" in answer("\\d round")


def test_dq_lists_the_named_queries_and_shows_the_text_of_one(answer: Callable[[str], str]) -> None:
    assert ["learning_curve", "How does a run learn, round by round?"] in cells(answer("\\dq"))
    text = answer("\\dq learning_curve")
    assert text.startswith("-- How does a run learn, round by round?")
    assert "ORDER BY iteration;" in text
    assert "Did you mean 'learning_curve'?" in answer("\\dq learning_curv")


def test_dr_lists_the_runs_with_their_forks(answer: Callable[[str], str]) -> None:
    _, first, second, changed = answer("\\dr").splitlines()
    assert first.startswith("run-a  3 rounds, 12 responses, completed, ")
    assert second.startswith("└─ run-b from round 2  3 rounds, 12 responses, ")
    assert changed.strip() == "run.name run-a -> run-b, objective.beta 0.1 -> 0.2"


def test_x_shows_one_column_a_line_and_texts_whole(answer: Callable[[str], str]) -> None:
    query = "select 1 as a, 'x' || chr(10) || repeat('y', 300) as text, null as nothing;"
    assert "x\\nyyy" in answer(query)
    answer("\\x")
    expanded = answer(query)
    assert "─[ row 1 ]───" in expanded
    assert re.search(r"^a\s+1\s*$", expanded, re.MULTILINE)
    assert re.search(r"^text\s+x\s*$", expanded, re.MULTILINE)
    assert re.search(r"^nothing\s*$", expanded, re.MULTILINE)
    assert expanded.count("y") == 300
    answer("\\x")
    assert "x\\nyyy" in answer(query)


def test_timing_is_shown_on_demand(answer: Callable[[str], str]) -> None:
    seconds = re.compile(r"^\d+\.\d{3} s$", re.MULTILINE)
    assert not seconds.search(answer("select 1;"))
    assert "Timing is on." in answer("\\timing")
    assert seconds.search(answer("select 1;"))
    assert "Timing is off." in answer("\\timing")
    assert not seconds.search(answer("select 1;"))


def test_o_writes_each_result_to_a_file_by_its_ending(answer: Callable[[str], str], tmp_path: Path) -> None:
    query = "select iteration, [1, 2] as list from rounds where run_id = 'run-a' order by all;"
    for ending in ("csv", "json", "parquet"):
        answer(f"\\o {tmp_path}/out.{ending}")
        assert answer(query) == f"3 rows written to {tmp_path}/out.{ending}\n"
    with (tmp_path / "out.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"iteration": str(n), "list": "[1, 2]"} for n in range(3)]
    lines = (tmp_path / "out.json").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"iteration": n, "list": [1, 2]} for n in range(3)]
    assert pq.read_table(tmp_path / "out.parquet").column("iteration").to_pylist() == [0, 1, 2]
    answer("\\o")
    assert "\n3 rows\n" in answer(query)


def test_a_further_result_goes_to_a_file_of_its_own_and_overwrites_none(
    answer: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "out-2.csv").write_text("another's")
    answer(f"\\o '{tmp_path}/out.csv'")
    answer("select 1 as a; select 2 as a;")
    found = {path.name: path.read_text().split() for path in tmp_path.iterdir()}
    assert found == {"out.csv": ["a", "1"], "out-2.csv": ["another's"], "out-3.csv": ["a", "2"]}


def test_a_file_that_cannot_be_written_is_said(answer: Callable[[str], str], tmp_path: Path) -> None:
    assert "out.xlsx ends in none of .csv, .json, .parquet" in answer("\\o out.xlsx")
    answer(f"\\o {tmp_path}/nowhere/out.csv")
    assert "cannot be written: No such file or directory." in answer("select 1;")


def test_set_gives_a_parameter_to_later_statements(answer: Callable[[str], str]) -> None:
    query = "select max(iteration) as n from rounds where run_id = $run and iteration < $below;"
    assert "$below has no value yet. Give it one: \\set below VALUE" in answer(query)
    answer("\\set below 2")
    assert "There is no run run-x" in answer("\\set run run-x")
    assert "2 runs begin with 'run'" in answer("\\set run run")
    assert answer("\\set run run-b") == "$run is run-b\n"
    assert re.search(r"^ 1 *$", answer(query), re.MULTILINE)
    assert cells(answer("\\set")) == [["parameter", "value"], ["$below", "2"], ["$run", "run-b"]]
    assert cells(answer("learning_curve"))[3][:2] == ["2", "0"]  # run-b's last round; $below is not given to it
    assert cells(answer("learning_curve run=run-a"))[3][:2] == ["2", "0.75"]
    answer("\\unset below")
    assert "$below has no value yet" in answer(query)
    assert "There is no parameter 'below' to take back; set are: run." in answer("\\unset below")
    assert "Write it as: \\set NAME VALUE" in answer("\\set run")


def test_help_names_every_command(answer: Callable[[str], str]) -> None:
    for asking in ("\\?", "help", "help;"):
        text = answer(asking)
        assert [name for name in COMMANDS if name not in text] == []


# History


def test_the_history_is_kept_under_the_root(home: Home) -> None:
    typed(home, "select 'first'", "as word;", "\\x")
    assert (home.root / "sql_history").stat().st_mode & 0o777 == 0o600
    assert "first" in keys(home, UP + UP + UP + "\r" + CTRL_D)


def test_a_history_that_cannot_be_kept_is_said_once(home: Home) -> None:
    (home.root / "sql_history").symlink_to(home.root / "nowhere" / "file")
    output = typed(home, "select 1 as a;", "select 2 as a;")
    assert output.count("This prompt's history is not kept: ") == 1
    assert output.count("1 row\n") == 2


# Completion


@pytest.fixture
def complete(example: Path) -> Callable[..., list[str]]:
    """What is offered at the end of a text, or at a place in it that | marks."""
    prompt = Prompt(Home(example), terminal(), 40)
    meanings = {name: command.meaning for name, command in COMMANDS.items()}
    completer = StoreCompleter(lambda: prompt.names, {"below": "2"}, meanings)

    def offered(text: str) -> list[str]:
        before, _, after = text.partition("|")
        found = completer.get_completions(Document(before + after, len(before)), CompleteEvent())
        return [before[: len(before) + item.start_position] + item.text for item in found]

    return offered


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("learning_c", ["learning_curve"]),
        ("learning_curve r", ["learning_curve run=", "learning_curve run=run-a", "learning_curve run=run-b"]),
        ("learning_curve run=run-b", []),
        ("best_and_worst p", ["best_and_worst problem="]),
        ("changed_verdicts ", []),
        ("ex", ["expected_uses", "exit"]),
        ("\\d", ["\\dt", "\\dq", "\\dr"]),
        ("\\ti", ["\\timing"]),
        ("\\d rou", ["\\d rounds"]),
        ("\\d store.replay", ["\\d store.replay_entries"]),
        ("\\dq learning", ["\\dq learning_curve"]),
        ("\\set r", ["\\set run"]),
        ("\\set run ", ["\\set run run-a", "\\set run run-b"]),
        ("\\unset b", ["\\unset below"]),
        ("\\x ", []),
        ("from rou", ["from rounds"]),
        ("FROM Rou", ["FROM rounds"]),
        ("from runs join rou", ["from runs join rounds"]),
        ("from runs, rou", ["from runs, rounds"]),
        ("describe rou", ["describe rounds"]),
        ("from store.replay", ["from store.replay_entries"]),
        ("select acc| from rounds", ["select accuracy"]),
        ("select r.acc| from rounds as r", ["select r.accuracy"]),
        ("select u.acc| from rounds r join updates u", []),
        ("select rounds.acc| from rounds", ["select rounds.accuracy"]),
        (
            "from rounds r join runs q on r.run_id = q.parent_r",
            ["from rounds r join runs q on r.run_id = q.parent_run_id"],
        ),
        ("select 1 where run_id = 'run-", ["select 1 where run_id = 'run-a", "select 1 where run_id = 'run-b"]),
        ("select $b", ["select $below"]),
        ("select newest_r", ["select newest_run("]),
        ("select list_filt", ["select list_filter("]),
    ],
)
def test_completion_offers_what_may_stand_there(
    complete: Callable[[str], list[str]], text: str, first: list[str]
) -> None:
    offered = complete(text)
    assert offered[: len(first)] == first if first else offered == []


def test_runs_are_offered_the_newest_first_and_columns_before_keywords(complete: Callable[[str], list[str]]) -> None:
    assert complete("select ac| from rounds")[0] == "select accuracy"
    assert "select actions" not in complete("select ac| from rounds")
    assert complete("select iter")[0] == "select iteration"
    assert complete("sel") == ["select"]
    assert complete("SEL") == ["SELECT"]


def test_a_path_is_offered_for_a_file(complete: Callable[[str], list[str]], tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    assert complete(f"\\o {tmp_path}/the") == [f"\\o {tmp_path}/there.csv"]


def test_names_are_read_again_when_one_is_unknown_or_listed(home: Home) -> None:
    prompt = Prompt(home, terminal(), 40)

    def add(view: str) -> None:
        with Store(home.database).write() as connection:  # DuckDB would refuse it beside an open connection
            connection.execute(f"CREATE VIEW {view} AS SELECT 1 AS a")

    add("newer")
    prompt.answer("from newer;")
    assert "newer" not in prompt.names.views
    prompt.answer("from newest;")
    assert "newer" in prompt.names.views
    add("newest")
    prompt.answer("\\d")
    assert "newest" in prompt.names.views
    with contextlib.suppress(EOFError):
        prompt.answer("\\q")
