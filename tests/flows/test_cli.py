"""The command line as a person uses it: SQL in every format, runs, report, dry runs, prompts, and readable errors."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from small_run import Finished

from flows.cli import main
from reval_core.config_files import parse_config
from tasks.open_run import run_id_of

ROOT = Path(__file__).resolve().parents[2]
Reval = Callable[..., tuple[int, str, str]]


@pytest.fixture
def reval(finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Reval:
    """Calls ``reval`` with arguments on the finished run's root; gives exit code, output and errors."""
    monkeypatch.setenv("REVAL_HOME", str(finished.home.root))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["reval", *arguments])
        code = 0
        try:
            main()
        except SystemExit as leave:
            code = int(leave.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def config_file(finished: Finished, tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(finished.config.to_yaml(), encoding="utf-8")
    return path


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
    reval("sql", query, "--parquet", str(tmp_path / "out.parquet"))
    assert pq.read_table(tmp_path / "out.parquet").column("iteration").to_pylist() == list(range(expected))


def test_named_queries_are_listed_run_and_take_parameters(reval: Reval, finished: Finished) -> None:
    assert "learning_curve" in reval("sql")[1]
    run_id = finished.outcome.run_id
    lines = reval("sql", "learning_curve", "--json", "--param", f"run={run_id}")[1].splitlines()
    assert len(lines) == finished.config.run.iterations
    code, _, error = reval("sql", "learning_curv")
    assert code == 1
    assert "Did you mean 'learning_curve'?" in error
    code, _, error = reval("sql", "learning_curve", "--param", "run")
    assert code == 1
    assert "name=value" in error


def test_wrong_sql_is_an_error_with_its_place(reval: Reval) -> None:
    code, _, error = reval("sql", "selct 1")
    assert code == 1
    assert 'syntax error at or near "selct"' in error
    assert "Traceback" not in error


def test_markup_in_a_completion_is_shown_as_it_is(reval: Reval) -> None:
    assert "[red]not a colour[/red]" in reval("sql", "select '[red]not a colour[/red]' as text")[1]


def test_runs_and_report(reval: Reval, finished: Finished) -> None:
    assert finished.outcome.run_id in reval("runs")[1]
    assert Path(reval("report")[1].strip().replace("\n", "")).exists()
    code, _, error = reval("report", "nosuch")
    assert code == 1
    assert "no run nosuch" in error


def test_dry_run_shows_configuration_plan_and_cost(reval: Reval, finished: Finished, config_file: Path) -> None:
    rounds = finished.config.run.iterations
    code, text, _ = reval("train", str(config_file), "--dry-run", "--set", f"run.iterations={rounds + 3}")
    assert code == 0
    assert finished.outcome.run_id in text
    (line,) = (line for line in text.splitlines() if line.strip().startswith("learn "))
    assert [part.strip() for part in line.split("│")] == ["learn", str(rounds), "3"]
    for word in ("device memory", "store, at most", "problems", "parameters", "checkpoints"):
        assert word in text
    resolved = yaml.safe_load(text[: text.index("\nrun small")])
    assert run_id_of(parse_config(resolved)) == finished.outcome.run_id


@pytest.mark.parametrize("name", ["deepseek-r1-distill-qwen-1.5b", "qwen2.5-math-7b"])
def test_published_settings_load_and_dry_run_without_hub_or_data(
    reval: Reval, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REVAL_DATA", raising=False)
    code, text, _ = reval("train", str(ROOT / "configs" / f"{name}.yaml"), "--dry-run")
    assert code == 0
    assert "export REVAL_DATA" in text
    assert "665,600 (1024 a round)" in text


def test_show_prompt_prints_text_ids_and_stop_set(reval: Reval, config_file: Path) -> None:
    _, text, _ = reval("train", str(config_file), "--show-prompt", "2")
    assert "responses end with" in text
    assert text.count("=?") == 2
    assert text.count("ids [") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "nosuch.yaml"), "no configuration file"),
        (("train", "CONFIG", "--set", "objective.bta=1"), "did you mean 'objective.beta'?"),
        (("train", "CONFIG", "--set", "objective.beta"), "key.path=value"),
        (("train", "CONFIG", "--from", "nosuch@2"), "no run nosuch"),
        (("train", "CONFIG", "--from", "nosuch"), "RUN@ROUND"),
        (("train", "CONFIG", "--force", "learn@2"), "generate@ROUND"),
        (("evaluate", "pol_ffff"), "names 0 policies"),
    ],
)
def test_errors_are_one_message_without_a_traceback(
    reval: Reval, config_file: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, _, error = reval(*(str(config_file) if word == "CONFIG" else word for word in arguments))
    assert code == 1
    assert words in error
    assert "Traceback" not in error


def test_an_unknown_option_is_a_usage_error(reval: Reval) -> None:
    code, _, error = reval("train", "x.yaml", "--forse", "generate@1")
    assert code == 2
    assert "--force" in error


def test_no_store_yet_says_how_to_make_one(reval: Reval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVAL_HOME", str(tmp_path / "empty"))
    code, _, error = reval("sql", "select 1")
    assert code == 1
    assert "reval train" in error
    assert not (tmp_path / "empty").exists()


def test_columns_of_one_name_are_told_apart(reval: Reval) -> None:
    assert json.loads(reval("sql", "select 1 as a, 2 as a, 3 as b", "--json")[1]) == {"a": 1, "a_1": 2, "b": 3}
    assert reval("sql", "select 1 as a, 2 as a, 3 as b", "--csv")[1].split() == ['"a","a_1","b"', "1,2,3"]


def test_a_broken_problem_file_fails_the_dry_run(reval: Reval, config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"question": "1+1+1=?", "answer": "3"}\n{"question": \n')
    code, _, error = reval("train", str(config_file), "--dry-run", "--set", f"problems.0.path={tmp_path / 'bad.jsonl'}")
    assert code == 1
    assert "line 2" in error
