"""Which run a configuration stands for, and where it branches off another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reval_core.config import Config
from reval_core.identity import digest


@dataclass(frozen=True)
class Fork:
    """Where a run branches off another one."""

    parent_run_id: str
    iteration: int
    """First iteration that is the fork's own."""
    forced: Mapping[str, int] = field(default_factory=dict)
    """``generate@iteration`` to its generation."""


def run_id_of(config: Config, fork: Fork | None = None, selection_id: str | None = None) -> str:
    """Name of the run that a configuration stands for, with a fork or with what an offline run learns from."""
    made_of: list[Any] = [config.identity()]
    if selection_id is not None:
        made_of.append(selection_id)
    if fork is not None:
        made_of += [fork.parent_run_id, fork.iteration, dict(fork.forced)]
    return f"{config.run.name}-{digest('run', made_of).removeprefix('run_')[:8]}"
