"""What the README shows is there: make's targets, files, the reward example, the configuration snippet.

Its `reval` lines and its SQL are run by tests/flows/test_documented_commands.py.
"""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml

from reval_core.config import ProblemSource
from reval_core.problems import Problem, ask
from reval_core.verification import Grader

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_make_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    shown = " ".join(blocks("bash") + re.findall(r"`(make [a-z]+)`", README))
    named = set(re.findall(r"make ([a-z]+)\b", shown))
    assert {"train", "test"} <= named <= targets


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as links name them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_linked_and_named_files_exist():
    links = [link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert [anchor for page, _, anchor in links if anchor and anchor not in headings(ROOT / page)] == []
    links = [page for page, _, _ in links]
    names = re.findall(r"`((?:configs|examples|constraints|sql)/[\w.\-/]+)`", README)
    assert links
    missing = [name for name in links + names if not (ROOT / name).exists()]
    assert missing == []


def test_problem_snippet_is_a_valid_source():
    (snippet,) = blocks("yaml")
    for source in yaml.safe_load(snippet)["problems"]:
        read = ProblemSource(**source)
        assert (read.fields, read.weight) == ({"question": "prompt", "answer": "solution"}, 2)


def test_reward_example_is_the_shipped_file_and_runs(monkeypatch):
    (shown,) = blocks("python")
    path = ROOT / "examples" / "length_reward.py"
    assert shown.strip() == path.read_text(encoding="utf-8").strip()
    assert len(shown.strip().splitlines()) < 20
    score = runpy.run_path(str(path))["near"]
    problem = Problem(ask("What colour is the sky?"), gold="")
    assert score(problem, ["x" * 20, "x" * 15, "x" * 99]) == pytest.approx([1.0, 0.75, -1.0])
    monkeypatch.setenv("PYTHONPATH", str(path.parent))
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    with Grader("length_reward:near", {"characters": 7}, workers=1, timeout_s=10) as grader:
        (verdict,) = grader.grade_batch([(problem, "the sky")])
    assert (verdict.status, verdict.reward) == ("correct", pytest.approx(1.0))
