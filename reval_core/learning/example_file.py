"""Trajectories to learn from as a safetensors file, for processes that have no store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from reval_core.errors import LearningError
from reval_core.learning.batch import TrainingExample
from reval_core.learning.reference import column

IDS = ("trajectory_id", "group_id")
TOKENS = ("prompt_ids", "response_ids")
NUMBERS = ("reward", "weight", "ref_logprob", "ref_root_value")
"""float64; NaN for a score that an example has not."""


def write_examples(path: Path, examples: Sequence[TrainingExample]) -> None:
    """Write the examples, in their order."""
    arrays: dict[str, Any] = {name: column(examples, name) for name in NUMBERS}
    for name in TOKENS:
        ids = [getattr(example, name) for example in examples]
        arrays[name] = np.concatenate(ids).astype(np.int32)
        arrays[f"{name}_lengths"] = np.array([len(some) for some in ids], dtype=np.int64)
    metadata = {name: json.dumps([getattr(example, name) for example in examples]) for name in IDS}
    save_file(arrays, path, metadata=metadata)


def read_examples(path: Path) -> list[TrainingExample]:
    """The examples in their order.

    Raises:
        LearningError: the file is not there or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            columns: dict[str, Sequence[Any]] = {name: json.loads(file.metadata()[name]) for name in IDS}
            for name in NUMBERS:
                columns[name] = [None if np.isnan(value) else float(value) for value in file.get_tensor(name)]
            for name in TOKENS:
                ends = file.get_tensor(f"{name}_lengths").cumsum()
                columns[name] = np.split(file.get_tensor(name), ends[:-1])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise LearningError(f"The file of examples {path} cannot be read: {error!r}") from error
    return [TrainingExample(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
