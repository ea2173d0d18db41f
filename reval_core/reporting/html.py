"""One self-contained HTML page: no network, no scripts, everything escaped, for light and dark, desk and phone.

A page is data: sections of pictures, tables, samples and settings. It states its own content policy (nothing may load,
only inline styles), so even a mistake in the template could not let a completion run code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reval_core.reporting.inline import inline_svg, palette

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Picture:
    """A figure with its heading and what it says."""

    title: str
    caption: str
    svg: str
    width: Literal["half", "hero", "wide"] = "half"
    """Two halves stand side by side; a hero stands alone, no larger than it reads well; wide fills the page."""


@dataclass(frozen=True)
class Interval:
    """A cell of a table: an estimate with the ends of its 95 % interval; None where nothing could be estimated."""

    value: float | None
    low: float | None = None
    high: float | None = None
    signed: bool = False
    """A difference, shown with its sign."""
    digits: int = 3
    alone: bool = False
    """A figure of others, who give no interval."""

    def __str__(self) -> str:
        """``0.970 [0.950, 0.986]``."""
        return f"{self.shown} {self.between}".strip()

    @property
    def shown(self) -> str:
        """The estimate alone."""
        return "not estimated" if self.value is None else self._number(self.value)

    @property
    def between(self) -> str:
        """The ends."""
        if self.value is None or self.alone:
            return ""
        if self.low is None or self.high is None:
            return "[not estimated]"
        return f"[{self._number(self.low)}, {self._number(self.high)}]"

    @property
    def clear(self) -> bool:
        """Whether it is a difference whose interval does not hold 0."""
        return self.signed and self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def _number(self, value: float) -> str:
        return f"{value:{'+' if self.signed else ''}.{self.digits}f}"


@dataclass(frozen=True)
class Table:
    """Rows under a heading. Values may be any plain data; see `show`."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    folded: bool = False
    """Shown only when the reader opens it."""
    half: bool = False
    """Two stand side by side where there is room."""

    @property
    def numbers(self) -> list[bool]:
        """Of each column whether it holds numbers and nothing else, and so stands to the right."""
        cells: list[list[Any]] = [[] for _ in self.columns]
        for row in self.rows:
            for column, value in zip(cells, row, strict=True):
                if value is not None:
                    column.append(value)
        return [bool(column) and all(map(numeric, column)) for column in cells]


@dataclass(frozen=True)
class Answer:
    """A completion and what the verifier said."""

    completion: str | None
    status: str | None
    answer: str | None = None
    label: str = ""
    """Whose it is, where a sample has several."""
    facts: Sequence[tuple[str, Any]] = ()
    """(label, value), such as reward and length."""
    steps: Sequence[tuple[str, str]] = ()
    """The verifier's path: (tier, what it said)."""


@dataclass(frozen=True)
class Sample:
    """A problem and one answer to it, or several side by side."""

    question: str | None
    gold: str | None
    answers: Sequence[Answer]
    place: str = ""
    """Where it is from, such as ``round 7``."""


@dataclass(frozen=True)
class Section:
    """A part of the page; one without content is left out."""

    title: str
    note: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    samples: Sequence[tuple[str, Sequence[Sample]]] = ()
    """(heading, samples)."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key to value, shown exactly."""

    @property
    def anchor(self) -> str:
        """What the contents link to."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        shown = (self.pictures, self.tables, self.settings, [s for _, s in self.samples if s])
        return not any(len(part) for part in shown)


@dataclass(frozen=True)
class Page:
    """What a page says."""

    kind: str
    """The line above the title, such as ``ReVal run report``."""
    title: str
    identity: str
    """The line below it: an id."""
    created: str
    """Time in UTC, as it is to be shown."""
    facts: Sequence[tuple[str, Any]] = ()
    """(label, value): the few figures at the top."""
    sections: Sequence[Section] = ()


def render_page(page: Page) -> str:
    """The page as text that can be written as UTF-8.

    Raises:
        ValueError: a row of a table is not as wide as its header.
    """
    for table in (table for section in page.sections for table in section.tables):
        for row in table.rows:
            if len(row) != len(table.columns):
                raise ValueError(
                    f"table {table.title!r} has {len(table.columns)} columns but a row of {len(row)} values"
                )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # whatever the file is called
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(show=show, literal=literal)
    environment.tests.update(interval=_is_interval)
    environment.globals.update(plot=_plot, palette=palette())
    shown = [section for section in page.sections if not section.empty]
    text = environment.get_template(TEMPLATE).render(page=page, sections=shown)
    return text.encode("utf-8", "replace").decode("utf-8")  # a completion may hold half a surrogate pair


def _plot(section: Section, number: int, picture: Picture) -> Markup:
    return inline_svg(picture.svg, f"{section.anchor}-{number}", f"{picture.title}: {picture.caption}")


def show(value: Any) -> str:
    """A value as text for people: numbers with four digits, None as a dash, mappings and lists as JSON."""
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
    """Whether a table cell is a number."""
    return isinstance(value, int | float | Interval) and not isinstance(value, bool)


def _is_interval(value: Any) -> bool:
    return isinstance(value, Interval)
