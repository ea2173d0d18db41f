"""YAML as people write it today: 1e-6 is a number (YAML 1.1 takes it for text), "1e-6" in quotes is text."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

_MERGE = "tag:yaml.org,2002:merge"
_FLOAT = "tag:yaml.org,2002:float"
_SCIENTIFIC = re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$")


class _Loader(yaml.SafeLoader):
    """Plain data only; no tag makes an object. A key that stands twice is an error: YAML would take the last alone."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The mapping as it is written, before what it merges (``<<``), which it may override, is put in."""
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if (key.tag, key.value) in seen:
                raise ConstructorError(
                    "while reading a mapping", node.start_mark, f"found the key {key.value!r} twice", key.start_mark
                )
            seen.add((key.tag, key.value))
        return node


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back as it was."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_FLOAT, _SCIENTIFIC, list("-+0123456789"))


def read(text: str) -> Any:
    """The data of a YAML text.

    Raises:
        yaml.YAMLError: it is none, or a mapping has a key twice.
        ValueError, RecursionError: a number of thousands of digits, or lists without end.
    """
    return _Loader(text).get_single_data()


def write(tree: Any) -> str:
    """The data as YAML, in its own order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
