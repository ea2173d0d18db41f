"""One stage of one round again: unchanged output says so and makes nothing, changed output opens a fork.

    reval rerun RUN --stage verify --round 3

Nothing rewrites history. What a stage gives is a function of what is stored, so it changes only where something has
changed since: a mended gold answer, a newer verifier, a setting. Then a child run shares every row before that round,
and the later rounds follow there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from flows import planning
from reval_core.config import Config
from reval_core.config_files import apply_override, parse_config
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.store import Store, runs, stages
from tasks.fork import Fork
from tasks.grading import grader_of
from tasks.progress import Progress
from tasks.readmit import History, readmitted

StageName = Literal["generate", "verify", "persist", "learn"]
LETTERS = 12
"""Digits of a digest that fit a JSON number."""


@dataclass(frozen=True)
class Rerun:
    """What doing a stage again comes to."""

    config: Config
    fork: Fork | None
    """The run to carry out; None where nothing would change."""
    why: str
    """In a sentence, for people."""

    def as_json(self) -> dict[str, object]:
        """As it is kept for a retry."""
        fork = None if self.fork is None else asdict(self.fork)
        return {"config": self.config.model_dump(mode="json"), "fork": fork, "why": self.why}

    @classmethod
    def from_json(cls, kept: dict[str, object]) -> Rerun:
        """As it was kept."""
        fork, config = kept["fork"], kept["config"]
        assert isinstance(config, dict)
        return cls(parse_config(config), Fork(**fork) if isinstance(fork, dict) else None, str(kept["why"]))


def rerun(
    home: Home,
    run_id: str,
    stage: str,
    iteration: int,
    *,
    force: bool,
    overrides: Sequence[str],
    progress: Progress,
) -> Rerun:
    """What doing one stage of one round again comes to.

    Args:
        home: the root.
        run_id: whose round.
        stage: ``generate`` changes only by force, which samples the round anew; ``verify`` and ``persist`` where the
            round would be graded otherwise now; ``learn`` where any round that it may draw from would.
        iteration: the round.
        force: sample anew; only for ``generate``.
        overrides: settings that the fork is to have otherwise, as ``reward.extraction=lenient``.
        progress: told how far a grading is.

    Raises:
        StoreError: there is no such run, or it has not learned that round.
        ConfigError: force has no meaning for the stage, or a setting is not usable.
    """
    if stage not in get_args(StageName):
        raise ConfigError(f"A stage {stage!r} cannot be done again by itself: {', '.join(get_args(StageName))}.")
    config, history = _round_of(home, run_id, iteration)
    place = f"{run_id}@{iteration}"
    changed = _changed(config, overrides)
    if force and stage != "generate":
        raise ConfigError(
            f"force has no meaning for {stage}: it is a function of what is stored, so done again it gives the same. "
            "Only generate draws anew."
        )
    if changed.config_id != config.config_id or force:
        fork = planning.fork(changed, home, start_from=place, force=f"generate@{iteration}" if force else None)
        return Rerun(changed, fork, f"a fork from round {iteration}" + (", whose responses are new" if force else ""))
    if stage == "generate":
        return Rerun(config, None, f"round {iteration} has its responses; sampled again they would be the same")
    rounds = range(iteration + 1) if stage == "learn" else (iteration,)
    with grader_of(config.reward) as grader:
        found = readmitted(config, Store(home.database), run_id, history, rounds, grader, progress)
    if found is None:
        return Rerun(config, None, f"{stage} of round {iteration} is unchanged: every reward that it uses stands")
    fork = _fork(home, run_id, found.iteration, found.graded_by)
    return Rerun(config, fork, f"{found.changed} rewards of round {found.iteration} are others now: a fork from there")


def _round_of(home: Home, run_id: str, iteration: int) -> tuple[Config, History]:
    with Store(home.database).read() as connection:
        record = runs.find(connection, run_id)
        history = stages.history(connection, run_id)
    if record is None:
        raise StoreError(f"There is no run {run_id}. `reval runs` lists what there is.")
    done = stages.rounds_done(history)
    if iteration >= done:
        raise StoreError(
            f"Run {run_id} has learned {done} rounds, 0 to {done - 1}; round {iteration} is not there yet."
        )
    config = parse_config(dict(record.config))
    if config.offline is not None:
        raise ConfigError(
            f"{run_id} learned from a selection: `reval learn` with the same one takes what is graded now."
        )
    run = config.run.model_copy(update={"iterations": max(done, config.run.iterations)})
    return config.model_copy(update={"run": run}), history


def _changed(config: Config, overrides: Sequence[str]) -> Config:
    tree = config.model_dump(mode="json")
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree)


def _fork(home: Home, run_id: str, iteration: int, graded_by: str) -> Fork:
    """A child that differs from its parent in nothing but what its round is graded by."""
    with Store(home.database).read() as connection:
        parent = runs.find(connection, run_id)
    assert parent is not None
    forced = {slot: count for slot, count in parent.forced.items() if int(slot.rpartition("@")[2]) >= iteration}
    forced[f"verify@{iteration}"] = int(graded_by.rpartition("_")[2][:LETTERS], 16)
    return Fork(run_id, iteration, forced)
