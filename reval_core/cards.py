"""What the pages of exported data sets and policies have in common: the hub's header, tables, names told to others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from reval_core import yaml_text


def header(values: Mapping[str, Any]) -> list[str]:
    """The lines of YAML that the hub reads."""
    return ["---", yaml_text.write(dict(values)).rstrip(), "---", ""]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown; nothing in a cell ends it."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]


def is_place(path: str) -> bool:
    """Whether it is a file or a folder, and no name of the hub's or a built-in one."""
    return path.startswith(("/", ".", "~", "$"))


def named(path: str) -> str:
    """Of a file its name, since its place on one machine tells others nothing; another name as it is."""
    return PurePath(path).name if is_place(path) else path
