"""Our policies beside the paper's Table 1."""

from pathlib import Path

import pytest
from small_run import ROUNDS, Finished, Reval

from flows import evaluate
from flows.table1 import table_rows, who, write_table1
from reval_core.home import Home
from reval_core.store import Store
from tasks.progress import Progress

PUBLISHED_MEANS = [34.7, 43.4, 42.3, 45.6, 25.7, 38.4, 36.9, 39.6]
"""As the paper prints them."""


def test_the_published_rows_average_as_the_paper_says(finished: Finished) -> None:
    rows = table_rows(Store(finished.home.database))
    assert [len(row) for row in rows] == [7] * 8
    assert [sum(one["value"] for one in row) / 7 for row in rows] == pytest.approx(PUBLISHED_MEANS, abs=0.06)
    assert [who(row) for row in rows][3] == "DeepSeek-R1-Distill-Qwen-1.5B reval"


def test_ours_stand_below_with_intervals(finished: Finished, copied: Home, benchmark_file: Path) -> None:
    policy = finished.outcome.policy_id
    files = f"evaluation.files={{aime24: {{path: {benchmark_file}}}, amc: {{path: {benchmark_file}, limit: 2}}}}"
    settings, policy_id = evaluate.evaluation_of(
        copied, policy, ["aime24", "amc"], evaluate.Asked(samples=2, overrides=(files,))
    )
    done = evaluate.evaluate_flow.fn(settings, copied, Progress(quiet=True), policy_id)
    rows, page = write_table1(copied)
    (ours,) = rows[8:]
    assert who(ours) == f"tiny reval, {finished.outcome.run_id} after {ROUNDS} rounds"
    assert [one["benchmark"] for one in ours] == ["aime24", "amc"]
    values = [tuple(100 * end for end in one.metrics["avg@2"]) for one in done]
    assert [(one["value"], one["low"], one["high"]) for one in ours] == [pytest.approx(value) for value in values]
    assert [one["problem_count"] for one in ours] == [3, 2]
    text = page.read_text(encoding="utf-8")
    mean = (values[0][0] + values[1][0]) / 2
    assert f"{mean:.1f}" in text and policy in text and "45.6" in text


def test_the_command(reval: Reval, finished: Finished) -> None:
    code, _, error = reval("report", "--table1", finished.outcome.run_id)
    assert code != 0 and "leave the run out" in error
    assert not (finished.home.reports / "table1.html").exists()
