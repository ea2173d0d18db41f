"""Content addresses: every batch, trajectory, policy and stage is named by a digest of what made it.

A digest is SHA-256 over canonical JSON (sorted keys, no spaces, shortest round-trip floats), cut to 128 bits and
written after a short prefix, so that ``pol_1f0c...`` can be told from ``bat_77ab...`` in a log or a SQL prompt.
The three versions below are raised by hand when results change; they are part of the digests that depend on them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LEARNING_VERSION = 2
"""Raised when the same trajectories and settings would give other weights or other reference scalars."""

ROLLOUT_VERSION = 1
"""Raised when the same policy, prompts, settings and seeds would give other samples."""


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no white space, NaN refused.

    Raises:
        TypeError: the value holds something that is not plain JSON data.
        ValueError: the value holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(prefix: str, value: Any) -> str:
    """Name of a value: ``prefix`` + ``_`` + 32 hexadecimal digits of its canonical JSON."""
    data = canonical_json(value).encode("utf-8", "surrogatepass")
    return f"{prefix}_{hashlib.sha256(data).hexdigest()[:32]}"


def text_digest(prefix: str, text: str) -> str:
    """Name of a text, exact to the last character."""
    return digest(prefix, text)


def files_digest(prefix: str, folder: Path, names: Sequence[str]) -> str:
    """Name of a set of files by their names and contents (time stamps and location do not count)."""
    contents: dict[str, str] = {}
    for name in sorted(names):
        with open(folder / name, "rb") as file:
            contents[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digest(prefix, contents)


def sample_seed(key: str, seed: int, problem_id: str, sample_index: int) -> int:
    """Seed of one sampled response, from what it is and never from when or where it is sampled.

    Args:
        key: the batch's id for training rollouts; for evaluations a key that does not name the policy, so that
            two policies are compared under the same noise.
        seed: seed of the run.
        problem_id: the prompt's problem.
        sample_index: 0-based index of the sample among those of its problem.

    Returns:
        An unsigned 64-bit integer.
    """
    data = canonical_json([key, seed, problem_id, sample_index]).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def finite(value: Any) -> Any:
    """The value with NaN and infinities as None, inside of mappings and lists, too: JSON has no such numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value


def short(identifier: str) -> str:
    """The first eight digits after the prefix, for people."""
    prefix, _, rest = identifier.partition("_")
    return f"{prefix}_{rest[:8]}"


def without(mapping: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A copy of the mapping that lacks the given keys."""
    return {key: value for key, value in mapping.items() if key not in keys}
