"""A run whose evaluations are made by a process beside it gives what the run alone gives."""

from typing import Any

import pytest
from small_run import ROUNDS, Finished, changed, crash_at, rows, train

from reval_core.config import Config
from reval_core.home import Home

POINTS = (
    "SELECT iteration, metric, value, low, high FROM evaluations WHERE run_name = 'small' AND iteration IN (-1, $last) "
    "ORDER BY iteration, metric"
)


def evaluated(home: Home) -> list[dict[str, Any]]:
    return rows(home, POINTS, last=ROUNDS - 1)


@pytest.fixture
def beside(finished: Finished) -> Config:
    return changed(finished.config, "evaluation.device=cpu:1", "evaluation.every=1")


@pytest.mark.long
def test_the_same_evaluations_at_the_same_rounds(
    finished: Finished, beside: Config, home: Home, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with crash_at(monkeypatch, "learn", 2, "after"):  # rounds 0 and 1 are with the other process then, or done
        train(beside, home)
    done = train(beside, home)
    assert evaluated(home) == evaluated(finished.home)
    found = rows(home, "SELECT DISTINCT run_name, iteration FROM evaluations ORDER BY ALL")
    assert [row["iteration"] for row in found if row["run_name"] == "small"] == [-1, 0, 1, 2, 3]
    assert {row["run_name"] for row in found} == {"small", "small-evaluations"}
    again = train(beside, home)
    assert again.executed == () and done.run_id == again.run_id
    attempts = rows(home, "SELECT status FROM attempts WHERE run_name = 'small-evaluations' ORDER BY attempt")
    assert attempts[-1]["status"] == "completed"
