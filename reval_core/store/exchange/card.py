"""The page of an exported data set: the header that loaders read, and what is in it in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reval_core import __version__, cards
from reval_core.store.exchange.columns import HUB_SCHEMA

_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
"""Bounds of the hub's size categories: 10**3, 10**4, ..."""


def card(name: str, origins: Sequence[Mapping[str, Any]]) -> str:
    """README.md of a data set.

    Args:
        name: of its folder.
        origins: rows of the statement ``origins``: who sampled how many of its responses.
    """
    rows = sum(origin["responses"] for origin in origins)
    header = {
        "pretty_name": name,
        "size_categories": [size_category(rows)],
        "task_categories": ["text-generation"],
        "tags": ["reval", "reinforcement-learning", "rollouts"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
    }
    return "\n".join(
        [
            *cards.header(header),
            f"# {name}",
            "",
            f"{rows:,} responses of language models to problems with checkable answers: tokens, text, verdicts and",
            f"rewards, exported from a store of ReVal {__version__}. `prompt` and `completion` are messages, as TRL's",
            "trainers take them; one row holds all that is needed to learn from it again.",
            "",
            "## Where they come from",
            "",
            *cards.table(_ORIGIN, [_origin(origin) for origin in origins]),
            "",
            "## Columns",
            "",
            *cards.table(("Column", "Type", "Meaning"), [_column(name) for name in HUB_SCHEMA.names]),
            "",
        ]
    )


_ORIGIN = ("Purpose", "Run or source", "Model", "Responses", "Problems", "Rounds", "Correct", "Tokens, mean")


def _origin(row: Mapping[str, Any]) -> tuple[str, ...]:
    model, correct = cards.named(row["model"] or ""), row["correct_share"]
    return (
        row["purpose"],
        row["run_id"] or row["source"] or "",
        model,
        f"{row['responses']:,}",
        f"{row['problems']:,}",
        f"{row['rounds']:,}" if row["rounds"] else "",
        "" if correct is None else f"{correct:.1%}",
        f"{row['response_tokens_mean']:,.0f}",
    )


def _column(name: str) -> tuple[str, ...]:
    field = HUB_SCHEMA.field(name)
    return f"`{name}`", _type(str(field.type)), field.metadata[b"comment"].decode()


def _type(text: str) -> str:
    """An Arrow type in short: what stands in a list of structs is named in the data."""
    if text.startswith("list"):
        return "list of structs" if "struct" in text else "list of integers"
    return "struct" if text.startswith("struct") else text.partition("[")[0]


def size_category(rows: int) -> str:
    """The hub's word for a number of rows, such as ``1K<n<10K``."""
    at = next((i for i in range(len(_SIZES)) if rows < 10 ** (i + 3)), len(_SIZES))
    if at in (0, len(_SIZES)):
        return f"n<{_SIZES[0]}" if at == 0 else f"n>{_SIZES[-1]}"
    return f"{_SIZES[at - 1]}<n<{_SIZES[at]}"
