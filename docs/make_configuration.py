"""Writes the tables of docs/configuration.md from the fields of `reval_core.config`.

    python docs/make_configuration.py

What stands above the marker in the file is written by hand and kept; a test asserts that the rest is up to date.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from reval_core.config import Config

PAGE = Path(__file__).with_name("configuration.md")
MARKER = "<!-- Below this line: python docs/make_configuration.py -->"
HEAD = "| Field | Default | Values | Unit | New run | Meaning |\n|---|---|---|---|---|---|"

UNITS = {
    "run.iterations": "rounds",
    "problems.limit": "problems",
    "problems.weight": "draws per epoch",
    "rollouts.prompts_per_iteration": "problems",
    "rollouts.rollouts_per_prompt": "responses",
    "rollouts.max_prompt_tokens": "tokens",
    "rollouts.max_new_tokens": "tokens",
    "rollouts.token_budget": "tokens",
    "rollouts.deadline_s": "seconds",
    "rollouts.engine.max_batch_sequences": "sequences",
    "rollouts.engine.max_batch_tokens": "tokens",
    "rollouts.engine.check.samples": "responses",
    "rollouts.engine.check.tokens": "tokens",
    "rollouts.engine.check.above": "nats a token",
    "rollouts.engine.vllm.memory": "share of the GPU",
    "rollouts.engine.servers.request_s": "seconds",
    "rollouts.engine.servers.update_s": "seconds",
    "reward.workers": "processes",
    "reward.timeout_s": "seconds",
    "reward.memory_gb": "GB",
    "limits.stalled_s": "seconds",
    "limits.stage_s": "seconds",
    "limits.grace_s": "seconds",
    "limits.memory_gb": "GB",
    "limits.retries": "processes",
    "reward.max_failure_share": "share of a batch",
    "retention.after_rounds": "rounds",
    "retention.keep_every": "rounds",
    "retention.keep_last": "checkpoints",
    "retention.mlflow_days": "days",
    "retention.prefect_days": "days",
    "retention.log_days": "days",
    "replay.capacity": "trajectories",
    "objective.beta": "reward per nat",
    "objective.updates.on_policy": "updates per round",
    "objective.updates.off_policy": "updates per round",
    "objective.reference_reset_every": "rounds",
    "optimizer.warmup_updates": "updates",
    "optimizer.max_tokens_per_micro_batch": "tokens",
    "optimizer.max_skipped_in_a_row": "updates",
    "learning.timeout_s": "seconds",
    "evaluation.every": "rounds",
    "evaluation.samples_per_problem": "responses",
    "evaluation.limit": "problems",
    "evaluation.max_new_tokens": "tokens",
    "checkpoint.every": "rounds",
    "store.flush_seconds": "seconds",
    "store.lock_wait_s": "seconds",
    "model.threads": "threads",
}
"""Units of the fields that have one; every other field is a name, a switch or a plain number."""

TYPES = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`", dict: "mapping"}
SIGNS = {annotated_types.Ge: "≥", annotated_types.Gt: ">", annotated_types.Le: "≤", annotated_types.Lt: "<"}


def page(text: str) -> str:
    """The page with its tables written anew; what stands above the marker is kept."""
    above, marker, _ = text.partition(MARKER)
    if not marker:
        raise ValueError(f"{PAGE.name} has lost its marker line {MARKER!r}.")
    return f"{above}{MARKER}\n\n{tables()}"


def tables() -> str:
    """One headed table for each section of the tree."""
    parts = []
    for prefix, section, neutral in sections(Config, ""):
        fields = [(name, field) for name, field in section.model_fields.items() if not nested(field)]
        rows = [row(f"{prefix}{name}", field, neutral=neutral) for name, field in fields]
        if rows:
            about = (section.__doc__ or "").strip()
            parts.append("\n".join([f"## `{prefix.rstrip('.')}`\n\n{about}\n\n{HEAD}", *rows]))
    return "\n\n".join(parts) + "\n"


def sections(
    section: type[BaseModel], prefix: str, *, neutral: bool = False
) -> Iterator[tuple[str, type[BaseModel], bool]]:
    """(dotted prefix, section, whether it is no part of identity) of the tree, a section before the ones inside it."""
    yield prefix, section, neutral
    for name, field in section.model_fields.items():
        inner = nested(field)
        if inner is not None:
            yield from sections(inner, f"{prefix}{name}.", neutral=neutral or is_neutral(field))


def nested(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds, alone or in a list."""
    candidates = (field.annotation, *get_args(field.annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def is_neutral(field: FieldInfo) -> bool:
    """Whether a field, and all inside it, is no part of a run's identity."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("identity") is False


def row(key: str, field: FieldInfo, *, neutral: bool) -> str:
    """One line of a table; ``neutral`` where the whole section is no part of identity."""
    new_run = "no" if neutral or is_neutral(field) else "yes"
    cells = [f"`{key}`", default(field), values(field), UNITS.get(key, ""), new_run]
    return re.sub(" +", " ", f"| {' | '.join([*cells, str(field.description)])} |")


def default(field: FieldInfo) -> str:
    """What counts when the field is left out, as YAML writes it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return '`""`' if value == "" else f"`{value}`"


def values(field: FieldInfo) -> str:
    """Type and limits."""
    kind = field.annotation
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    words = ", ".join(described(part) for part in kinds if part is not type(None))
    limits = [f"{SIGNS[type(m)]} {bound(m):g}" for m in field.metadata if type(m) in SIGNS]
    return " ".join([words, ", ".join(limits)]).strip() + (" or null" if type(None) in kinds else "")


def described(kind: Any) -> str:
    """A type in words."""
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        items = get_args(kind)
        return f"list of {described(items[0])}" if items[-1] is Ellipsis else f"{len(items)} × {described(items[0])}"
    return TYPES[get_origin(kind) or kind]


def bound(limit: Any) -> float:
    """The number of a limit."""
    return float(next(getattr(limit, name) for name in ("ge", "gt", "le", "lt") if hasattr(limit, name)))


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
