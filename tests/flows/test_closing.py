"""The last lines of a command: tables that never wrap, and commands that can be copied."""

from __future__ import annotations

import io
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from small_run import Finished, changed, rows

from flows import planning
from flows.closing import as_json, metric_lines, next_commands, show_evaluations, show_outcome
from reval_core.config import Config
from reval_core.config_files import apply_override, parse_config


def printed(show: object, *arguments: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, emoji=False)
    show(*arguments, console)  # type: ignore[operator]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_metrics_stand_under_their_benchmark_and_nothing_wraps() -> None:
    long = (
        "problems/of a very long name that passes eighty columns by far and is still one line, whatever happens.jsonl"
    )
    summary = [
        ("arithmetic avg@4", "0.266 [0.238, 0.293]", "1.000 [1.000, 1.000]"),
        ("arithmetic right_by_right_steps", "not estimated", None),
        (f"{long} avg@4", "0.500 [0.250, 0.750]", "0.750 [0.500, 1.000]"),
    ]
    assert metric_lines(("before", "after"), summary) == [
        "                                       before                  after",
        "arithmetic",
        "  avg@4                  0.266 [0.238, 0.293]   1.000 [1.000, 1.000]",
        "  right_by_right_steps          not estimated                      -",
        long,
        "  avg@4                  0.500 [0.250, 0.750]   0.750 [0.500, 1.000]",
    ]


def test_intervals_are_given_as_they_are() -> None:
    table = [("aime", "avg@2", 1.0, 1.0, 1.0), ("aime", "steps", 0.5, None, None), ("aime", "none", None, None, None)]
    lines = printed(show_evaluations, table).splitlines()
    assert [line.split(None, 1)[1].split("  ")[-1].strip() for line in lines[2:]] == [
        "1.000 to 1.000",
        "not estimated",
        "not estimated",
    ]
    assert lines[4].split()[:2] == ["none", "-"]


def test_a_run_without_evaluations_has_no_table(finished: Finished) -> None:
    text = printed(show_outcome, replace(finished.outcome, rounds=1, summary=()), ["reval runs"])
    assert f"{finished.outcome.run_id} after 1 round\n" in text
    assert "before" not in text
    assert "Try next:\n  reval runs\n" in text


def test_no_line_is_broken_on_a_narrow_terminal(finished: Finished) -> None:
    narrow = printed(show_outcome, finished.outcome, ["reval sql x" * 9], width=30)
    assert narrow == printed(show_outcome, finished.outcome, ["reval sql x" * 9], width=300)


def test_the_outcome_is_json_for_programs(finished: Finished) -> None:
    told = json.loads(as_json(finished.outcome))
    assert told["run_id"] == finished.outcome.run_id
    assert Path(told["report"]).exists()
    assert told["summary"][0][0].endswith("avg@2")


def suggested(finished: Finished, settings: Config, *overrides: str) -> list[str]:
    """Words of the suggested fork, behind the command's name."""
    command = next_commands(finished.outcome, settings, Path("my configs/a.yaml"), overrides)[-1]
    return shlex.split(command)[1:]


def test_the_suggested_fork_changes_one_setting_and_keeps_the_others(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["optimizer.lr=2e-3", "evaluation.benchmarks=['a b.jsonl', c]", "objective.beta=0.03"]
    settings = changed(finished.config, *given)
    words = suggested(finished, settings, *given)
    assert words[:4] == ["train", "my configs/a.yaml", "--from", f"{finished.outcome.run_id}@2"]
    sets = [word for word in words[4:] if word != "--set"]
    assert sets == [*given[:2], "objective.beta=0.015"]
    raw = finished.config.model_dump(mode="json")
    for override in sets:
        apply_override(raw, override)
    assert parse_config(raw) == changed(settings, "objective.beta=0.015")


def test_the_suggested_fork_is_one_that_can_be_made(finished: Finished) -> None:
    words = suggested(finished, finished.config)
    config = changed(finished.config, words[-1])
    fork = planning.fork(config, finished.home, start_from=words[3], force=None)
    assert fork is not None
    assert fork.iteration == 2
    one = replace(finished.outcome, rounds=1)
    assert f"{one.run_id}@0 " in next_commands(one, finished.config, Path("a.yaml"), ())[-1]
    none = replace(finished.outcome, rounds=0)
    assert not any(" train " in command for command in next_commands(none, finished.config, Path("a.yaml"), ()))


def test_an_objective_without_beta_is_suggested_another_learning_rate(finished: Finished) -> None:
    grpo = changed(finished.config, "objective.use=grpo", "objective.updates.off_policy=0")
    assert suggested(finished, grpo, "objective.use=grpo")[4:] == [
        "--set", "objective.use=grpo", "--set", "optimizer.lr=0.0005",
    ]  # fmt: skip


def test_the_suggested_query_shows_what_this_run_sampled(finished: Finished) -> None:
    command = next_commands(finished.outcome, finished.config, Path("a.yaml"), ())[1]
    found = rows(finished.home, shlex.split(command)[2])
    assert len(found) == 5
    assert all(row["completion"] for row in found)
