"""The first lines of a command, and what is refused before anything heavy is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import ROUNDS, Finished, changed

from flows import opening
from reval_core.config import Config
from reval_core.errors import ConfigError, ProblemError, StoreError
from reval_core.home import Home
from tasks.fork import Fork

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_heavy_is_loaded_for_the_first_lines() -> None:
    code = (
        "import sys; from flows import cli, opening, asking;"
        "print(sorted({'torch', 'transformers', 'prefect', 'mlflow', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


def test_the_first_line_says_which_run_and_where_it_begins(finished: Finished, small: Config, tmp_path: Path) -> None:
    run_id, home = finished.outcome.run_id, finished.home
    assert opening.standing(finished.config, home) == f"run {run_id} has learned {ROUNDS} rounds already"
    longer = changed(finished.config, "run.iterations=9")
    assert opening.standing(longer, home) == f"run {run_id} goes on at round {ROUNDS} of 9"
    assert opening.standing(finished.config, Home(tmp_path)) == f"run {run_id} is new, {ROUNDS} rounds"
    once = changed(small, "run.name=once", "run.iterations=1")
    assert opening.standing(once, home).endswith("is new, 1 round")
    branched = changed(finished.config, "objective.beta=0.1")
    line = opening.standing(branched, home, Fork(run_id, 2))
    assert line.endswith(f", a new fork of {run_id}, begins at round 2 of {ROUNDS}")


def test_an_empty_database_file_has_no_run(small: Config, tmp_path: Path) -> None:
    (tmp_path / "reval.duckdb").touch()
    assert "is new" in opening.standing(small, Home(tmp_path))


def test_a_fork_says_what_differs_though_no_set_names_it(finished: Finished) -> None:
    branched = changed(finished.config, "objective.beta=0.1", "optimizer.lr=0.002")
    fork = Fork(finished.outcome.run_id, 2)
    _, heading, *lines = opening.about_fork(branched, finished.home, fork, ["objective.beta=0.1"])
    assert finished.outcome.run_id in heading
    assert lines == ["  optimizer.lr: 0.001 -> 0.002"]
    named = ["objective={beta: 0.1}", "optimizer.lr=0.002"]  # a whole section names its keys
    assert len(opening.about_fork(branched, finished.home, fork, named)) == 1


def test_keys_are_named_whole() -> None:
    lines = ["objective.beta: 1 -> 2", "objective.beta_other: 1 -> 2"]
    assert opening.not_named(lines, ["objective.beta=2"]) == ["objective.beta_other: 1 -> 2"]


def test_problem_files_and_benchmarks_are_read_before_the_start(small: Config, tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="There is no problem file"):
        opening.check_problems(changed(small, f"problems.0.path={tmp_path}/nosuch.jsonl"))
    with pytest.raises(ConfigError, match="Did you mean 'arithmetic'"):
        opening.check_problems(changed(small, "evaluation.after=true", "evaluation.benchmarks=[arithmetc]"))
    opening.check_problems(changed(small, "evaluation.benchmarks=[arithmetc]"))  # never evaluated
    opening.check_problems(changed(small, "problems.0.path=hf:owner/dataset"))  # not on this machine


def test_gold_answers_that_are_sentences_are_told(
    small: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    golds = [
        "4",
        "She has 2 apples left.",
        r"So it is $x^3/3$, and the answer is \boxed{5}.",
        r"x=2 \text{ or } x=3",
        "No",
    ]
    rows = [{"question": f"{number}?", "answer": gold} for number, gold in enumerate(golds)]
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    opening.check_problems(changed(small, f"problems.0.path={tmp_path}/p.jsonl"))
    (told,) = [record.getMessage() for record in caplog.records]
    assert "word by word: 1, as p.jsonl 2: 'She has 2 apples left.'" in told
    caplog.clear()
    opening.check_problems(changed(small, f"problems.0.path={tmp_path}/p.jsonl", "reward.use=builtins:len"))
    assert not caplog.records


def test_a_policy_is_found_by_its_first_digits(finished: Finished) -> None:
    home, policy = finished.home, finished.outcome.policy_id
    assert opening.find_policy(home, policy) == policy
    assert opening.find_policy(home, policy[:14]) == policy
    assert opening.find_policy(home, policy.removeprefix("pol_")[:10]) == policy
    for named in ("builtin:tiny", "Qwen/Qwen2.5-0.5B", str(ROOT)):
        assert opening.find_policy(home, named) == named
    with pytest.raises(StoreError, match="'pol_zz' names 0 policies of this store, and is no model folder"):
        opening.find_policy(home, "pol_zz")
    with pytest.raises(StoreError, match=rf"'pol_' names {ROUNDS + 1} policies of this store: {policy}, pol_"):
        opening.find_policy(home, "pol_")


def test_fields_are_columns_of_the_files(finished: Finished, small: Config, tmp_path: Path) -> None:
    assert opening.fields(None) is None
    columns = opening.fields("question=prompt, answer = solution")
    assert columns == {"question": "prompt", "answer": "solution"}
    for wrong in ("question", "question=", "=prompt", "question=prompt,"):
        with pytest.raises(ConfigError, match="question=COLUMN,answer=COLUMN"):
            opening.fields(wrong)
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "1+1=?", "solution": "2"}) + "\n", encoding="utf-8")
    opening.check_benchmarks([str(path)], None, columns, {})
    with pytest.raises(ProblemError, match="'question' is missing"):
        opening.check_benchmarks([str(path)], None, None, {})
    with pytest.raises(ConfigError, match="Did you mean 'arithmetic'"):
        opening.check_benchmarks(["arithmetc"], None, None, {})
    with pytest.raises(ConfigError, match="name these files, too"):
        opening.check_benchmarks([], None, columns, {})
    config = tmp_path / "mine.yaml"
    own = {"mine": {"path": str(path), "fields": columns}}
    config.write_text(changed(small, f"evaluation.files={json.dumps(own)}").to_yaml(), encoding="utf-8")
    named = opening.benchmark_files(Home(tmp_path), "builtin:tiny", config, ())
    opening.check_benchmarks(["mine"], None, None, named)
    assert opening.benchmark_files(finished.home, finished.outcome.policy_id, None, ()) == {}
    given = f"evaluation.files={json.dumps(own)}"
    assert opening.benchmark_files(finished.home, finished.outcome.policy_id, None, [given]) == named


def test_counts_have_their_number() -> None:
    assert [opening.counted(n, "row") for n in (0, 1, 2, 12345)] == ["0 rows", "1 row", "2 rows", "12,345 rows"]


def test_a_command_that_is_asked_to_end_says_so_and_nothing_else() -> None:
    code = (
        "import sys, threading, duckdb\n"
        "from flows import cli\n"
        "def hold(connection):\n"
        "    threading.Event().wait()\n"
        "def app(**_):\n"
        "    threading.Thread(target=hold, args=(duckdb.connect(),), daemon=True).start()\n"
        "    raise KeyboardInterrupt\n"
        "cli.app = app\n"
        "sys.argv = ['reval', 'train']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stdout == ""  # which may be a file of results
    # no report of DuckDB's functions that the thread keeps alive
    assert done.stderr == "\nEnded. The same command goes on where it stopped.\n"
