"""The order of problems: a seeded permutation for each epoch, by hash, the same everywhere and for ever."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence


def _uniform(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but the parts."""
    data = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") / 2**64


def epoch_order(pool: Sequence[tuple[str, float]], seed: int, epoch: int) -> list[str]:
    """Problem ids of one epoch in the order in which they are drawn.

    Args:
        pool: (problem_id, weight); a problem comes ``weight`` times, a fraction is taken by turns over the epochs.
        seed: seed of the run.
        epoch: 0-based number of the pass.
    """
    copies: list[tuple[float, str, int]] = []
    for problem_id, weight in pool:
        whole = math.floor(weight)
        fraction = weight - whole
        if fraction and (_uniform(seed, problem_id) + epoch * fraction) % 1.0 < fraction:
            whole += 1
        copies += [(_uniform(seed, epoch, problem_id, copy), problem_id, copy) for copy in range(whole)]
    return [problem_id for _, problem_id, _ in sorted(copies)]
