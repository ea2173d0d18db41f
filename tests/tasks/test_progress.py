"""Progress without a terminal: lines that say what happens, and not too many of them."""

from __future__ import annotations

import pytest

import tasks.progress
from tasks.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that progress sees, in its one item."""
    now = [0.0]
    monkeypatch.setattr(tasks.progress.time, "monotonic", lambda: now[0])
    return now


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_work_is_named_when_it_is_first_seen_and_then_every_ten_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress() as progress:
        for done in range(1, 6):
            progress.step("learning again", done, 5)
            clock[0] += 6
        for done in range(1, 6):
            progress.step("learning again", done, 5)
    assert lines(capsys) == ["  learning again: 1 of 5", "  learning again: 3 of 5"]


def test_work_that_is_quick_is_not_told_twice(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        for name in ("generate", "generate", "learning again", "generate"):
            for done in range(1, 4):
                progress.step(name, done, 3)
                clock[0] += 1
    assert lines(capsys) == ["  generate: 1 of 3", "  learning again: 1 of 3"]


def test_waiting_says_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress, progress.waiting("loading libraries"):
        pass
    assert lines(capsys) == []


def test_a_round_is_one_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.start_rounds(30, 5)
        clock[0] = 30.0
        progress.metrics(5, "accuracy 0.500", None, 1.25)
        progress.end_round(5)
    assert lines(capsys) == ["iteration   5 of 30  accuracy 0.500  residual -  staleness 1.2  2.0 rounds/min"]


def test_text_of_others_is_said_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.say(":boom: [red]x[/]")
    assert lines(capsys) == [":boom: [red]x[/]"]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(quiet=True) as progress:
        progress.say("x")
        progress.step("generate", 1, 3)
    assert lines(capsys) == []


def test_names_of_others_give_the_terminal_no_orders(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.say("evaluating a\x1b[2Jb")
        progress.step("importing c\x07.jsonl", 1, 2)
    assert capsys.readouterr().out == "evaluating a\\x1b[2Jb\n  importing c\\x07.jsonl: 1 of 2\n"
