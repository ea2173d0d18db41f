"""Asking the store on the command line: SQL in every format, parameters, runs, reports, and readable errors."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from small_run import Finished, Reval, changed, train

from flows.asking import cell, find_run, show, show_expanded
from reval_core.config import Config
from reval_core.errors import StoreError
from reval_core.home import Home
from reval_core.store import Store

ROOT = Path(__file__).resolve().parents[2]


def error_of(answer: tuple[int, str, str]) -> str:
    """The one line that an error is told in."""
    code, _, error = answer
    assert code == 1
    assert error.startswith("Error: ")
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    return error


def test_sql_as_table_csv_json_and_parquet(reval: Reval, finished: Finished, tmp_path: Path) -> None:
    query = "select iteration, accuracy from rounds order by iteration"
    expected = finished.config.run.iterations
    code, table, _ = reval("sql", query)
    assert code == 0
    assert "accuracy" in table
    assert f"{expected} rows" in table
    _, text, _ = reval("sql", query, "--csv")
    assert [row["iteration"] for row in csv.DictReader(io.StringIO(text))] == [str(n) for n in range(expected)]
    _, text, _ = reval("sql", query, "--json")
    assert [json.loads(line)["iteration"] for line in text.splitlines()] == list(range(expected))
    assert f"{expected} rows written to" in reval("sql", query, "--parquet", str(tmp_path / "out.parquet"))[1]
    assert pq.read_table(tmp_path / "out.parquet").column("iteration").to_pylist() == list(range(expected))


def test_one_row_is_one_row(reval: Reval, tmp_path: Path) -> None:
    assert reval("sql", "select 1 as a")[1].rstrip().endswith("\n1 row")
    assert reval("sql", "select 1 as a", "--parquet", str(tmp_path / "a.parquet"))[1].startswith("1 row written")


def test_a_file_that_cannot_be_written_is_one_line(reval: Reval, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "x.parquet"
    assert f"{nowhere} cannot be written: No such file or directory." in error_of(
        reval("sql", "select 1 as a", "--parquet", str(nowhere))
    )
    assert "Is a directory" in error_of(reval("sql", "select 1 as a", "--parquet", str(tmp_path)))
    days = ("sql", "select [interval 1 day] as a", "--parquet", str(tmp_path / "days.parquet"))
    assert "as column::VARCHAR" in error_of(reval(*days))


def test_a_reader_that_has_seen_enough_ends_it_quietly(finished: Finished) -> None:
    done = subprocess.run(
        f"{sys.executable} -c 'from flows.cli import main; main()' sql 'from range(100000)' --json | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "REVAL_HOME": str(finished.home.root), "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == '{"range": 0}\n'
    assert done.stderr == ""


def test_numbers_that_json_lacks_are_null(reval: Reval) -> None:
    text = reval("sql", "select 'nan'::double as a, ['inf'::double, 1] as b, {'c': 'nan'::double} as d", "--json")[1]
    assert text == '{"a": null, "b": [null, 1.0], "d": {"c": null}}\n'


def test_sums_and_spans_of_time_are_readable_everywhere(reval: Reval, tmp_path: Path) -> None:
    query = (
        "select sum(x) as sum, 2.5::decimal(3, 1) as half, interval 90 minute as span, true as yes from range(3) t(x)"
    )
    assert json.loads(reval("sql", query, "--json")[1]) == {"sum": 3, "half": 2.5, "span": "01:30:00", "yes": True}
    assert reval("sql", query, "--csv")[1].splitlines()[1] == "3,2.5,01:30:00,true"
    assert reval("sql", query)[1].splitlines()[2].split() == ["3", "│", "2.5", "│", "01:30:00", "│", "true"]
    reval("sql", query, "--parquet", str(tmp_path / "spans.parquet"))
    assert pq.read_table(tmp_path / "spans.parquet").column("span").to_pylist() == ["01:30:00"]


def test_numbers_in_tables_keep_their_whole_part() -> None:
    shown = {
        0.123456: "0.1235",
        12.3456: "12.35",
        1234.56: "1235",
        12345.6: "12346",
        9999.7: "10000",
        2e9: "2000000000",
    }
    assert {number: cell(number) for number in shown} == shown
    assert cell(1e-9) == "1e-09"
    assert cell(float("inf")) == "inf"


def test_a_narrow_terminal_shows_whole_columns_and_says_how_many_are_left_out(finished: Finished) -> None:
    result = Store(finished.home.database).query("learning_curve")
    console = Console(width=80, force_terminal=True, no_color=True, highlight=False, file=io.StringIO())
    show(result, console, 40)
    text = re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())
    assert "accuracy ┃ reward_mean" in text
    assert "columns not shown (-x for one column a line, --csv)" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_pipe_gets_every_column_in_one_line_a_row(reval: Reval) -> None:
    wide = ", ".join(f"repeat('x', 100) as column_{number}" for number in range(20))
    assert len(reval("sql", f"select {wide}")[1].splitlines()) == 4


def test_one_column_a_line_on_demand(reval: Reval) -> None:
    text = reval("sql", "select 1 as a, repeat('x', 300) as b from range(3)", "-x", "--limit", "1")[1]
    assert text.count("x") == 300
    assert text.rstrip().endswith("3 rows, 2 not shown (--limit, --csv)")


def test_sql_from_a_file_and_from_standard_input(reval: Reval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.sql"
    file.write_text("-- mine\nselect 7 as a, $b as b", encoding="utf-8")
    assert json.loads(reval("sql", str(file), "--json", "--param", "b=x")[1]) == {"a": 7, "b": "x"}
    assert "cannot be read: No such file" in error_of(reval("sql", str(tmp_path / "nosuch.sql")))
    monkeypatch.setattr("sys.stdin", io.StringIO("select 8 as a"))
    assert json.loads(reval("sql", "-", "--json")[1]) == {"a": 8}
    assert "The query is empty" in error_of(reval("sql", " "))


def test_the_text_of_a_named_query_is_shown(reval: Reval) -> None:
    assert reval("sql", "never_solved", "--show")[1].startswith("-- Which training problems has a run never")
    assert "Did you mean 'never_solved'?" in error_of(reval("sql", "never_solvd", "--show"))


def test_a_table_says_which_run_it_is_about_where_none_was_named(reval: Reval, finished: Finished) -> None:
    run_id = finished.outcome.run_id
    assert f"of {run_id}, the newest run (--param run=RUN for another)" in reval("sql", "learning_curve")[1]
    assert "the newest run" not in reval("sql", "learning_curve", "--param", f"run={run_id}")[1]
    assert "the newest run" not in reval("sql", "storage_by_table")[1]


def test_a_parameter_without_a_value_says_how_to_give_one(reval: Reval) -> None:
    error = error_of(reval("sql", "select 1 as a where 'x' = $name"))
    assert "$name has no value. Give it one: --param name=VALUE" in error


def test_first_letters_stand_for_what_a_named_query_is_about(reval: Reval, finished: Finished) -> None:
    policy = finished.outcome.policy_id
    lines = reval("sql", "trained_on", "--json", "--param", f"policy={policy[:16]}")[1].splitlines()
    assert {json.loads(line)["policy_id"] for line in lines} == {policy}
    assert "no policy pol_x" in error_of(reval("sql", "trained_on", "--param", "policy=pol_x"))
    assert "no benchmark nosuch" in error_of(reval("sql", "pass_at_k", "--param", "benchmark=nosuch"))
    assert "Several begin with 'trj_'" in error_of(reval("sql", "where_used", "--param", "trajectory=trj_"))


def test_the_name_of_a_view_says_how_to_ask_it(reval: Reval) -> None:
    assert 'rounds is a view, not a named query: "FROM rounds" shows its rows' in error_of(reval("sql", "rounds"))


def test_what_would_write_is_refused_in_plain_words(reval: Reval) -> None:
    assert "Nothing can be changed here: the store is read-only" in error_of(reval("sql", "delete from store.runs"))


def test_named_queries_are_listed_run_and_take_parameters(reval: Reval, finished: Finished) -> None:
    assert "learning_curve" in reval("sql")[1]
    run_id = finished.outcome.run_id
    for given in (run_id, run_id[:7]):
        lines = reval("sql", "learning_curve", "--json", "--param", f"run={given}")[1].splitlines()
        assert len(lines) == finished.config.run.iterations
    assert "Did you mean 'learning_curve'?" in error_of(reval("sql", "learning_curv"))
    assert "name=value" in error_of(reval("sql", "learning_curve", "--param", "run"))


def test_a_run_that_is_not_there_is_refused_where_a_query_takes_one(reval: Reval, finished: Finished) -> None:
    run_id = finished.outcome.run_id
    assert "no run nosuch" in error_of(reval("sql", "learning_curve", "--param", "run=nosuch"))
    assert f"Did you mean {run_id}?" in error_of(reval("sql", "learning_curve", "--param", f"run=x{run_id}"))
    own = "select count(*) as n from rounds where run_id = $run"
    assert "no run nosuch" in error_of(reval("sql", own, "--param", "run=nosuch"))
    assert json.loads(reval("sql", own, "--param", f"run={run_id}", "--json")[1]) == {"n": finished.outcome.rounds}
    assert json.loads(reval("sql", "select $name as n", "--param", "name=nosuch", "--json")[1]) == {"n": "nosuch"}


def test_a_parameter_that_the_query_does_not_take_is_refused(reval: Reval) -> None:
    assert "the query has no $run; it takes none" in error_of(reval("sql", "select 1 as a", "--param", "run=x"))
    assert "the query has no $runn; it takes $run" in error_of(reval("sql", "learning_curve", "--param", "runn=x"))


def test_a_run_is_found_by_its_first_letters(tmp_path: Path) -> None:
    store = Store(tmp_path / "reval.duckdb")
    store.prepare()
    with store.write() as connection:
        connection.execute("CREATE OR REPLACE VIEW runs AS SELECT unnest(['ab-1', 'ab-12', 'cd-3']) AS run_id, "
                           "now() AS last_active_at")  # fmt: skip
    assert find_run(store, "cd") == "cd-3"
    assert find_run(store, "ab-1") == "ab-1"  # whole, though another begins so
    with pytest.raises(StoreError, match=r"2 runs begin with 'ab': ab-1, ab-12. Give more letters"):
        find_run(store, "ab")
    with pytest.raises(StoreError, match=r"no run xy in this store. `reval runs`"):
        find_run(store, "xy")


def test_wrong_sql_is_an_error_with_its_place(reval: Reval) -> None:
    code, _, error = reval("sql", "selct 1")
    assert code == 1
    assert 'syntax error at or near "selct"' in error
    assert "Traceback" not in error


def test_text_of_others_is_shown_as_it_is(reval: Reval) -> None:
    for text in ("[red]not a colour[/red]", ":boom:", ":warning: [/]"):
        assert text in reval("sql", f"select '{text}' as text")[1]
        assert text in reval("sql", f"selct '{text}'")[2]
        assert text in error_of(reval("report", text))


def test_text_of_others_gives_the_terminal_no_orders(reval: Reval, finished: Finished) -> None:
    hostile = "select chr(27) || ']0;title' || chr(7) || chr(13) || 'over' || chr(0) || chr(155) || '2J' as text"
    code, table, _ = reval("sql", hostile)
    assert code == 0
    assert r"\x1b]0;title\x07\rover\x00\x9b2J" in table
    assert set(table) & set(map(chr, (*range(9), *range(11, 32), *range(127, 160)))) == set()
    assert r"\x1b[31m" in reval("sql", "select (chr(27) || '[31m')::INT")[2]
    assert "[red]x" in reval("sql", """select 1 as "[red]x" """)[1]
    console = Console(file=io.StringIO(), width=80)
    show_expanded(pa.table({"text": ["two\nlines \x1b[31mred"]}), console, limit=1)
    assert isinstance(console.file, io.StringIO)
    assert [line.strip() for line in console.file.getvalue().splitlines()[1:3]] == ["text two", r"lines \x1b[31mred"]


def test_one_result_is_given_in_one_way(reval: Reval, tmp_path: Path) -> None:
    assert "Choose one of --csv, --json" in error_of(
        reval("sql", "select 1 as a", "--json", "--parquet", str(tmp_path / "a.parquet"))
    )
    assert not (tmp_path / "a.parquet").exists()


def test_what_a_pipe_reads_is_not_cut(reval: Reval) -> None:
    text = reval("benchmarks")[1]
    assert "…" not in text
    assert {"arithmetic", "arithmetic-train"} <= {line.split()[0] for line in text.splitlines() if line.strip()}


def test_columns_of_one_name_are_told_apart(reval: Reval) -> None:
    assert json.loads(reval("sql", "select 1 as a, 2 as a, 3 as b", "--json")[1]) == {"a": 1, "a_1": 2, "b": 3}
    assert reval("sql", "select 1 as a, 2 as a, 3 as b", "--csv")[1].split() == ["a,a_1,b", "1,2,3"]


def test_no_store_yet_says_how_to_make_one(reval: Reval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVAL_HOME", str(tmp_path / "empty"))
    assert "reval train" in error_of(reval("sql", "select 1"))
    assert not (tmp_path / "empty").exists()


def test_runs_are_lines_with_forks_under_their_parents(reval: Reval, finished: Finished) -> None:
    run_id, rounds = finished.outcome.run_id, finished.outcome.rounds
    first, line = reval("runs")[1].splitlines()
    assert first == f"runs in {finished.home.root}"
    assert line.startswith(f"{run_id}  {rounds} rounds, 32 responses, completed, ")


def test_a_report_is_found_by_the_first_letters_of_its_run(reval: Reval, finished: Finished) -> None:
    page = str(finished.outcome.report)
    assert reval("report")[1].strip() == page
    assert reval("report", finished.outcome.run_id[:6])[1].strip() == page
    assert "no run nosuch" in error_of(reval("report", "nosuch"))


@pytest.mark.usefixtures("quick")
def test_without_a_name_the_newest_run_that_has_a_report_is_meant(
    reval: Reval, finished: Finished, copied: Home, small: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVAL_HOME", str(copied.root))
    newest = train(changed(small, "run.name=later"), copied)
    assert newest.report is not None
    assert reval("report")[1].strip() == str(newest.report)
    newest.report.unlink()
    assert reval("report")[1].strip() == str(copied.reports / finished.outcome.run_id / "report.html")
    assert f"Run {newest.run_id} has no report yet" in error_of(reval("report", "later"))


def sample_lines(page: str) -> list[str]:
    """The headings of a report's samples."""
    lines = re.findall(r'<summary><span class="line">(.*?)</summary>', page, flags=re.S)
    assert lines
    return lines


@pytest.mark.usefixtures("quick")
def test_a_run_that_shares_its_batches_shows_their_responses_in_its_report(
    finished: Finished, copied: Home, small: Config
) -> None:
    other = train(changed(small, "run.name=other"), copied)
    assert [name for name in other.executed if name.startswith("generate")] == []
    assert other.report is not None
    page = other.report.read_text(encoding="utf-8")
    whole = finished.outcome.report
    assert whole is not None
    # the samples of the run that generated them, all of them
    assert sample_lines(page) == sample_lines(whole.read_text(encoding="utf-8"))
