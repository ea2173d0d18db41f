"""The named queries as forms: which parameters each takes, and what may be put into them.

Nothing but a file of ``sql/queries`` is run. SQL of others is for `reval sql`: a read-only connection may still read
and write files, which no address that another page can lead to should be able to ask for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from reval_core.browsing.reads import NotThere
from reval_core.errors import ConfigError
from reval_core.store.sqlfiles import description, query_names, query_text

WHOLE_NUMBERS = ("update",)
"""Parameters that are whole numbers; the others are texts, such as ids."""
_SETTING = re.compile(r"\w+(?:\.\w+)*")
MOST_CHARACTERS = 500
"""Of a parameter."""


@dataclass(frozen=True)
class Question:
    """A named query."""

    name: str
    about: str
    """The comment at the head of its file."""
    parameters: tuple[str, ...]

    def values(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """Parameters out of an address; one that was left empty is not given.

        Raises:
            ConfigError: the query has no such parameter, or it cannot have this value.
        """
        unknown = sorted(set(asked) - set(self.parameters))
        if unknown:
            takes = ", ".join(self.parameters) or "nothing"
            raise ConfigError(f"{self.name} has no parameter {unknown[0][:50]!r}; it takes {takes}.")
        return {name: self._value(name, text.strip()) for name, text in asked.items() if text.strip()}

    def _value(self, name: str, text: str) -> Any:
        if len(text) > MOST_CHARACTERS:
            raise ConfigError(f"{name} has {len(text)} characters; {MOST_CHARACTERS} are allowed.")
        if name in WHOLE_NUMBERS:
            if not re.fullmatch(r"\d{1,9}", text):
                raise ConfigError(f"{name} = {text!r}: expected a whole number.")
            return int(text)
        if name == "setting" and not _SETTING.fullmatch(text):
            raise ConfigError(f"{name} = {text!r}: expected the dotted key of a setting, as objective.beta.")
        return text


def questions() -> list[Question]:
    """All named queries."""
    return [question(name) for name in query_names()]


def question(name: str) -> Question:
    """The query of that name.

    Raises:
        NotThere: there is none.
    """
    if name not in query_names():
        raise NotThere(f"There is no query {name[:100]!r}. Known: {', '.join(query_names())}.")
    text = query_text(name)
    return Question(name, description(text), tuple(sorted(duckdb.extract_statements(text)[0].named_parameters)))
