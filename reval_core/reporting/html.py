"""One self-contained HTML page about a run: no network, no scripts, everything escaped.

The page states its own content policy (nothing may load, only inline styles and embedded images),
so even a mistake in the template could not let a completion run code. Figures are embedded as
images, in which SVG cannot script.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class ReportData:
    """What a report says. Sections without content are left out of the page.

    Values may be any plain data: numbers are shown with four digits, None as a dash, mappings and
    lists as JSON.
    """

    run_name: str
    run_id: str
    created: str
    """Time in UTC, as it is to be shown."""
    facts: Sequence[tuple[str, Any]] = ()
    """(label, value): the few figures at the top."""
    summary: Sequence[tuple[str, Any, Any]] = ()
    """(label, before, after)."""
    figures: Sequence[tuple[str, str, str]] = ()
    """(title, caption, SVG document)."""
    samples: Sequence[Mapping[str, Any]] = ()
    """Each with question, gold, answer, completion, status, reward, iteration, details; a missing
    one is a dash."""
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[Any]]]] = ()
    """(title, column names, rows)."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration, flat: dotted key to value."""


def render_report(data: ReportData) -> str:
    """The page as text that can be written as UTF-8.

    Raises:
        ValueError: a row of a table is not as wide as its header.
    """
    for title, columns, rows in data.tables:
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"table {title!r} has {len(columns)} columns but a row of {len(row)} values")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # whatever the file is called
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(show=show, literal=literal, numeric=numeric, image=image)
    page = environment.get_template(TEMPLATE).render(data=data)
    return page.encode("utf-8", "replace").decode("utf-8")  # a completion may hold half a surrogate pair


def show(value: Any) -> str:
    """A value as text for people."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, Mapping | list | tuple):
        return literal(value)
    return str(value)


def literal(value: Any) -> str:
    """A setting exactly as JSON writes it: no digit is rounded away."""
    return json.dumps(value, ensure_ascii=False, default=str)


def numeric(value: Any) -> bool:
    """Whether a table cell stands to the right."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def image(svg: str) -> str:
    """The address of an SVG document that is its own content."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")
