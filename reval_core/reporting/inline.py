"""A figure as part of a page: its colours follow the page's light or dark, its letters are the page's own.

matplotlib writes an SVG document with fixed colours. Here it is written anew from what a figure needs and nothing else:
known elements and attributes, known properties of style with harmless values, ids that are unique in the page. So
whatever a text in a figure may hold, nothing in it can run, load or leave the figure.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from markupsafe import Markup, escape

from reval_core.reporting.canvas import DARK

SHAPES = {"g", "defs", "path", "use", "clipPath", "rect", "text", "tspan"}
ATTRIBUTES = {"d", "x", "y", "width", "height", "transform"}
STYLE = {
    "fill",
    "fill-opacity",
    "stroke",
    "stroke-opacity",
    "stroke-width",
    "stroke-dasharray",
    "stroke-dashoffset",
    "stroke-linecap",
    "stroke-linejoin",
    "opacity",
    "font-size",
    "font-weight",
    "text-anchor",
}
_HARMLESS = re.compile(r"[#\w.,% -]+")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_CLIP = re.compile(r"url\(#([\w-]+)\)")
_SHORTHAND = re.compile(r"(?:(\d+|bold) )?([\d.]+px) .*", re.DOTALL)


def inline_svg(svg: str, name: str, label: str) -> Markup:
    """An SVG document of matplotlib as an element of a page.

    Args:
        svg: the document, best with letters left text (`figure_svg(figure, text="none")`).
        name: letters, digits and dashes; unique in the page, so that ids of two figures stay apart.
        label: what the figure shows, for those who do not see it.

    Raises:
        ValueError: it is no SVG document with a view box.
    """
    root = ET.fromstring(svg)
    box = re.fullmatch(r"[\d. -]+", root.get("viewBox", ""))
    if _tag(root) != "svg" or box is None:
        raise ValueError(f"the figure {name!r} is no SVG document with a view box")
    inner = "".join(part for child in root for part in _element(child, name))
    head = f'<svg class="plot" viewBox="{box.group()}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{inner}</svg>")


def palette() -> list[tuple[str, str, str]]:
    """(name of the CSS variable, light colour, dark colour) of every colour that figures use."""
    return [(_variable(light), light, dark) for light, dark in DARK.items()]


def _element(element: ET.Element, name: str) -> Iterator[str]:
    tag = _tag(element)
    if tag not in SHAPES:
        return
    attributes = "".join(f' {key}="{escape(value)}"' for key, value in _attributes(element, name))
    yield f"<{tag}{attributes}>{escape((element.text or '').strip() if tag != 'text' else element.text or '')}"
    for child in element:
        yield from _element(child, name)
    yield f"</{tag}>"


def _attributes(element: ET.Element, name: str) -> Iterator[tuple[str, str]]:
    for full, value in element.attrib.items():
        key = full.rpartition("}")[2]
        if key in ATTRIBUTES:
            yield key, " ".join(value.split())
        elif key == "id" and _tag(element) != "g":  # groups are never referred to
            yield key, f"{name}-{value}"
        elif key == "href" and value.startswith("#"):
            yield key, f"#{name}-{value[1:]}"
        elif key == "clip-path" and (clip := _CLIP.fullmatch(value)):
            yield key, f"url(#{name}-{clip[1]})"
        elif key == "style" and (style := ";".join(_style(value))):
            yield key, style


def _style(text: str) -> Iterator[str]:
    for part in text.split(";"):
        key, _, value = (piece.strip() for piece in part.partition(":"))
        shorthand = _SHORTHAND.fullmatch(value) if key == "font" else None
        if shorthand:  # as older versions of matplotlib write it
            yield f"font-size:{shorthand[2]}"
            if shorthand[1]:
                yield f"font-weight:{shorthand[1]}"
        elif key in STYLE and _HARMLESS.fullmatch(value):
            yield f"{key}:{_COLOUR.sub(_themed, value)}"


def _themed(colour: re.Match[str]) -> str:
    return f"var({_variable(colour.group())})" if colour.group() in DARK else colour.group()


def _variable(colour: str) -> str:
    return f"--plot-{colour[1:]}"


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
