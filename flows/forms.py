"""The settings of a run as a form: the tree of `Config` in which everything may be left out.

Prefect shows it with each field's description and limits and refuses a wrong value with its field named. What is left
out stays as the configuration file has it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import reduce
from operator import or_
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema

from reval_core.config import Config
from reval_core.config_files import apply_override, parse_config, read_tree
from reval_core.section import Section


def _as_bool(word: str | None) -> bool | None:
    return None if word is None else word == "on"


SWITCH = Annotated[Literal["on", "off"], PlainSerializer(_as_bool)]
"""A bool in a form: a box that nobody has touched would be sent as no."""


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _what_is_given(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialise(self).items() if value not in (None, {})}


def form_of(section: type[Section], *, without: Collection[str] = ()) -> type[BaseModel]:
    """A model with the fields of a section, their limits and descriptions, none of which has to be given."""
    fields: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        kind: Any = _without_none(field.annotation)
        if name in without:
            continue
        if isinstance(kind, type) and issubclass(kind, Section):
            inner: Any = form_of(kind)
            fields[name] = (inner, Field(title=name, default_factory=inner, description=_first_line(kind.__doc__)))
        else:
            told = f"{field.description}{_limits(field)}"
            # by its own name, as in files, overrides and messages; Pydantic would make Memory Gb of memory_gb
            left_out = Field(title=name, default=None, description=told, json_schema_extra=_no_default)
            fields[name] = (_may_be_left_out(kind, field), left_out)
    name = f"{section.__name__.removesuffix('Config')}Settings"
    return create_model(name, __base__=_Form, __doc__=section.__doc__, **fields)


def _without_none(annotation: Any) -> Any:
    """``int | None`` to ``int``: in a form nothing is written by leaving a field empty."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    return reduce(or_, (part for part in get_args(annotation) if part is not NoneType))


def _may_be_left_out(kind: Any, field: FieldInfo) -> Any:
    if kind is bool:
        kind = SWITCH
    limited = Annotated[(kind, *field.metadata)] if field.metadata else kind
    return or_(limited, SkipJsonSchema[None])  # type: ignore[misc]


def _limits(field: FieldInfo) -> str:
    """What a value may be, for people: the form shows it, the server holds to it."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    told = [
        f"{words[name]} {limit:g}"
        for part in field.metadata
        for name in words
        if (limit := getattr(part, name, None)) is not None
    ]
    return f" ({', '.join(told)})" if told else ""


def _no_default(schema: dict[str, Any]) -> None:
    """An empty field is left out, not sent as null."""
    schema.pop("default")


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().splitlines()[0]


Settings = form_of(Config, without=("offline",))
"""What a form may change of a configuration file."""


def configured(config: str, settings: BaseModel, overrides: Sequence[str] = ()) -> Config:
    """A configuration file with what a form and ``key.path=value`` lines change of it.

    Raises:
        ConfigError: the file, or what it becomes, cannot be used.
    """
    tree = read_tree(config)
    _merge(tree, settings.model_dump(mode="json"))
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree, where=config)


def _merge(tree: dict[str, Any], changes: dict[str, Any]) -> None:
    """Put the changes into the tree, section by section."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value
