"""The page holds everything it was given, escaped, and loads nothing."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from typing import Any

import pytest

from reval_core.evaluation.metrics import Estimate
from reval_core.reporting.html import ReportData, render_report, show

HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\"' {{ 7 * 7 }} &amp;"
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(3)</script></svg>'
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Elements, ids and visible text of a page; fails on tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def sample(**changes: Any) -> dict[str, Any]:
    whole = {
        "question": "1 + 1 = ?",
        "gold": "2",
        "answer": "2",
        "completion": "\\boxed{2}",
        "status": "correct",
        "reward": 1.0,
        "iteration": 3,
        "details": {"tier": "exact"},
    }
    return whole | changes


def report(text: str = "plain", **changes: Any) -> ReportData:
    fields: dict[str, Any] = {
        "run_name": text,
        "run_id": text,
        "created": text,
        "facts": [(text, text)],
        "summary": [(text, text, text)],
        "figures": [(text, text, SVG)],
        "samples": [sample(**dict.fromkeys(sample(), text)), sample(details={text: text})],
        "tables": [(text, [text, "n"], [[text, 1]])],
        "settings": {text: text},
    }
    return ReportData(**(fields | changes))


def test_nothing_hostile_becomes_markup() -> None:
    parsed, plain = Page(render_report(report(HOSTILE))), Page(render_report(report()))
    assert [tag for tag, _ in parsed.elements] == [tag for tag, _ in plain.elements]
    assert [sorted(a) for _, a in parsed.elements] == [sorted(a) for _, a in plain.elements]
    assert parsed.all("script") == []
    # Everything that was given is there to be read, as it was.
    assert "".join(parsed.text).count(HOSTILE) >= 18


def test_nothing_is_loaded_and_nothing_may_run() -> None:
    page = render_report(report())
    parsed = Page(page)
    links = [a.get(name) for _, a in parsed.elements for name in ("src", "href") if name in a]
    assert links
    assert all(link and link.startswith(("#", "data:image/svg+xml;base64,")) for link in links)
    assert "url(" not in page and "@import" not in page
    (policy,) = [m["content"] for m in parsed.all("meta") if "http-equiv" in m]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src" not in policy


def test_figures_are_embedded_whole_with_a_text_for_those_who_cannot_see() -> None:
    (image,) = Page(render_report(report(figures=[("Curve", "It rises.", SVG)]))).all("img")
    source = image["src"] or ""
    assert base64.b64decode(source.split(",", 1)[1]).decode() == SVG
    assert image["alt"] == "Curve: It rises."


def test_contents_lead_to_the_sections_that_are_there() -> None:
    parsed = Page(render_report(report()))
    targets = [a["href"] for a in parsed.all("a")]
    assert targets == ["#summary", "#figures", "#samples", "#tables", "#settings"]
    assert [f"#{h['id']}" for h in parsed.all("h2")] == targets
    assert len(parsed.all("h1")) == len(parsed.all("main")) == len(parsed.all("nav")) == 1


def test_sections_without_content_are_left_out() -> None:
    parsed = Page(render_report(ReportData("name", "run_1", "2026-01-02 03:04 UTC")))
    assert parsed.all("section") == [] and parsed.all("a") == [] and parsed.all("dl") == []
    assert "name" in parsed.text and "run_1" in parsed.text


def test_page_suits_phones_and_dark_rooms() -> None:
    page = render_report(report())
    metas = {m.get("name"): m.get("content") for m in Page(page).all("meta")}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["color-scheme"] == "light dark"
    assert "@media (prefers-color-scheme: dark)" in page
    assert "overflow-x: auto" in page
    tables = page.count("<table")
    assert tables == 3 and page.count('class="scroll"') + page.count('class="card scroll"') == 3


def test_known_statuses_have_a_colour_and_others_none() -> None:
    samples = [sample(status="timeout"), sample(status="correct x"), sample(status=None)]
    chips = [s["class"] for s in Page(render_report(report(samples=samples))).all("span")]
    assert [c for c in chips if c and c.startswith("chip")] == ["chip timeout", "chip ", "chip "]


def test_a_sample_may_lack_anything() -> None:
    assert "—" in "".join(Page(render_report(report(samples=[{}]))).text)


def test_half_a_surrogate_pair_can_be_written() -> None:
    page = render_report(report(samples=[sample(completion="a\ud800b")]))
    assert b"a?b" in page.encode("utf-8")


def test_settings_are_exact() -> None:
    settings = {"run.seed": 123456789, "lr": 0.00012345678, "path": "a", "stop": ["<x>"], "r": None}
    text = "".join(Page(render_report(report(settings=settings))).text)
    for expected in ("123456789", "0.00012345678", '"a"', '["<x>"]', "null"):
        assert expected in text


def test_a_row_that_does_not_fit_its_header_is_refused() -> None:
    with pytest.raises(ValueError, match="'Ages' has 2 columns but a row of 1 values"):
        render_report(report(tables=[("Ages", ["a", "b"], [[1, 2], [3]])]))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (True, "yes"),
        (False, "no"),
        (0.123456, "0.1235"),
        (1.0, "1"),
        (1234567.8, "1,234,568"),
        (9999, "9999"),
        (10240, "10,240"),
        ({"a": [1, "é"]}, '{"a": [1, "é"]}'),
        (Estimate(0.5, 0.4, 0.6), "0.500 [0.400, 0.600]"),
        ("as it is", "as it is"),
    ],
)
def test_values_read_well(value: object, text: str) -> None:
    assert show(value) == text
