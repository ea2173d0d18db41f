"""The tree of runs with what each fork changed, and two runs side by side."""

import json
from io import StringIO
from pathlib import Path

import duckdb
import pytest
from rich.console import Console

from flows.listing import diff_runs, list_runs
from reval_core.config_files import differences
from reval_core.errors import StoreError
from reval_core.evaluation.metrics import Estimate
from reval_core.home import Home
from reval_core.store import Store, evaluations
from tests.store.store_example import FORK, RUN, build, commit_stage


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The example's run and its fork, which has another beta."""
    build(tmp_path / "reval.duckdb")
    return Home(tmp_path)


def printed(show: object, *arguments: object) -> str:
    out = StringIO()
    show(*arguments, Console(file=out, width=200))  # type: ignore[operator]
    return out.getvalue()


def rows_of(text: str) -> dict[str, list[str]]:
    """A table's rows by their first cell."""
    return {line.split("│")[0].strip(): [cell.strip() for cell in line.split("│")[1:]] for line in text.splitlines()}


def test_differences_are_by_dotted_key_and_name_what_one_side_has_not() -> None:
    assert differences({"a": 1, "b.c": 2, "d": [1]}, {"a": 1, "b.c": 3, "e": None}) == {
        "b.c": (2, 3),
        "d": ([1], None),
    }


def test_the_tree_says_what_a_fork_changed(home: Home) -> None:
    lines = printed(list_runs, home).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == [RUN, "└─"]
    assert f"{FORK} from round 2" in lines[2]
    assert lines[3].strip() == f"run.name {RUN} -> {FORK}, objective.beta 0.1 -> 0.2"


def test_many_changes_are_counted(home: Home) -> None:
    many = {"objective": {name: 1 for name in "abcdefg"}}
    with Store(home.database).write() as connection:
        connection.execute("UPDATE store.runs SET config = ? WHERE run_id = ?", [json.dumps(many), FORK])
    text = printed(list_runs, home)
    assert ", 7 more" in text  # run.name, run.iterations, replay.capacity, objective.beta are shown


def test_two_runs_are_shown_side_by_side(home: Home) -> None:
    text = printed(diff_runs, home, RUN, FORK)
    rows = rows_of(text)
    assert rows["objective.beta"] == ["0.1", "0.2"]
    assert rows["rounds"] == ["3", "3"]
    assert rows["responses"] == ["12", "12"]  # the fork shares eight of them
    assert "run.iterations" not in rows
    assert f"{FORK} is a fork of {RUN} from round 2" in text
    assert "2 settings alike" in text
    assert f"{FORK} is a fork of {RUN}" in printed(diff_runs, home, FORK, RUN)


def test_each_evaluation_says_after_how_many_rounds_it_was_made(home: Home) -> None:
    with Store(home.database).write() as connection:
        for run, iteration in ((RUN, 0), (RUN, 2), (FORK, 0)):
            evaluated(connection, run, iteration, value=0.25 * (iteration + 1))
    assert rows_of(printed(diff_runs, home, RUN, FORK))["held avg@4"] == [
        "0.750 [0.650, 0.850] after 3 rounds",
        "0.250 [0.150, 0.350] after 1 round",
    ]


def evaluated(connection: duckdb.DuckDBPyConnection, run: str, iteration: int, value: float) -> None:
    """An evaluation of the policy that an iteration of the run gave."""
    name = f"evl_{run}_{iteration}"
    evaluations.add(
        connection,
        evaluation_id=name,
        policy_id=f"pol_{run}_{iteration}",
        benchmark="held",
        benchmark_id="bmk",
        batch_id=f"bat_{name}",
        verifier_id="ver_1",
        problem_count=1,
        samples_per_problem=4,
        settings={},
        metrics={"avg@4": Estimate(value, value - 0.1, value + 0.1)},
    )
    commit_stage(connection, run, iteration, "evaluate", {"evaluation_id": name}, slot="held")


def test_a_run_that_is_not_there_is_refused(home: Home) -> None:
    with pytest.raises(StoreError, match="no run nobody"):
        printed(diff_runs, home, RUN, "nobody")
