"""A run from its first prompt to its report, told through the store and MLflow; run again; run on."""

import re
from collections import Counter, defaultdict
from html import escape
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from small_run import (
    BATCH,
    CANARY,
    POOL,
    PROMPTS,
    ROLLOUTS,
    ROUNDS,
    UPDATES,
    Finished,
    changed,
    counts,
    lineage,
    responses,
    rows,
    train,
    value,
)

from reval_core.config import Config, flatten
from reval_core.home import Home
from reval_core.store import Store

EVALUATED = 3 * 2
"""Problems of the benchmark times samples."""


def files(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of writing of every file."""
    found = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def points(home: Home) -> dict[str, list[tuple[int, float]]]:
    """Metric to (step, value) of the one MLflow run, as often as they were written."""
    client = MlflowClient(home.mlflow_uri)
    (shown,) = client.search_runs([client.get_experiment_by_name("reval").experiment_id])
    return {
        key: [(point.step, point.value) for point in client.get_metric_history(shown.info.run_id, key)]
        for key in shown.data.metrics
    }


def test_every_row_is_there_once(finished: Finished) -> None:
    trajectories = ROUNDS * BATCH + 2 * EVALUATED
    assert counts(finished.home) == {
        "batches": ROUNDS + 2,
        "evaluations": 2,
        "payloads": trajectories,
        "policies": 1 + ROUNDS,
        "problem_schedule": 3 * POOL,  # 16 draws reach into the third epoch
        "prompts": POOL + 3,
        "reference_scores": ROUNDS * BATCH,
        "replay_entries": ROUNDS * BATCH,
        "rounds": ROUNDS,
        "stages": ROUNDS * 5 + 2 + 2 + 1,  # two checkpoints, two evaluations, a report
        "stage_links": ROUNDS * 5 + 2 + 2 + 1,
        "trajectories": trajectories,
        "update_trajectories": ROUNDS * UPDATES * BATCH,
        "updates": ROUNDS * UPDATES,
        "verdicts": trajectories,
    }


def test_the_stages_run_in_order(finished: Finished) -> None:
    rounds = [f"{name}@{i}" for i in range(ROUNDS) for name in ("generate", "verify", "score", "persist", "learn")]
    rounds.insert(10, "checkpoint@1")
    assert finished.outcome.executed == ("evaluate@-1", *rounds, "checkpoint@3", "evaluate@3", "report@3")
    (attempt,) = rows(finished.home, "SELECT * FROM attempts")
    assert (attempt["status"], attempt["attempt"], attempt["message"]) == ("completed", 1, None)
    assert (finished.home.root / attempt["log_path"]).read_text().count("calibration") == 1


def test_the_fresh_batch_comes_first_and_the_rest_are_draws_of_the_window(finished: Finished) -> None:
    store, run_id = Store(finished.home.database), finished.outcome.run_id
    members = defaultdict(list)
    for row in rows(finished.home, "SELECT * FROM update_members ORDER BY iteration, update_index, position"):
        members[row["iteration"], row["update_index"], row["kind"]].append((row["trajectory_id"], row["reward"]))
    assert [key[1:] for key in members] == [(0, "fresh"), (1, "replay"), (2, "replay")] * ROUNDS
    for iteration in range(ROUNDS):
        window = store.window(run_id, iteration, 2 * BATCH)
        assert [e.iteration for e in window] == [i for i in (iteration - 1, iteration) if i >= 0 for _ in range(BATCH)]
        fresh = [(e.trajectory_id, e.reward) for e in window if e.iteration == iteration]
        assert members[iteration, 0, "fresh"] == fresh
        for draw in (1, 2):
            expected = store.draw(run_id, iteration, capacity=2 * BATCH, size=BATCH, seed=0, update=draw - 1)
            drawn = members[iteration, draw, "replay"]
            assert drawn == [(e.trajectory_id, e.reward) for e in expected]
            assert len(set(drawn)) == BATCH
    old = [name for name, _ in members[3, 1, "replay"] + members[3, 2, "replay"]]
    assert set(old) - {name for name, _ in members[3, 0, "fresh"]}  # the window is more than the batch


def test_rounds_are_told_as_they_were(finished: Finished) -> None:
    told = rows(finished.home, "SELECT * FROM rounds ORDER BY iteration")
    assert [row["iteration"] for row in told] == list(range(ROUNDS))
    for row in told:
        of_round = rows(finished.home, "SELECT * FROM trajectories WHERE iteration = $i", i=row["iteration"])
        assert len(of_round) == row["trajectories"] == BATCH
        assert row["accuracy"] == sum(t["status"] == "correct" for t in of_round) / BATCH
        assert row["reward_mean"] == sum(t["reward_used"] for t in of_round) / BATCH
        assert row["tokens_generated"] == sum(t["response_tokens"] for t in of_round)
        assert {t["policy_id"] for t in of_round} == {row["parent_policy_id"]}
        assert row["updates"] == UPDATES
        assert row["skipped_updates"] == 0
    assert 0 < sum(row["accuracy"] for row in told) < ROUNDS  # both rewards come
    parents = [row["parent_policy_id"] for row in told]
    assert parents[1:] == [row["policy_id"] for row in told][:-1]
    assert {row["reference_policy_id"] for row in told} == {parents[0]}
    (run,) = rows(finished.home, "SELECT * FROM runs")
    assert (run["run_id"], run["rounds_done"], run["trajectories"]) == (finished.outcome.run_id, ROUNDS, ROUNDS * BATCH)


def test_saved_policies_are_the_checkpointed_ones(finished: Finished) -> None:
    saved = rows(finished.home, "SELECT iteration, folder FROM policies WHERE kind = 'learned' ORDER BY iteration")
    assert [row["iteration"] for row in saved if row["folder"]] == [1, 3]
    on_disk = {f"policies/{path.name}" for path in finished.home.policies.iterdir()}
    assert on_disk == {row["folder"] for row in saved if row["folder"]}
    assert (finished.outcome.checkpoint / "optimizer.safetensors").is_file()


def test_an_epoch_has_each_problem_once(finished: Finished) -> None:
    drawn = rows(
        finished.home,
        "SELECT r.iteration, s.problem_id FROM store.rounds AS r JOIN store.problem_schedule AS s USING (run_id) "
        "WHERE s.position >= r.first_position AND s.position < r.until_position ORDER BY s.position",
    )
    order = [row["problem_id"] for row in drawn]
    assert len(order) == ROUNDS * PROMPTS
    assert len(set(order[:POOL])) == len(set(order[POOL : 2 * POOL])) == POOL
    assert order[:POOL] != order[POOL : 2 * POOL]
    for iteration in range(ROUNDS):
        asked = Counter(row["problem_id"] for row in drawn if row["iteration"] == iteration)
        of_round = rows(finished.home, "SELECT problem_id FROM trajectories WHERE iteration = $i", i=iteration)
        assert Counter(row["problem_id"] for row in of_round) == {name: n * ROLLOUTS for name, n in asked.items()}


def test_a_round_draws_fresh_noise(finished: Finished) -> None:
    found = rows(finished.home, "SELECT seed FROM store.trajectories")
    training = rows(
        finished.home, "SELECT problem_id, iteration, completion FROM trajectories WHERE iteration IS NOT NULL"
    )
    assert len({row["seed"] for row in found}) == ROUNDS * BATCH + EVALUATED  # evaluations share theirs
    by_problem = defaultdict(lambda: defaultdict(set))
    for row in training:
        by_problem[row["problem_id"]][row["iteration"]].add(row["completion"])
    again = [list(rounds.values()) for rounds in by_problem.values() if len(rounds) > 1]
    assert again
    assert all(first != second for first, second, *_ in again)


def test_mlflow_has_each_point_once(finished: Finished) -> None:
    shown = points(finished.home)
    assert all(len(history) == len({step for step, _ in history}) for history in shown.values())
    by_round = rows(finished.home, "SELECT * FROM rounds ORDER BY iteration")
    for key in ("accuracy", "loss", "residual_mean", "grad_norm", "tokens_generated", "staleness_mean"):
        assert sorted(shown[key]) == [(row["iteration"], row[key]) for row in by_round]
    evaluated = rows(finished.home, "SELECT metric, iteration, value FROM evaluations ORDER BY iteration")
    avg = [(row["iteration"] + 1, row["value"]) for row in evaluated if row["metric"] == "avg@2"]
    (key,) = [key for key in shown if key.startswith("eval/") and key.endswith("/avg_at_2")]
    assert sorted(shown[key]) == avg
    assert [step for step, _ in avg] == [0, ROUNDS]


def test_mlflow_has_parameters_tags_and_the_report(finished: Finished) -> None:
    client = MlflowClient(finished.home.mlflow_uri)
    (shown,) = client.search_runs([client.get_experiment_by_name("reval").experiment_id])
    identity = {key: str(value) for key, value in flatten(finished.config.identity()).items()}
    assert shown.data.params == identity
    settings = {key.removeprefix("setting."): value for key, value in shown.data.tags.items() if "setting." in key}
    assert identity | settings == {key: str(value) for key, value in finished.config.flat().items()}
    assert shown.data.tags["reval.run_id"] == finished.outcome.run_id == shown.info.run_name
    assert shown.data.tags["reval.attempt"] == "1"
    assert shown.info.status == "FINISHED"
    (run,) = rows(finished.home, "SELECT mlflow_run_id FROM store.runs")
    assert run["mlflow_run_id"] == shown.info.run_id
    (config,) = [artifact.path for artifact in client.list_artifacts(shown.info.run_id, "config")]
    assert re.fullmatch(r"config/\w{8}\.yaml", config)
    artifacts = {artifact.path for artifact in client.list_artifacts(shown.info.run_id, "report")}
    assert {"report/report.html", "report/learning-curve.png"} <= artifacts
    assert finished.home.mlflow_artifacts.is_dir()


def test_mlflow_has_a_model_for_each_saved_policy(finished: Finished) -> None:
    client = MlflowClient(finished.home.mlflow_uri)
    found = client.search_logged_models([client.get_experiment_by_name("reval").experiment_id])
    saved = rows(
        finished.home, "SELECT policy_id, folder FROM policies WHERE iteration IS NOT NULL AND folder IS NOT NULL"
    )
    assert {model.name: model.tags["reval.folder"] for model in found} == {
        row["policy_id"]: row["folder"] for row in saved
    }
    (last,) = [model for model in found if model.name == finished.outcome.policy_id]
    (avg,) = [metric for metric in last.metrics if metric.key.endswith("/avg_at_2")]
    (evaluated,) = rows(
        finished.home, f"SELECT value FROM evaluations WHERE metric = 'avg@2' AND policy_id = '{last.name}'"
    )
    assert (avg.step, avg.value) == (ROUNDS, evaluated["value"])


def test_the_report_shows_the_run(finished: Finished) -> None:
    page = finished.outcome.report.read_text(encoding="utf-8")
    assert finished.outcome.run_id in page
    assert page.count("<svg ") == page.count("<figure ") == 9
    for heading in ("Learning curve", "Calibration", "Timeline", "three.jsonl", "Other than the defaults"):
        assert f">{heading}<" in page
    found = rows(finished.home, "SELECT completion FROM trajectories WHERE iteration = 3")
    assert sum(escape(row["completion"]) in page for row in found) >= 4  # one for each problem of the newest round


def test_no_secret_reaches_the_root(finished: Finished) -> None:
    found = [path for path in finished.home.root.rglob("*") if path.is_file()]
    assert {"reval.duckdb", "mlflow.db", "report.html", "attempt-1.jsonl", "reval.json"} <= {
        path.name for path in found
    }
    assert [path for path in found if CANARY.encode() in path.read_bytes()] == []
    store = Store(finished.home.database)
    tables = store.query("SELECT schema_name || '.' || table_name AS name FROM duckdb_tables()").column("name")
    for name in tables.to_pylist():  # the file is compressed
        assert CANARY not in str(store.query(f"SELECT * FROM {name}").to_pylist()), name


def test_a_copied_root_runs_again_without_executing_anything(finished: Finished, copied: Home) -> None:
    before, rows_before, points_before = files(finished.home.root), counts(copied), points(copied)
    again = train(finished.config, copied)
    assert again.executed == ()
    assert (again.policy_id, again.rounds, again.summary) == (
        finished.outcome.policy_id,
        ROUNDS,
        finished.outcome.summary,
    )
    assert counts(copied) == rows_before
    assert points(copied) == points_before
    assert again.report.is_relative_to(copied.root)
    assert again.checkpoint.is_relative_to(copied.root)
    assert files(finished.home.root) == before  # nothing went into the root it was copied from
    assert [row["status"] for row in rows(copied, "SELECT status FROM attempts")] == ["completed"] * 2


def test_more_iterations_go_on(finished: Finished, copied: Home) -> None:
    before, steps_before = lineage(copied, finished.outcome.run_id), points(copied)["loss"]
    longer = changed(finished.config, f"run.iterations={ROUNDS + 1}")
    done = train(longer, copied)
    assert done.run_id == finished.outcome.run_id
    assert done.executed == (
        *(f"{name}@{ROUNDS}" for name in ("generate", "verify", "score", "persist", "learn")),
        *(f"{name}@{ROUNDS}" for name in ("checkpoint", "evaluate", "report")),
    )
    assert lineage(copied, done.run_id)[:ROUNDS] == before
    after = points(copied)
    assert after["loss"][: len(steps_before)] == steps_before
    assert [step for step, _ in after["loss"]] == [0, 1, 2, 3, 4]
    client = MlflowClient(copied.mlflow_uri)
    (shown,) = client.search_runs([client.get_experiment_by_name("reval").experiment_id])
    assert shown.info.artifact_uri.startswith(copied.mlflow_artifacts.as_uri())
    assert any(copied.mlflow_artifacts.rglob("report.html"))
    assert shown.data.tags["setting.run.iterations"] == str(ROUNDS + 1)
    (told,) = rows(copied, "SELECT iteration, kind, message FROM events")
    assert told == {
        "iteration": ROUNDS,
        "kind": "changed settings",
        "message": f"run.iterations: {ROUNDS} -> {ROUNDS + 1}",
    }
    assert value(copied, "SELECT (config ->> '$.run.iterations')::INTEGER FROM runs") == ROUNDS + 1


@pytest.mark.usefixtures("quick")
def test_a_restart_under_other_versions_goes_on_and_says_from_which_round(
    small: Config, home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = train(changed(small, "run.iterations=1"), home)
    before = lineage(home, first.run_id)
    monkeypatch.setattr("reval_core.environment.ROLLOUT_VERSION", 2)
    done = train(changed(small, "run.iterations=2"), home)
    assert done.run_id == first.run_id
    assert lineage(home, done.run_id)[:1] == before  # what is committed is never keyed anew
    assert "goes on under other versions: ROLLOUT_VERSION 1 -> 2" in caplog.text
    events = rows(home, "SELECT iteration, message FROM events WHERE kind = 'changed versions'")
    assert events == [{"iteration": 1, "message": "ROLLOUT_VERSION 1 -> 2"}]


@pytest.mark.usefixtures("quick")
def test_fewer_iterations_change_nothing(finished: Finished, copied: Home) -> None:
    evaluated = rows(copied, "SELECT * FROM evaluations ORDER BY ALL")
    done = train(changed(finished.config, "run.iterations=2"), copied)
    assert (done.executed, done.rounds, done.policy_id) == ((), ROUNDS, finished.outcome.policy_id)
    assert rows(copied, "SELECT * FROM evaluations ORDER BY ALL") == evaluated


@pytest.mark.usefixtures("quick")
def test_one_seed_gives_the_same_bits_in_another_root(small: Config, finished: Finished, home: Home) -> None:
    done = train(changed(small, "run.iterations=1"), home)
    assert lineage(home, done.run_id) == lineage(finished.home, finished.outcome.run_id)[:1]
    assert set(responses(home)) < set(responses(finished.home))


@pytest.mark.usefixtures("quick")
def test_another_seed_gives_other_samples(small: Config, finished: Finished, home: Home) -> None:
    done = train(changed(small, "run.iterations=1", "run.seed=1"), home)
    assert done.run_id != finished.outcome.run_id
    ((_, policy, checksum),) = lineage(home, done.run_id)
    first = lineage(finished.home, finished.outcome.run_id)[0]
    assert policy != first[1]
    assert checksum != first[2]
    assert not {row[1] for row in responses(home)} & {row[1] for row in responses(finished.home)}
