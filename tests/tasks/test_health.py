"""Health: which rules a run breaks, what is done then, and how it goes on. The model knows nothing, so all is wrong."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flows.train
import tasks.health
import tasks.report
from reval_core.config import Config
from reval_core.config_files import parse_config
from reval_core.errors import ConfigError, HealthError
from reval_core.health import Breach, HealthConfig, breaches
from reval_core.home import Home
from reval_core.problems.arithmetic import arithmetic_problems
from reval_core.store import Store
from tasks.open_run import open_run
from tasks.progress import Progress
from tasks.run import Here

# -- the rules --------------------------------------------------------------------------------------------------------


def rules(**changed: dict[str, Any]) -> HealthConfig:
    """One rule for each metric named, all others ignored."""
    ignored = {name: {"then": "ignore"} for name in HealthConfig.model_fields}
    return HealthConfig.model_validate(ignored | {name: {"then": "warn"} | rule for name, rule in changed.items()})


def series(metric: str, *values: float | None) -> list[dict[str, float | None]]:
    return [{metric: value} for value in values]


@pytest.mark.parametrize(
    ("values", "broken"),
    [
        ((), False),
        ((2.0,), False),
        ((2.0, 2.0), False),
        ((2.0, 2.0, 2.0), True),
        ((0.0, 2.0, 2.0, 2.0), True),
        ((2.0, 2.0, 1.0), False),
        ((2.0, 1.0, 2.0), False),
        ((2.0, None, 2.0), False),  # what was not measured is not out of bounds
        ((2.0, 2.0, None), False),
        ((1.5, 1.5, 1.5), False),  # at the bound is within it
    ],
)
def test_a_rule_is_broken_by_rounds_in_a_row_that_end_with_the_newest(
    values: tuple[float | None, ...], broken: bool
) -> None:
    found = breaches(rules(residual_spread={"above": 1.5, "rounds": 3}), series("residual_spread", *values))
    assert found == ([Breach("residual_spread", 2.0, 1.5, 3, "warn")] if broken else [])


def test_a_band_is_left_on_either_side_and_the_newest_side_is_told() -> None:
    banded = rules(root_value_gap={"above": 1.0, "below": -2.0, "rounds": 2, "then": "stop"})
    (low,) = breaches(banded, series("root_value_gap", 1.5, -2.5))
    assert low == Breach("root_value_gap", -2.5, -2.0, 2, "stop")
    assert str(low) == "root_value_gap is -2.5, below -2, the last of 2 rounds in a row out of bounds"
    assert breaches(banded, series("root_value_gap", 1.5, -1.5)) == []


def test_free_disk_is_judged_by_the_newest_round_alone() -> None:
    (found,) = breaches(HealthConfig(), [{"staleness": 0.0}, {"staleness": 0.0, "free_disk_gb": 4.0}])
    assert str(found) == "free_disk_gb is 4, below 5"


def test_all_rules_are_decided_apart() -> None:
    watched = rules(staleness={"above": 8, "rounds": 2}, truncated_share={"above": 0.1, "rounds": 1})
    measured = [
        {"staleness": 9.0, "truncated_share": 0.0, "timeout_share": 1.0},
        {"staleness": 9.0, "truncated_share": 0.5, "timeout_share": 1.0},
    ]
    assert {found.metric for found in breaches(watched, measured)} == {"staleness", "truncated_share"}
    assert watched.longest == 2
    assert rules().longest == 0
    assert breaches(rules(), measured) == []


def test_a_healthy_quickstart_breaks_no_rule() -> None:
    """Figures of its rounds 0 to 5, seed 0."""
    keys = ("residual_spread", "root_value_gap", "all_wrong_share", "truncated_share", "staleness", "engine_mismatch")
    rounds = [
        (0.44, 0.010, 0.03, 0.0, 0.0, 2e-7),
        (0.45, 0.035, 0.03, 0.0, 0.4, 9e-8),
        (0.40, 0.056, 0.00, 0.0, 0.9, 6e-8),
        (0.38, 0.071, 0.00, 0.0, 1.3, 8e-8),
        (0.30, 0.084, 0.00, 0.004, 1.8, 9e-8),
        (0.26, 0.092, 0.00, 0.0, 1.7, 9e-8),
    ]
    measured = [dict(zip(keys, row, strict=True)) for row in rounds]
    assert [breaches(HealthConfig(), measured[: n + 1]) for n in range(len(measured))] == [[]] * len(measured)


# -- the section ------------------------------------------------------------------------------------------------------


def tree(**health: Any) -> dict[str, Any]:
    return {"problems": [{"path": "builtin:arithmetic/train"}], "health": health}


def test_one_key_of_a_rule_changes_and_the_rest_keeps_its_default() -> None:
    changed = parse_config(tree(all_wrong_share={"then": "stop"})).health
    assert changed.all_wrong_share.model_dump() == {"above": 0.9, "below": None, "rounds": 5, "then": "stop"}
    assert changed.model_dump(exclude={"all_wrong_share"}) == HealthConfig().model_dump(exclude={"all_wrong_share"})


def test_the_rules_are_no_part_of_a_runs_identity() -> None:
    assert parse_config(tree(staleness={"above": 1})).config_id == parse_config(tree()).config_id


@pytest.mark.parametrize(
    ("health", "line"),
    [
        ({"stalenes": {"above": 1}}, "unknown key 'health.stalenes': did you mean 'health.staleness'?"),
        (
            {"staleness": {"abov": 1}},
            "unknown key 'health.staleness.abov': did you mean 'health.staleness.above'?",
        ),
        (
            {"staleness": {"above": None}},
            "health.staleness: give above, below or both; to leave the metric unwatched, then: ignore",
        ),
        ({"root_value_gap": {"below": 2}}, "health.root_value_gap: below (2) must be less than above (1.5)"),
        ({"free_disk_gb": {"rounds": 2}}, "health.free_disk_gb.rounds: Input should be 1 (given: 2)"),
        (
            {"staleness": {"then": "halt"}},
            "health.staleness.then: Input should be 'warn', 'stop' or 'ignore' (given: 'halt')",
        ),
    ],
)
def test_a_wrong_rule_is_refused(health: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(tree(**health))
    assert str(refused.value).splitlines()[1:] == [f"  - {line}"]


# -- in a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def raw(random_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Three rounds of two prompts with two responses each, on problems that the random model reads."""
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps(problem) + "\n" for problem in arithmetic_problems("train")[:2]))
    return {
        "run": {"name": "sick", "iterations": 3},
        "model": {"path": str(random_folder), "threads": 1, "device": "cpu"},
        "prompt": {"template": "none"},
        "problems": [{"path": str(problems)}],
        "rollouts": {
            "prompts_per_iteration": 2,
            "rollouts_per_prompt": 2,
            "max_prompt_tokens": 16,
            "max_new_tokens": 4,
        },
        "replay": {"capacity": None},
        "evaluation": {"before": False, "after": False},
        "tracking": {"system_metrics": False},
        "health": {name: {"then": "ignore"} for name in HealthConfig.model_fields},
    }


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "root")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without MLflow and plots."""

    class Nothing:
        def __enter__(self) -> None: ...
        def __exit__(self, *told: object) -> None: ...

    monkeypatch.setattr(flows.train, "tracking", lambda run: Nothing())
    monkeypatch.setattr(flows.train, "track", lambda run, tracker: None)
    monkeypatch.setattr(flows.train, "log_models", lambda run, tracker: None)
    monkeypatch.setattr(flows.train, "log_files", lambda tracker, files, folder: None)
    monkeypatch.setattr(tasks.report, "draw", lambda run: {})
    monkeypatch.setattr(tasks.report, "FIGURES", ())


def watched(raw: dict[str, Any], **rules: dict[str, Any]) -> Config:
    return parse_config(raw | {"health": raw["health"] | rules})


def train(config: Config, home: Home) -> Any:
    return flows.train.train.fn(config, home, Progress(quiet=True))


def rows(home: Home, sql: str) -> list[dict[str, Any]]:
    return Store(home.database).query(sql).to_pylist()


ALL_WRONG = {"above": 0.0, "rounds": 2, "then": "stop"}


@pytest.mark.long
def test_a_stop_comes_after_the_round_and_the_same_command_with_another_rule_goes_on(
    raw: dict[str, Any], home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    stopping = watched(raw, all_wrong_share=ALL_WRONG)
    with pytest.raises(HealthError) as stopped:
        train(stopping, home)
    (run_id,) = rows(home, "SELECT run_id FROM runs")[0].values()
    assert str(stopped.value) == (
        f"{run_id} was stopped after round 1: all_wrong_share is 1, above 0, the last of 2 rounds in a row out of "
        "bounds. The round is committed, nothing is lost. To go on, change the rule and give the same command again, "
        "as with --set health.all_wrong_share.then=warn; docs/health.md says what the metrics mean."
    )
    assert [row["iteration"] for row in rows(home, "SELECT iteration FROM rounds")] == [0, 1]
    recorded = rows(home, "SELECT * EXCLUDE (run_name, recorded_at) FROM breaches")
    assert recorded == [
        {
            "run_id": run_id,
            "attempt": 1,
            "iteration": 1,
            "metric": "all_wrong_share",
            "value": 1.0,
            "bound": 0.0,
            "rounds": 2,
            "action": "stop",
        }
    ]
    (attempt,) = rows(home, "SELECT status, message FROM attempts")
    assert attempt["status"] == "failed"
    assert attempt["message"].startswith("HealthError: ")

    stages = rows(home, "SELECT count(*) AS n FROM store.stages")
    with pytest.raises(HealthError):  # the same rule stops it again, and nothing is done or recorded twice
        train(stopping, home)
    assert rows(home, "SELECT count(*) AS n FROM store.stages") == stages
    assert rows(home, "SELECT * EXCLUDE (run_name, recorded_at) FROM breaches") == recorded

    caplog.clear()
    done = train(watched(raw, all_wrong_share=ALL_WRONG | {"then": "warn"}), home)
    assert (done.run_id, done.rounds) == (run_id, 3)
    assert [name for name in done.executed if name.startswith("generate")] == ["generate@2"]
    actions = rows(home, "SELECT iteration, action, attempt FROM breaches ORDER BY iteration")
    assert [tuple(row.values()) for row in actions] == [(1, "stop", 1), (2, "warn", 3)]
    assert "health: after round" not in caplog.text  # it began in round 1


def test_what_lasts_is_told_once_and_recorded_each_round(
    raw: dict[str, Any], home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    train(watched(raw, all_wrong_share={"above": 0.5, "rounds": 1, "then": "warn"}), home)
    told = [record for record in caplog.records if record.name == "tasks.health"]
    assert [record.getMessage() for record in told] == ["health: after round 0 all_wrong_share is 1, above 0.5"]
    assert told[0].levelno == logging.WARNING
    assert len(rows(home, "SELECT iteration FROM breaches")) == 3


def test_everything_is_measured_in_a_run(raw: dict[str, Any], home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    config = watched(raw)
    train(config, home)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=9e12, used=0, free=42_500_000_000))
    every = watched(
        raw, **{name: {"then": "warn", "rounds": 3} for name in HealthConfig.model_fields if "_gb" not in name}
    )
    with open_run(every, home, progress=Progress(quiet=True)) as run:
        rounds = tasks.health.measured(Here(run, 2))
    assert [row["iteration"] for row in rounds] == [0, 1, 2]
    assert {name for row in rounds for name in row} == {"iteration", *HealthConfig.model_fields}
    assert [row.get("free_disk_gb") for row in rounds] == [None, None, 42.5]
    told = rows(home, "SELECT truncated_share, staleness_mean FROM rounds ORDER BY iteration")
    assert [(row["truncated_share"], row["staleness"]) for row in rounds] == [tuple(row.values()) for row in told]
    for row in rounds:
        assert row["all_wrong_share"] == 1
        assert row["timeout_share"] == 0
        assert 0 <= row["engine_mismatch"] < 1e-5  # the engine has the learner's own weights, in float32
        assert row["residual_spread"] is not None
        assert row["root_value_gap"] is not None


def test_what_has_no_right_and_wrong_or_another_temperature_is_not_measured(raw: dict[str, Any], home: Home) -> None:
    raw["rollouts"]["temperature"] = 0.5
    config = watched(raw)
    train(parse_config(config.model_dump(mode="json") | {"run": {"name": "sick", "iterations": 1}}), home)
    own = config.model_copy(update={"reward": config.reward.model_copy(update={"use": "a:b", "transform": "raw"})})
    with open_run(config, home, progress=Progress(quiet=True)) as run:
        (row,) = tasks.health.measured(Here(run, 0))
        assert (row["engine_mismatch"], row["all_wrong_share"]) == (None, 1)
        run.config = own
        (row,) = tasks.health.measured(Here(run, 0))
    assert row["all_wrong_share"] is None
