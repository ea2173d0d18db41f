"""Reads configurations: YAML files, ``--set key.path=value``, and errors that name the nearest known key."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from reval_core import yaml_text
from reval_core.config import Config
from reval_core.errors import ConfigError


def load_config(path: Path | str, overrides: tuple[str, ...] | list[str] = ()) -> Config:
    """Read a YAML file and apply ``key.path=value`` overrides (values are read as YAML).

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, a value is out of its limits.
    """
    tree = read_tree(path)
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree, where=str(path))


def read_tree(path: Path | str) -> dict[str, Any]:
    """The raw tree of a YAML file.

    Raises:
        ConfigError: the file is missing, not YAML, or holds no mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        shipped = ", ".join(sorted(p.name for p in Path("configs").glob("*.yaml"))) or "none here"
        raise ConfigError(f"There is no configuration file {path}. In configs/: {shipped}.") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder; name a YAML file in it.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}. Save it as UTF-8.") from error
    tree = _read_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no mapping of keys to values at its top.")
    return tree


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one ``key.path=value`` in a raw tree, in place; list items are named by index.

    Raises:
        ConfigError: there is no ``=``, or the path runs through a value.
    """
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override!r}: write it as key.path=value, for example objective.beta=0.05.")
    set_value(tree, key.strip(), _read_yaml(text, f"--set {key}: the value"), "--set ")


def set_value(tree: dict[str, Any], key: str, value: Any, where: str = "") -> None:
    """Set ``key.path`` to a value in a raw tree, in place; list items are named by index.

    Raises:
        ConfigError: the path runs through a value; `where` stands before the key in the message.
    """
    *parents, last = key.split(".")
    node: Any = tree
    for parent in parents:
        place = _place(node, parent, where + key)
        if isinstance(node, dict):
            node.setdefault(place, {})
        node = node[place]
        if node is None:
            raise ConfigError(f"{where}{key}: {parent!r} is empty in the file.")
    node[_place(node, last, where + key)] = value


def _place(node: Any, part: str, key: str) -> Any:
    """Where a part of an override's path stands in the node: a key, or the index of an item that is there."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise ConfigError(f"{key}: {part!r} lies inside a value, not a section.")
    if not (part.isdigit() and int(part) < len(node)):
        raise ConfigError(f"{key}: {part!r} is no item of that list, which has {len(node)}, counted from 0.")
    return int(part)


def _read_yaml(text: str, what: str) -> Any:
    try:
        return yaml_text.read(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{what} is not YAML: {error}") from error


def parse_config(tree: dict[str, Any], where: str = "configuration") -> Config:
    """Validate a raw tree.

    Raises:
        ConfigError: one line for each wrong key or value, the nearest known key named.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ConfigError(f"{where} is not usable:\n" + "\n".join(f"  - {line}" for line in lines)) from error


def _explain(item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location) or "(top)"
    if item["type"] == "extra_forbidden":
        known = known_keys()
        name = re.sub(r"\.\d+\.", ".", key)
        # the same word in another section is a likelier slip than a similar word here
        same = [other for other in known if other.rsplit(".", 1)[-1] == location[-1]]
        near = same or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return f"unknown key {key!r}" + (f": did you mean {near[0]!r}?" if near else "")
    message = item["msg"].removeprefix("Value error, ")
    given = "" if item["type"] in ("missing", "value_error") else f" (given: {item['input']!r})"
    return f"{key}: {message}{given}" if location else message


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the tree; items of lists without their index."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        arguments = [a for a in getattr(inner, "__args__", ()) if isinstance(a, type)]
        nested = next((t for t in [inner, *arguments] if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if nested is not None:
            keys += known_keys(nested, f"{prefix}{name}.")
        keys.append(f"{prefix}{name}")
    return keys


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted key to the two values, for the settings in which two configurations differ; None where one has none."""
    keys = [*one, *(key for key in other if key not in one)]
    pairs = {key: (one.get(key), other.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
