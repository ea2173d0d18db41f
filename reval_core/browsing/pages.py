"""The pages as HTML: Jinja's templates of this folder, everything escaped, and the filters that they use."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from reval_core.browsing.filters import PURPOSES, SORTS, STATUSES
from reval_core.reporting.html import literal, numeric, show

FOLDER = Path(__file__).parent
CELL = 300
"""Characters of a cell of a table."""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,  # whatever the file is called
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(show=show, numeric=numeric, literal=literal, short=short, when=when, cell=cell, at=at)
    environment.globals.update(SORTS=SORTS, STATUSES=STATUSES, PURPOSES=PURPOSES, to=to)
    return environment


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page of a template; half surrogate pairs, which a completion may hold, become question marks."""
    text = _environment().get_template(f"{template}.html.j2").render(**values)
    return HTMLResponse(text.encode("utf-8", "replace"), status)


def to(path: str, /, *parts: str, **query: Any) -> str:
    """An address of this server: its parts and the values of its query quoted, None and empty ones left out."""
    place = "/".join([path.rstrip("/"), *(quote(part, safe="") for part in parts)]) or "/"
    said = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{place}?{urlencode(said)}" if said else place


def short(name: str | None) -> str:
    """An id as its prefix and first digits."""
    if name is None:
        return "—"
    kind, line, digits = name.rpartition("_")
    return f"{kind}{line}{digits[:10]}" if len(digits) == 32 else name


def when(moment: datetime | None) -> str:
    """A time in UTC to the minute."""
    return "—" if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def at(row: Mapping[str, Any]) -> str:
    """Which policy a row names, for people: of which round of which run."""
    if row["kind"] == "base":
        return "base model"
    if row["iteration"] is None:
        return str(row["kind"] or "a policy")
    return f"after round {row['iteration']} of {row['run_id']}"


def cell(value: Any) -> str:
    """A value of a table on one line, cut where it is long."""
    text = when(value) if isinstance(value, datetime) else show(value)
    return text if len(text) <= CELL else f"{text[:CELL]}…"
