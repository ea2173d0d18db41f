"""The page holds everything it was given, escaped, and loads nothing."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from reval_core.evaluation.metrics import Estimate
from reval_core.reporting.html import Answer, Interval, Page, Picture, Sample, Section, Table, render_page, show

HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\"' {{ 7 * 7 }} &amp;"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><script>alert(3)</script><text>inside</text></svg>'
VOID = {"meta", "img", "br"}


class Parsed(HTMLParser):
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


def sample(text: str = "plain", **changes: Any) -> Sample:
    whole: dict[str, Any] = {
        "completion": text,
        "status": text,
        "answer": text,
        "label": text,
        "facts": [(text, text), (text, {text: text})],
        "steps": [(text, text)],
    }
    return Sample(text, text, [Answer(**(whole | changes))], place=text)


def page(text: str = "plain", **changes: Any) -> Page:
    fields: dict[str, Any] = {
        "pictures": [Picture(text, text, SVG)],
        "tables": [Table(text, [text, "n"], [[text, 1]], note=text), Table(text, [text], [[text]], folded=True)],
        "samples": [(text, [sample(text)])],
        "settings": {text: text},
    }
    return Page(text, text, text, text, [(text, text)], [Section("One part", text, **(fields | changes))])


def test_nothing_hostile_becomes_markup() -> None:
    parsed, plain = Parsed(render_page(page(HOSTILE))), Parsed(render_page(page()))
    assert [tag for tag, _ in parsed.elements] == [tag for tag, _ in plain.elements]
    assert [sorted(a) for _, a in parsed.elements] == [sorted(a) for _, a in plain.elements]
    assert parsed.all("script") == [] and parsed.all("img") == []
    # Everything that was given is there to be read, as it was.
    assert "".join(parsed.text).count(HOSTILE) >= 26


def test_nothing_is_loaded_and_nothing_may_run() -> None:
    text = render_page(page())
    parsed = Parsed(text)
    links = [a.get(name) for _, a in parsed.elements for name in ("src", "href") if name in a]
    assert links
    assert all(link and link.startswith("#") for link in links)
    assert "url(" not in text.replace("url(#", "") and "@import" not in text
    assert [name for _, a in parsed.elements for name in a if name.startswith("on")] == []
    (policy,) = [m["content"] for m in parsed.all("meta") if "http-equiv" in m]
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'unsafe-inline';")


def test_figures_stand_in_the_page_with_a_text_for_those_who_cannot_see() -> None:
    parsed = Parsed(render_page(page(pictures=[Picture("Curve", "It rises.", SVG, "wide")])))
    (figure,) = parsed.all("svg")
    assert figure["aria-label"] == "Curve: It rises." and figure["role"] == "img"
    assert "inside" in parsed.text
    assert [f["class"] for f in parsed.all("figure")] == ["card wide"]


def test_contents_lead_to_the_sections_that_are_there() -> None:
    sections = [
        Section("First & last", tables=[Table("t", ["a"], [[1]])]),
        Section("Empty", "a note alone is nothing to read", samples=[("none", [])]),
        Section("Settings", settings={"a": 1}),
    ]
    parsed = Parsed(render_page(Page("kind", "name", "id", "now", sections=sections)))
    targets = [a["href"] for a in parsed.all("a")]
    assert targets == ["#first-last", "#settings"]
    assert [f"#{h['id']}" for h in parsed.all("h2")] == targets
    assert len(parsed.all("h1")) == len(parsed.all("main")) == len(parsed.all("nav")) == 1


def test_a_page_without_content() -> None:
    parsed = Parsed(render_page(Page("kind", "name", "run_1", "2026-01-02 03:04 UTC")))
    assert parsed.all("section") == [] and parsed.all("a") == [] and parsed.all("dl") == []
    assert "name" in parsed.text and "run_1" in parsed.text


def test_page_suits_phones_and_dark_rooms() -> None:
    text = render_page(page())
    metas = {m.get("name"): m.get("content") for m in Parsed(text).all("meta")}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["color-scheme"] == "light dark"
    light, dark = text.split("@media (prefers-color-scheme: dark)", 1)
    assert "--plot-2f6690: #2f6690;" in light and "--plot-2f6690: #7db3de;" in dark
    assert text.count("<table") == 3 and text.count('class="scroll" tabindex="0"><table') == 0
    assert text.count('<div class="scroll" tabindex="0">\n<table>') == 3


def test_known_statuses_have_a_colour_and_others_none() -> None:
    samples = [sample(status=status, label="") for status in ("timeout", "correct x", None)]
    chips = [s["class"] for s in Parsed(render_page(page(samples=[("", samples)]))).all("span") if "class" in s]
    assert [c for c in chips if c and c.startswith("chip")] == ["chip timeout", "chip ", "chip "]


def test_two_answers_stand_side_by_side() -> None:
    both = Sample("q", "g", [Answer("a", "correct", label="first"), Answer("b", "incorrect", label="second")])
    parsed = Parsed(render_page(page(samples=[("changed", [both])])))
    assert [d["class"] for d in parsed.all("div") if "answers" in (d.get("class") or "")] == ["answers several"]
    assert len(parsed.all("pre")) == 2


def test_a_sample_may_lack_anything() -> None:
    assert "—" in "".join(Parsed(render_page(page(samples=[("", [Sample(None, None, [Answer(None, None)])])]))).text)


def test_half_a_surrogate_pair_can_be_written() -> None:
    assert b"a?b" in render_page(page(samples=[("", [sample(completion="a\ud800b")])])).encode("utf-8")


def test_settings_are_exact() -> None:
    settings = {"run.seed": 123456789, "lr": 0.00012345678, "path": "a", "stop": ["<x>"], "r": None}
    text = "".join(Parsed(render_page(page(settings=settings))).text)
    for expected in ("123456789", "0.00012345678", '"a"', '["<x>"]', "null"):
        assert expected in text


def test_a_row_that_does_not_fit_its_header_is_refused() -> None:
    with pytest.raises(ValueError, match="'Ages' has 2 columns but a row of 1 values"):
        render_page(page(tables=[Table("Ages", ["a", "b"], [[1, 2], [3]])]))


def test_a_column_of_numbers_stands_to_the_right() -> None:
    assert Table("", ["a", "b", "c", "d"], [["x", 1, None, 1], ["y", 2.5, Interval(0.5), "z"]]).numbers == [
        False, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "text", "clear"),
    [
        (Interval(0.97, 0.95, 0.986), "0.970 [0.950, 0.986]", False),
        (Interval(0.5), "0.500 [not estimated]", False),
        (Interval(None), "not estimated", False),
        (Interval(0.1, -0.01, 0.2, signed=True), "+0.100 [-0.010, +0.200]", False),
        (Interval(-0.1, -0.2, -0.01, signed=True), "-0.100 [-0.200, -0.010]", True),
    ],
)
def test_intervals_are_given_as_they_are(interval: Interval, text: str, clear: bool) -> None:
    assert (str(interval), interval.clear) == (text, clear)


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
