"""What every part of the configuration is made of."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def neutral(default: Any = ..., **kwargs: Any) -> Any:
    """A field that changes how a run is carried out but not what it learns: no part of the run's identity."""
    if "default_factory" not in kwargs:
        kwargs["default"] = default
    return Field(json_schema_extra={"identity": False}, **kwargs)


def added(default: Any = ..., **kwargs: Any) -> Any:
    """A field that came after the first runs: part of the run's identity only where it is not its default.

    So a run that was begun without it keeps its name.
    """
    return Field(default, json_schema_extra={"identity": "unless default"}, **kwargs)


def variable_name(value: str) -> str:
    """The name of an environment variable; ValueError for what may be the secret itself, which a run would store."""
    if not re.fullmatch("[A-Z_][A-Z0-9_]*", value):
        raise ValueError(
            "expected the name of an environment variable, in capitals, such as HF_TOKEN; never the secret itself, "
            "which would be stored with the run"
        )
    return value


class Section(BaseModel):
    """Base of every part of the tree: unknown keys are errors, numbers finite, values cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
