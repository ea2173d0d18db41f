"""The verdict of benchmarks/quickstart.py: the bar that the quickstart's accuracy is held against."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "quickstart.py"))


def summary(before: str, after: str) -> dict[str, tuple[str, str]]:
    return {"arithmetic avg@4": (before, after), "arithmetic-train avg@4": ("0.1", "0.1")}


@pytest.mark.parametrize(
    ("before", "after"), [("0.266 [0.238, 0.293]", "0.970 [0.950, 0.986]"), ("0.200", "0.900"), ("0.400", "1.000")]
)
def test_a_run_within_the_bar_misses_nothing(before: str, after: str) -> None:
    assert SCRIPT["misses"](summary(before, after)) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("0.199 [0.1, 0.3]", "0.950", ["is 0.199 before, the bar is 0.20 to 0.40"]),
        ("0.401", "0.950", ["is 0.401 before"]),
        ("0.300", "0.899 [0.8, 0.95]", ["is 0.899 after, the bar is at least 0.90"]),
        ("0.500", "0.500", ["before", "after"]),
        ("0.300", "nan", ["after"]),
        ("0.300", "", ["no arithmetic avg@4"]),
    ],
)
def test_each_miss_is_said(before: str, after: str, words: list[str]) -> None:
    found = SCRIPT["misses"](summary(before, after))
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


def ended(results: dict[int, tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """How the program ends when its runs give these values by seed."""

    def run(seed: int, home: Path, overrides: list[str]) -> tuple[dict[str, Any], float]:
        (home / "models").mkdir(parents=True, exist_ok=True)
        rows = [[name, *cells] for name, cells in summary(*results[seed]).items()]
        return {"summary": rows, "run_id": f"quickstart-{seed}"}, 1.0

    main = SCRIPT["main"]
    monkeypatch.setitem(main.__globals__, "run", run)
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--seeds", *map(str, results)])
    try:
        main()
    except SystemExit as leave:
        return leave.code
    return 0


def test_the_program_fails_when_one_seed_misses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended({0: ("0.3", "0.97"), 1: ("0.3", "0.95")}, monkeypatch) == 0
    assert "the bar is met by 2 of 2 seeds" in capsys.readouterr().out
    code = ended({0: ("0.3", "0.97"), 1: ("0.3", "0.50")}, monkeypatch)
    assert isinstance(code, str)  # printed to stderr, exit code 1
    assert "seed 1: arithmetic avg@4 is 0.500 after" in code
    assert "seed 0" not in code
