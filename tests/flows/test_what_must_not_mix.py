"""Things that share a run and must not touch each other: golds, evaluations, batches, the environment's MLflow."""

import json
from pathlib import Path

import pytest
from small_run import BATCH, ROLLOUTS, changed, crash_at, rows, train

from reval_core.config import Config
from reval_core.config_files import parse_config
from reval_core.errors import ConfigError
from reval_core.home import Home
from tasks.track import tracking_uri

pytestmark = pytest.mark.usefixtures("quick")


def with_other_golds(problem_file: Path, folder: Path) -> Path:
    """A benchmark of the training problems, with gold answers that nobody can reach."""
    path = folder / "same_questions.jsonl"
    problems = [json.loads(line) for line in problem_file.read_text().splitlines()]
    path.write_text("".join(json.dumps({**problem, "answer": "999999"}) + "\n" for problem in problems))
    return path


@pytest.mark.long
def test_a_benchmark_of_training_problems_does_not_change_what_is_learned(
    small: Config, home: Home, problem_file: Path, tmp_path: Path
) -> None:
    other = with_other_golds(problem_file, tmp_path)
    config = changed(
        small, "run.iterations=2", "evaluation.before=true", f"evaluation.benchmarks=[{problem_file}, {other}]"
    )
    train(config, home)
    graded = rows(
        home,
        "SELECT DISTINCT g.gold FROM store.replay_entries AS e JOIN store.trajectories AS t USING (trajectory_id) "
        "JOIN store.golds AS g ON g.problem_id = t.problem_id AND g.gold_digest = e.gold_digest",
    )
    assert "999999" not in {row["gold"] for row in graded}
    scores = rows(home, "SELECT benchmark, iteration, value FROM evaluations WHERE metric = 'avg@2'")
    assert {row["value"] for row in scores if row["benchmark"] == str(other)} == {0.0}


@pytest.mark.long
def test_an_evaluation_that_a_kill_left_out_is_caught_up(
    small: Config, home: Home, benchmark_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(small, "run.iterations=3", "evaluation.every=1", f"evaluation.benchmarks=[{benchmark_file}]")
    with crash_at(monkeypatch, "evaluate", 0, "before"):
        train(config, home)
    train(config, home)
    found = rows(home, "SELECT DISTINCT iteration FROM evaluations ORDER BY iteration")
    assert [row["iteration"] for row in found] == [0, 1]


def test_the_fresh_batch_is_whole_whatever_the_window_holds(small: Config, home: Home) -> None:
    config = changed(small, "run.iterations=1", "replay.capacity=3", "objective.updates.off_policy=0")
    train(config, home)
    (update,) = rows(home, "SELECT kind, trajectories FROM store.updates")
    assert update == {"kind": "fresh", "trajectories": BATCH}


@pytest.mark.long
def test_vargrad_never_draws_a_group_that_the_windows_edge_cuts(small: Config, home: Home) -> None:
    config = changed(small, "run.iterations=3", "objective.use=vargrad", f"replay.capacity={BATCH + 1}")
    train(config, home)
    sizes = rows(
        home,
        "SELECT u.policy_id, u.update_index, t.batch_id, t.problem_id, count(*) AS n "
        "FROM store.update_trajectories AS u JOIN store.trajectories AS t USING (trajectory_id) GROUP BY ALL",
    )
    assert {row["n"] % ROLLOUTS for row in sizes} == {0}


@pytest.mark.parametrize("objective", ["vargrad", "grpo"])
def test_dropping_responses_of_a_group_is_refused(small: Config, home: Home, objective: str) -> None:
    config = changed(small, f"objective.use={objective}", "objective.updates.off_policy=0", "reward.truncated=drop")
    with pytest.raises(ConfigError, match="can leave one response of a group"):
        train(config, home)


def test_scores_of_an_older_learning_version_do_not_stop_the_start(
    small: Config, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(small, "run.iterations=1")
    with crash_at(monkeypatch, "persist", 0, "before"):
        train(config, home)
    monkeypatch.setattr("reval_core.policies.materialise.LEARNING_VERSION", 99)
    assert train(config, home).rounds == 1


@pytest.mark.long
def test_other_evaluation_settings_are_another_line_and_not_mixed_in(
    small: Config, home: Home, benchmark_file: Path
) -> None:
    config = changed(
        small,
        "run.iterations=1",
        "evaluation.before=true",
        "evaluation.after=true",
        f"evaluation.benchmarks=[{benchmark_file}]",
    )
    first = train(config, home)
    second = train(changed(config, "evaluation.temperature=0.01"), home)
    assert second.run_id == first.run_id
    assert [name for name in second.executed if name.startswith("evaluate")] == ["evaluate@-1", "evaluate@0"]
    assert len([row for row in second.summary if row[0].endswith("avg@2")]) == 1
    assert train(config, home).summary == first.summary


def test_mlflow_is_where_the_configuration_or_the_environment_says(
    small: Config, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shown:
        def __init__(self, config: Config) -> None:
            self.config, self.home = config, home

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(Shown(small)) == home.mlflow_uri  # type: ignore[arg-type]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5001")
    assert tracking_uri(Shown(small)) == "http://127.0.0.1:5001"  # type: ignore[arg-type]
    named = changed(small, "tracking.uri=http://127.0.0.1:5002")
    assert tracking_uri(Shown(named)) == "http://127.0.0.1:5002"  # type: ignore[arg-type]


def test_a_password_in_the_tracking_address_is_refused(small: Config) -> None:
    tree = small.model_dump(mode="json")
    tree["tracking"]["uri"] = "https://me:canary@example.org"
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD"):
        parse_config(tree)
