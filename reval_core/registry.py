"""The one way to extend ReVal: a registered name, or ``package.module:attribute``."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, TypeVar

from reval_core.errors import ConfigError

T = TypeVar("T")


def resolve(kind: str, name: str, registered: Mapping[str, T]) -> T | Any:
    """Find an objective, reward, engine, draw or benchmark by its name.

    Args:
        kind: what is looked for, used in messages ("objective", "engine", ...).
        name: a registered name, or ``package.module:attribute`` of the user's own code.
        registered: the built-in ones by name.

    Raises:
        ConfigError: nothing has that name; the message names the nearest registered one.
    """
    if name in registered:
        return registered[name]
    module_name, _, attribute = name.partition(":")
    if not (module_name and attribute) or module_name.startswith("."):
        near = difflib.get_close_matches(name, registered, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        known = ", ".join(sorted(registered))
        own = "the path of a problem file" if kind == "benchmark" else "your own as 'package.module:attribute'"
        raise ConfigError(f"Unknown {kind} {name!r}.{hint} Known: {known}; or give {own}.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The {kind} {name!r} names a module that cannot be imported ({error}). Is its folder on PYTHONPATH?"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise ConfigError(f"The {kind} {name!r}: module {module_name!r} has no {attribute!r}.") from error
