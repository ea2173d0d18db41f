"""The pages of a run and of a comparison, from a store whose completions, questions and answers are hostile."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from small_run import ROUNDS, Finished, rows

from reval_core.home import Home
from reval_core.reporting.html import render_page
from reval_core.store import Store
from tasks.compare import compare
from tasks.compare_page import write_comparison
from tasks.open_run import open_run
from tasks.progress import Progress
from tasks.references import Evaluated
from tasks.report_page import page_of

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} \\boxed{<svg onload=alert(3)>}"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def harmless(page: str) -> Tags:
    parsed = Tags(page)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "img", "iframe", "object", "link", "base"})
    assert [key for _, attributes in parsed.tags for key in attributes if key.startswith("on")] == []
    assert "http://" not in page and "https://" not in page
    return parsed


@pytest.fixture
def hostile(finished: Finished, copied: Home) -> Home:
    with Store(copied.database).write() as connection:
        values = {"text": HOSTILE}
        connection.execute("UPDATE store.payloads SET completion = $text", values)
        connection.execute("UPDATE store.problems SET question = $text", values)
        connection.execute("UPDATE store.verdicts SET answer = $text, details = $text", values)
        connection.execute("UPDATE store.golds SET gold = $text", values)
    return copied


def test_the_page_of_a_run(finished: Finished, hostile: Home) -> None:
    with open_run(finished.config, hostile, progress=Progress(quiet=True)) as run:
        page = page_of(run, [])
    sections = {section.title: section for section in page.sections}
    shown = [sample for _, samples in sections["Samples"].samples for sample in samples]
    assert shown
    assert {sample.answers[0].completion for sample in shown} == {HOSTILE}
    assert shown[0].answers[0].steps[0][0] == "gold"
    assert len({sample.place for sample in shown}) == 1  # the newest round alone
    (table,) = sections["Before and after"].tables
    assert [row[0] for row in table.rows][:3] == ["avg@2", "maj@2", "pass@2"]
    assert [row[0] for row in table.rows if row[3] is not None] == ["avg@2", "maj@2", "pass@2"]
    stages = {row[0]: row[1] for row in sections["Resources"].tables[0].rows}
    assert stages["learn"] == stages["generate"] == ROUNDS and stages["evaluate"] == 2
    changed = {row[0]: row[1:] for row in sections["Settings"].tables[0].rows}
    assert changed["objective.beta"] == ["0.002", "0.05"] and "run.seed" not in changed
    parsed = harmless(render_page(page))
    assert parsed.text.count(HOSTILE) >= len(shown)


def test_the_page_of_a_comparison(finished: Finished, hostile: Home) -> None:
    found = rows(
        hostile,
        "SELECT DISTINCT iteration, evaluation_id, policy_id, benchmark FROM evaluations WHERE run_id = $run "
        "ORDER BY iteration",
        run=finished.outcome.run_id,
    )
    sides = [[Evaluated(row["evaluation_id"], row["policy_id"], row["benchmark"], {})] for row in found]
    compared = compare(hostile, *sides)
    page = write_comparison(hostile, *sides, compared)
    assert page == write_comparison(hostile, *sides, compared)
    assert page.parent.parent == hostile.reports / "comparisons"
    parsed = harmless(page.read_text(encoding="utf-8"))
    assert f"{finished.outcome.run_id} after {ROUNDS} rounds" in parsed.text and "base tiny" in parsed.text
    assert len([tag for tag, _ in parsed.tags if tag == "svg"]) == 2
    if any(row.difference.value for row in compared):
        assert HOSTILE in parsed.text
    assert Path(found[0]["benchmark"]).name in parsed.text
