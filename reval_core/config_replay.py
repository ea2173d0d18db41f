"""The part of the configuration that says what is learned from again, and relative to what."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from reval_core.section import Section, added


class ReplayConfig(Section):
    """The replay buffer and the draws from it."""

    capacity: int | None = Field(1280, ge=1, description="Size of the FIFO window (M); None: all that was admitted.")
    unit: Literal["trajectories", "rounds"] = Field("trajectories", description="What capacity counts.")
    draw: str = Field("uniform", description="uniform, recency, prioritised, or package.module:attribute.")
    draw_args: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the draw: half_life (rounds); alpha, beta, floor (nats)."
    )
    excludes_fresh: bool = Field(False, description="Draw from the window without the fresh batch.")
    baseline: Literal["none", "problem", "round"] = added(
        "none",
        description="Subtracted at each use: nothing; the mean of the problem's stored rewards; the last round's.",
    )
    baseline_share: float = added(1.0, gt=0, le=1, description="How much of that mean is subtracted.")
    successes: int = added(
        0,
        ge=0,
        description="Stored successes of a problem that join an update with an all-wrong group of it, newest first.",
    )
