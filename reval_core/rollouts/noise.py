"""Noise that belongs to a sample and not to the batch it is computed in.

The t-th token of a sample uses the t-th number of a counter-based stream named by the sample's seed (SplitMix64), so
neither batch size nor order nor a restart changes what is drawn.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(seeds: npt.NDArray[np.uint64], step: int | npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """[B] numbers in [0, 1), one for each seed, at position ``step`` of its stream.

    Args:
        seeds: [B] unsigned 64-bit seeds.
        step: 0-based position, one for all or [B], one for each.
    """
    with np.errstate(over="ignore"):
        z = seeds + _GOLDEN * (np.asarray(step, np.uint64) + np.uint64(1))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)
