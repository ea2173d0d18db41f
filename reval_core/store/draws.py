"""Which trajectories of the window an update is trained on: uniform, by recency, or by the size of their residual.

A strategy is a function of the window, the number wanted, and a generator that derives from (seed, iteration, update):
it has no state, so a restarted run draws what the first attempt drew. Strategies draw without replacement and say with
which importance weight each drawn trajectory counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from reval_core.errors import ConfigError


@dataclass(frozen=True)
class Window:
    """What an iteration may draw: ``size`` places, oldest first.

    Place i is entry ``position(i)`` of round ``rounds[i's round]`` of the run's chain, so a window of a million entries
    is told by a few numbers per round.
    """

    rounds: np.ndarray
    """[R] int64, iterations with entries in the window, ascending."""
    counts: np.ndarray
    """[R] int64, how many of each lie in the window; the newest of their round."""
    skipped: int = 0
    """Entries of the oldest round that the window's edge cuts off."""
    residuals: np.ndarray | None = None
    """[size] float64 in nats: of each entry's last use, NaN before the first; only for strategies that need it."""

    @property
    def size(self) -> int:
        """Number of places."""
        return int(self.counts.sum())

    def ages(self, iteration: int) -> np.ndarray:
        """[size] int64, rounds since each entry was admitted."""
        return np.repeat(iteration - self.rounds, self.counts)

    def locate(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(iterations [k], positions [k]) of some places [k]."""
        ends = np.cumsum(self.counts)
        index = np.searchsorted(ends, places, side="right")
        inside = places - (ends - self.counts)[index]
        return self.rounds[index], inside + np.where(index == 0, self.skipped, 0)

    def before(self, iteration: int) -> Window:
        """The window without the entries of that iteration and later ones."""
        kept = self.rounds < iteration
        residuals = self.residuals[: int(self.counts[kept].sum())] if self.residuals is not None else None
        return Window(self.rounds[kept], self.counts[kept], self.skipped if kept.any() else 0, residuals)


@dataclass(frozen=True)
class Drawn:
    """What a strategy drew."""

    places: np.ndarray
    """[k] int64, no place twice, in drawn order."""
    weights: np.ndarray
    """[k] float64, importance weights; 1 counts fully."""


Strategy = Callable[..., Drawn]
"""``draw(window, size, rng, *, iteration, **replay.draw_args)``; it must depend on nothing but its arguments."""


def generator(seed: int, iteration: int, update: int) -> np.random.Generator:
    """The randomness of one draw."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, iteration, update])))


def uniform(window: Window, size: int, rng: np.random.Generator, *, iteration: int) -> Drawn:
    """Every subset and every order of it is equally likely; a smaller window is taken whole.

    It costs O(size), whatever the window holds: R. Floyd's algorithm (Bentley and Floyd, A sample of brilliance, 1987).
    """
    size = min(size, window.size)
    chosen: dict[int, None] = {}
    upper = np.arange(window.size - size, window.size)
    for last, place in zip(upper.tolist(), rng.integers(0, upper, endpoint=True).tolist(), strict=True):
        chosen[last if place in chosen else place] = None
    places = rng.permutation(np.fromiter(chosen, np.int64, size))
    return Drawn(places, np.ones(size))


def recency(window: Window, size: int, rng: np.random.Generator, *, iteration: int, half_life: float) -> Drawn:
    """The newer, the likelier: the odds of an entry halve with every ``half_life`` rounds.

    Drawn ones count fully: on another distribution the residuals have the same zero.
    """
    if not half_life > 0:  # nor a NaN
        raise ConfigError(f"replay.draw_args.half_life must be above 0 rounds, got {half_life:g}.")
    odds = np.exp2(-window.ages(iteration) / half_life)
    return Drawn(_weighted(odds, size, rng), np.ones(min(size, window.size)))


def prioritised(
    window: Window,
    size: int,
    rng: np.random.Generator,
    *,
    iteration: int,
    alpha: float = 0.6,
    beta: float = 0.4,
    floor: float = 1e-3,
) -> Drawn:
    """In proportion to (|residual| + floor)**alpha of the last use; weights (N * p)**-beta over the greatest of them.

    Schaul et al. 2015, "Prioritized experience replay", proportional variant. What was never used has the greatest
    priority in the window, so that all is seen. Residuals are those of earlier rounds: a round is planned before it is
    learned.
    """
    if not (0 <= alpha <= 1 and 0 <= beta <= 1 and floor > 0):
        raise ConfigError(
            f"replay.draw_args of 'prioritised': alpha and beta lie between 0 and 1 and floor above 0, got alpha "
            f"{alpha:g}, beta {beta:g}, floor {floor:g}."
        )
    assert window.residuals is not None
    known = np.abs(window.residuals) + floor
    greatest = float(np.nanmax(known, initial=floor))
    odds = np.where(np.isnan(known), greatest, known) ** alpha
    places = _weighted(odds, size, rng)
    weights = (window.size * odds[places] / odds.sum()) ** -beta
    return Drawn(places, weights / weights.max(initial=0.0) if len(weights) else weights)


def _weighted(odds: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """[k] places drawn one after the other in proportion to their odds (Efraimidis and Spirakis 2006)."""
    size = min(size, len(odds))
    keys = rng.standard_exponential(len(odds)) / odds
    nearest = np.argpartition(keys, size - 1)[:size] if 0 < size < len(odds) else np.arange(len(odds))[:size]
    return nearest[np.argsort(keys[nearest], kind="stable")]


DRAWS: Mapping[str, Strategy] = {"uniform": uniform, "recency": recency, "prioritised": prioritised}
"""Registered strategies; another one is ``package.module:function``."""
NEEDS_RESIDUALS: tuple[Strategy, ...] = (prioritised,)
"""Strategies for which the window carries residuals; an own one says so by an attribute ``needs_residuals = True``."""
