"""Grading stored responses again: nothing is sampled, old verdicts stay, and a second time does nothing."""

import io
from contextlib import nullcontext

import pytest
from rich.console import Console
from small_run import BATCH, ROUNDS, Finished, Reval, rows, sampled, value

import flows.closing
import flows.rescore
import flows.terminal
from flows.choosing import reward_of, whole_names
from flows.rescore import Rescored
from reval_core.home import Home
from reval_core.store import Store
from tasks.progress import Progress


def rescored(home: Home, what: str, *overrides: str) -> Rescored:
    what = whole_names(home, what)
    return flows.rescore.rescore.fn(reward_of(home, what, None, overrides), home, Progress(quiet=True), what, {})


def test_another_verifier_adds_verdicts_and_keeps_the_old_ones(
    copied: Home, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(copied, "SELECT * FROM store.verdicts ORDER BY ALL")
    with sampled(monkeypatch) as seen:
        found = rescored(copied, f"run:{finished.outcome.run_id[:7]}", "reward.extraction=lenient")
    assert seen == []
    assert (found.responses, found.graded) == (ROUNDS * BATCH, ROUNDS * BATCH)
    assert sum(found.statuses.values()) == ROUNDS * BATCH
    after = rows(copied, "SELECT * FROM store.verdicts ORDER BY ALL")
    assert len(after) == len(before) + ROUNDS * BATCH
    assert [row for row in after if row["verifier_id"] != found.verifier_id] == before
    again = rescored(copied, f"run:{finished.outcome.run_id}", "reward.extraction=lenient")
    assert (again.verifier_id, again.graded, again.statuses) == (found.verifier_id, 0, found.statuses)


def test_the_run_s_own_verifier_has_nothing_to_do(copied: Home, finished: Finished) -> None:
    found = rescored(copied, f"window:{finished.outcome.run_id}")
    assert (found.responses, found.graded, found.changed) == (2 * BATCH, 0, {})


def test_a_mended_gold_answer_flips_a_verdict_and_says_so(copied: Home, finished: Finished) -> None:
    run = finished.outcome.run_id
    wrong = (
        "SELECT problem_id, any_value(answer) AS answer FROM run_trajectories WHERE run_id = $run "
        "AND status = 'incorrect' AND answer IS NOT NULL GROUP BY problem_id ORDER BY problem_id LIMIT 1"
    )
    (row,) = rows(copied, wrong, run=run)
    with Store(copied.database).write() as connection:
        connection.execute(
            "INSERT INTO store.golds SELECT $problem_id, 'gld_mended', $answer, now(), now() + INTERVAL 1 HOUR", row
        )
    found = rescored(copied, f"run:{run}")
    asked = value(
        copied,
        "SELECT count(*) FROM run_trajectories WHERE run_id = $run AND problem_id = $problem",
        run=run,
        problem=row["problem_id"],
    )
    assert found.graded == asked
    assert value(copied, "SELECT gold FROM problems WHERE problem_id = $p", p=row["problem_id"]) == row["answer"]
    assert sum(now == "correct" for _, now in found.changed) <= 1


def test_the_command_prints_statuses_and_changes(copied: Home, reval: Reval, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVAL_HOME", str(copied.root))
    monkeypatch.setattr(flows.terminal, "prefect_server", lambda home, meanwhile: nullcontext())
    monkeypatch.setattr(flows.rescore, "rescore", flows.rescore.rescore.fn)
    code, out, err = reval("rescore", "run:small", "--set", "reward.extraction=lenient")
    assert (code, err) == (0, "")
    assert "32 responses, 32 graded now by ver_" in out
    code, _, err = reval("rescore", "run:nobody")
    assert (code, "There is no run nobody" in err) == (1, True)
    code, _, err = reval("rescore", "SELECT 1 AS n")
    assert (code, "must give a column trajectory_id" in err) == (1, True)


def test_what_changed_is_shown_with_examples(copied: Home, finished: Finished) -> None:
    run = finished.outcome.run_id
    with Store(copied.database).write() as connection:  # an older verifier that found everything wrong
        connection.execute(
            "UPDATE store.verdicts SET status = 'incorrect', reward = 0, details = 'an older rule', "
            "verifier_id = 'ver_older'"
        )
    found = rescored(copied, f"run:{run}")
    right = value(
        copied, "SELECT count(*) FROM store.verdicts WHERE verifier_id = $v AND status = 'correct'", v=found.verifier_id
    )
    assert right > 0
    assert found.changed == {("incorrect", "correct"): right} | {
        kind: count for kind, count in found.changed.items() if kind[1] != "correct"
    }
    kinds = {(change.status_before, change.status) for _, change in found.examples}
    assert kinds == set(found.changed)
    for gold, change in found.examples:
        assert change.status != "correct" or change.answer == gold
    console = Console(width=140, file=io.StringIO())
    flows.closing.show_rescored(found, console)
    text = console.file.getvalue()
    gold, change = next(pair for pair in found.examples if pair[1].status == "correct")
    assert "for example: gold" in text
    assert f"{right:,}" in text
    assert change.details in text
