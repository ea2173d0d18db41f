"""Evaluation on its own: of a stored policy by the first digits of its id, of a model folder; sampled once."""

from pathlib import Path
from typing import Any

import pytest
from small_run import ROUNDS, Finished, counts, rows, sampled, value

from flows import evaluate
from flows.evaluate import Asked
from reval_core.errors import StoreError
from reval_core.home import Home
from reval_core.process import ProcessIdentity
from reval_core.store import Store, runs
from tasks.compare import compare
from tasks.progress import Progress
from tasks.references import Evaluated


def asked(
    home: Home, policy: str, benchmark: Path, *, samples: int = 2, overrides: tuple[str, ...] = ()
) -> dict[str, float]:
    """Metric to value."""
    settings, policy_id = evaluate.evaluation_of(
        home, policy, [str(benchmark)], Asked(samples=samples, overrides=overrides)
    )
    found = evaluate.evaluate_flow.fn(settings, home, Progress(quiet=True), policy_id)
    assert {one.benchmark for one in found} == {str(benchmark)}
    return {metric: number for _, metric, number, _, _ in evaluate.rows(found)}


def test_a_stored_policy(
    finished: Finished, copied: Home, benchmark_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = counts(copied)
    policy = finished.outcome.policy_id
    with sampled(monkeypatch) as seen:
        known = asked(copied, policy.removeprefix("pol_")[:8], benchmark_file)
    assert seen == []  # the run has done just this at its end
    during = rows(
        copied, "SELECT metric, value FROM evaluations WHERE iteration = $last AND run_id = $run",
        last=ROUNDS - 1, run=finished.outcome.run_id,
    )  # fmt: skip
    assert known == {row["metric"]: row["value"] for row in during}
    told = "SELECT DISTINCT iteration FROM evaluations WHERE run_name LIKE 'evaluate-%'"
    assert value(copied, told) == ROUNDS - 1  # it stands after the rounds that its policy has learned
    assert counts(copied) == before | {"stage_links": before["stage_links"] + 1}

    with sampled(monkeypatch) as first:
        more = asked(copied, policy, benchmark_file, samples=4)
    assert len(first) == len(set(first)) == 3 * 4
    with sampled(monkeypatch) as second:
        assert asked(copied, policy, benchmark_file, samples=4) == more
    assert second == []
    assert set(more) == {"avg@4", "maj@4", "pass@4"} or set(more) > {"avg@4", "pass@4"}
    right = "SELECT avg((status = 'correct')::INTEGER) FROM trajectories WHERE purpose = 'evaluation' AND batch_id = $b"
    batch = value(copied, "SELECT batch_id FROM store.evaluations WHERE samples_per_problem = 4")
    assert more["avg@4"] == value(copied, right, b=batch)


def test_what_is_taken_from_the_policys_run_is_told_and_what_is_asked_for_apart(
    finished: Finished, benchmark_file: Path, tmp_path: Path
) -> None:
    home, policy, name = finished.home, finished.outcome.policy_id, str(benchmark_file)

    def line(asked: Asked, policy: str = policy, names: list[str] | None = None) -> str:
        settings, policy_id = evaluate.evaluation_of(home, policy, names, asked)
        return evaluate.taken(home, settings, policy_id, asked)

    source = f"as in run {finished.outcome.run_id}"
    assert line(Asked()) == f"{source}: 2 samples a problem, temperature 1, {name} whole"
    wished = Asked(samples=4, limit=1, overrides=("evaluation.temperature=0.6",))
    assert line(wished) == f"as asked: 4 samples a problem, temperature 0.6, {name} at most 1 problem"
    by_name = Asked(overrides=("evaluation.limits.arithmetic=100",))
    both = line(by_name, names=["arithmetic", name])
    assert both == (
        f"{source}: 2 samples a problem, temperature 1; as asked: arithmetic at most 100 problems, {name} whole"
    )
    assert line(Asked(limit=5), "builtin:tiny", ["arithmetic"]) == (
        "as by default: 16 samples a problem, temperature 1; as asked: arithmetic at most 5 problems"
    )
    file = tmp_path / "own.yaml"
    file.write_text(finished.config.to_yaml(), encoding="utf-8")
    assert line(Asked(config=file)).startswith(f"as in {file}: 2 samples")


def test_a_limit_that_is_asked_for_goes_before_those_of_the_policys_run(
    finished: Finished, copied: Home, benchmark_file: Path
) -> None:
    config = finished.config.model_dump(mode="json")
    config["evaluation"]["limits"] = {str(benchmark_file): 3}
    with Store(copied.database).write() as connection:
        runs.set_config(connection, finished.outcome.run_id, config)
    settings, _ = evaluate.evaluation_of(copied, finished.outcome.policy_id, None, Asked(limit=2))
    assert (settings.evaluation.limit, settings.evaluation.limits) == (2, {})


def test_a_policy_that_is_only_a_lineage_is_learned_again(
    finished: Finished, copied: Home, benchmark_file: Path
) -> None:
    (row,) = rows(copied, "SELECT policy_id, folder FROM policies WHERE iteration = 2")
    assert row["folder"] is None
    asked(copied, row["policy_id"], benchmark_file)
    folder = value(copied, "SELECT folder FROM policies WHERE policy_id = $p", p=row["policy_id"])
    assert (copied.root / folder / "model.safetensors").is_file()  # what is evaluated is saved


def test_a_model_folder(
    base_folder: Path, finished: Finished, copied: Home, benchmark_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    like_the_run = (
        "prompt.template=none",
        "rollouts.max_prompt_tokens=16",
        "rollouts.max_new_tokens=24",
        "model.threads=1",
    )
    with sampled(monkeypatch) as seen:
        found = asked(copied, str(base_folder), benchmark_file, overrides=like_the_run)
    assert seen == []
    before = rows(
        copied,
        "SELECT metric, value FROM evaluations WHERE iteration = -1 AND run_id = $run",
        run=finished.outcome.run_id,
    )
    assert found == {row["metric"]: row["value"] for row in before}
    assert not (copied.policies / value(copied, "SELECT policy_id FROM policies WHERE kind = 'base'")).exists()


def test_another_process_may_evaluate_the_same_policy(
    finished: Finished, copied: Home, benchmark_file: Path, stranger: ProcessIdentity
) -> None:
    policy = finished.outcome.policy_id
    asked(copied, policy, benchmark_file)
    (run,) = [row["run_id"] for row in rows(copied, "SELECT run_id FROM runs WHERE run_name LIKE 'evaluate-%'")]
    with Store(copied.database).write() as connection:
        theirs = runs.start_attempt(
            connection, run, stranger, git_commit=None, versions={}, device="cpu", flow_run_id=None
        )
    asked(copied, policy, benchmark_file, samples=1)
    told = rows(copied, "SELECT attempt, status FROM attempts WHERE run_id = $run ORDER BY attempt", run=run)
    assert [tuple(row.values()) for row in told] == [(1, "completed"), (theirs, "running"), (3, "completed")]
    # an evaluation is no training run: what people look at by default is still the one that learned
    assert value(copied, "SELECT newest_run()") == finished.outcome.run_id


@pytest.mark.parametrize(("policy", "names"), [("pol_0000000000", 0), ("pol_", 1 + ROUNDS)])
def test_a_name_that_is_not_one_policys(policy: str, names: int, finished: Finished, benchmark_file: Path) -> None:
    with pytest.raises(StoreError, match=rf"'{policy}' names {names} policies .*or its first digits"):
        asked(finished.home, policy, benchmark_file)


def test_two_policies_are_compared_problem_by_problem(finished: Finished) -> None:
    run = finished.outcome.run_id
    done = {row["iteration"]: row for row in rows(finished.home, EVALUATED, run=run)}
    first, last = (evaluated(done[iteration]) for iteration in (-1, ROUNDS - 1))
    found = {row.metric: row for row in compare(finished.home, [first], [last])}
    before, after = ({m: v[0] for m, v in side.metrics.items()} for side in (first, last))
    assert set(found) == {"avg@2", "pass@2", "maj@2"}
    for metric, row in found.items():
        assert (row.first, row.second) == (pytest.approx(before[metric]), pytest.approx(after[metric]))
        assert row.difference.value == pytest.approx(after[metric] - before[metric])
        assert row.difference.low <= row.difference.value <= row.difference.high
    alike = compare(finished.home, [last], [last])
    assert all(row.intervals[0].low <= row.first <= row.intervals[0].high for row in found.values())
    assert [(row.difference.value, row.difference.low, row.difference.high) for row in alike] == [(0, 0, 0)] * 3


def test_pass_at_every_j_by_sql_is_the_unbiased_estimate(finished: Finished) -> None:
    done = {row["iteration"]: row for row in rows(finished.home, EVALUATED, run=finished.outcome.run_id)}
    last = done[ROUNDS - 1]
    found = rows(finished.home, "pass_at_k", policy=last["policy_id"])
    metrics = dict(last["metrics"])
    assert [(row["j"], row["pass_at_j"]) for row in found] == [
        (1, pytest.approx(metrics["avg@2"])), (2, pytest.approx(metrics["pass@2"])),
    ]  # fmt: skip
    problems = rows(finished.home, "evaluated_problems", policy=last["policy_id"])
    assert len(problems) == 3 and {row["samples"] for row in problems} == {2}
    assert sum(row["share_right"] for row in problems) / 3 == pytest.approx(metrics["avg@2"])


EVALUATED = (
    "SELECT iteration, any_value(evaluation_id) AS evaluation_id, any_value(policy_id) AS policy_id, "
    "any_value(benchmark) AS benchmark, map_from_entries(list((metric, value))) AS metrics "
    "FROM evaluations WHERE run_id = $run GROUP BY iteration"
)


def evaluated(row: dict[str, Any]) -> Evaluated:
    metrics = {name: (value, None, None) for name, value in dict(row["metrics"]).items()}
    return Evaluated(row["evaluation_id"], row["policy_id"], row["benchmark"], metrics)
