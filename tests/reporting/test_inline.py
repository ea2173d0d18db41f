"""A figure within a page: only what a figure needs, colours of the page, ids of its own."""

import xml.etree.ElementTree as ET

import pytest

from reval_core.reporting.canvas import DARK, figure_svg
from reval_core.reporting.inline import inline_svg, palette
from reval_core.reporting.plots import learning_curve

ROUNDS = {"iteration": [0, 1], "accuracy": [0.2, 0.4], "reward_mean": [0.2, 0.4]}
POINTS = {"learned": [0, 2], "value": [0.3, 0.6], "low": [0.2, 0.5], "high": [0.4, 0.7]}


def drawn(text: str = "bench, avg@4") -> str:
    return figure_svg(learning_curve(ROUNDS, POINTS, evaluated=text), text="none")


def test_a_figure_keeps_its_shapes_and_letters() -> None:
    before, after = ET.fromstring(drawn()), ET.fromstring(inline_svg(drawn(), "one", "a curve"))
    assert after.get("viewBox") == before.get("viewBox") and after.get("aria-label") == "a curve"
    shapes = [[e.tag.rpartition("}")[2] for e in root.iter()] for root in (before, after)]
    for tag in ("path", "use", "text", "clipPath"):
        assert shapes[0].count(tag) == shapes[1].count(tag) > 0
    assert "bench, avg@4 and 95 % interval" in [e.text for e in after.iter("text")]


def test_colours_are_the_pages_and_every_one_has_a_dark_one() -> None:
    text = str(inline_svg(drawn(), "one", ""))
    used = {part for part in DARK if f"var(--plot-{part[1:]})" in text}
    assert {"#2f6690", "#dba556", "#ffffff"} <= used
    assert "#" not in text.replace('href="#one-', "").replace("url(#one-", "")
    assert {(name, light) for name, light, _ in palette()} == {(f"--plot-{c[1:]}", c) for c in DARK}


def test_ids_of_two_figures_stay_apart() -> None:
    ids = [{e.get("id") for e in ET.fromstring(inline_svg(drawn(), name, "")).iter() if e.get("id")} for name in "ab"]
    assert ids[0] and not ids[0] & ids[1]
    text = str(inline_svg(drawn(), "a", ""))
    assert all(f'id="{part.split(chr(34))[0]}"' in text for part in text.split('href="#')[1:])


def test_nothing_else_comes_through() -> None:
    hostile = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:x="http://www.w3.org/1999/xlink" viewBox="0 0 9 9">
      <script>alert(1)</script><style>* {display: none}</style><image x:href="http://evil/x.png"/>
      <foreignObject><body onload="alert(2)"/></foreignObject>
      <a x:href="javascript:alert(3)"><text>lost</text></a>
      <use x:href="http://evil/x.svg#a"/>
      <path d="M 0 0" onclick="alert(4)" style="fill: url(http://evil); stroke: red"/>
      <text style="font: 700 11px 'X'" x="1">&lt;script&gt; --&gt;</text></svg>"""
    text = str(inline_svg(hostile, "one", '"><script>'))
    for lost in ("alert", "evil", "display", "javascript", "onclick", "<script", "foreignObject", "lost", "image"):
        assert lost not in text
    assert '<path d="M 0 0" style="stroke:red">' in text
    assert '<text style="font-size:11px;font-weight:700" x="1">&lt;script&gt; --&gt;</text>' in text


def test_a_benchmark_of_any_name_can_be_in_the_legend() -> None:
    root = ET.fromstring(inline_svg(drawn("</text><script>alert(1)</script> --> &"), "one", ""))
    assert [e for e in root.iter() if e.tag.endswith("script")] == []
    assert any("</text><script>alert(1)" in (e.text or "") for e in root.iter("text"))


def test_what_is_no_figure_is_refused() -> None:
    with pytest.raises(ValueError, match="'one' is no SVG"):
        inline_svg("<svg xmlns='http://www.w3.org/2000/svg'/>", "one", "")
