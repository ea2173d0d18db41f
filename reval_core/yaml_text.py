"""YAML as people write it today: 1e-6 is a number (YAML 1.1 takes it for text), "1e-6" in quotes is text."""

from __future__ import annotations

import re
from typing import Any

import yaml

_FLOAT = "tag:yaml.org,2002:float"
_MERGE = "tag:yaml.org,2002:merge"
_SCIENTIFIC = re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$")


class _Loader(yaml.SafeLoader):
    """Plain data only; no tag makes an object. A key that stands twice is an error: YAML would take the last alone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping, where each key stands once; what it merges (``<<``) may be overridden."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        "while reading a mapping", node.start_mark, f"found the key {key.value!r} twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


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
