"""An experiment's file: which arms are compared on which seeds, and the configuration of each of its cells.

A cell is an arm at one point of its grid with one seed: an ordinary run. Its configuration is that of `base`, then what
every cell has (`CELL`), then `set` of the experiment, then `set` of the arm, then the point, then name and seed; the
later counts. Grids are searched on seeds of their own, so that the choice does not flatter what is reported.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from reval_core.config import Config
from reval_core.config_files import parse_config, read_tree, set_value
from reval_core.errors import ConfigError
from reval_core.section import Section

Point = Mapping[str, Any]
"""Dotted keys of the configuration to their values at one point of a grid; empty without a grid."""

CELL: Point = {
    "model.device": "cpu",
    "model.threads": 1,
    "store.snapshot_every": None,
    "limits.stalled_s": None,
    "retention.keep_last": 1,
    "retention.keep_evaluated": False,
}
"""Settings of every cell unless the experiment says otherwise: one thread, no reader, no watcher, one policy kept."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
SAMPLED, SHOWN = ("avg", "pass", "maj"), ("right_by_right_steps",)
"""Metrics of k samples, written avg@k, and those without a k, of the built-in problems alone."""
PROBLEM = "problem"
"""Benchmark of an experiment on one problem: that problem."""


class Metric(Section):
    """What is compared."""

    benchmark: str = Field("arithmetic", description="One of evaluation.benchmarks.")
    name: str = Field("avg@4", description="Its metric, as avg@4 with evaluation.samples_per_problem: 4.")


class Arm(Section):
    """One of the compared methods."""

    set: dict[str, Any] = Field(default_factory=dict, description="Dotted keys of the configuration to values.")
    tune: dict[str, list[Any]] = Field(
        default_factory=dict, description="Dotted keys to the values among which the best is searched, all by all."
    )

    def points(self) -> list[Point]:
        """The grid in its order; without one a single empty point."""
        return [dict(zip(self.tune, values, strict=True)) for values in itertools.product(*self.tune.values())]


class OneProblem(Section):
    """A training problem that a run has for itself."""

    base_pass_rate: float = Field(
        ge=0, le=1, description="The problem whose pass rate under the base model is nearest."
    )


class Candidates(Section):
    """Among which problems the single ones are looked for."""

    path: str = Field("builtin:arithmetic/train", description="Problems with the columns question and answer.")
    limit: int = Field(256, ge=1, description="So many of them are sampled, a fixed subset.")
    samples: int = Field(64, ge=1, description="Responses of the base model to each.")


class Experiment(Section):
    """One file of configs/experiments."""

    name: str = Field(pattern=NAME, description="Name of the experiment and of its folder.")
    about: str = Field("", description="The question, for the head of the results.")
    base: str = Field(description="Run configuration, relative to this file.")
    set: dict[str, Any] = Field(default_factory=dict, description="Dotted keys of the configuration, for all arms.")
    arms: dict[str, Arm] = Field(min_length=1, description="Name to what distinguishes it.")
    seeds: tuple[int, ...] = Field(min_length=1, description="run.seed of the cells that are reported.")
    tuning_seeds: tuple[int, ...] = Field((), description="run.seed of the cells that a point is chosen by; others.")
    tune_by: Literal["curve", "final"] = Field(
        "curve", description="Best by the mean over all evaluations, which speed raises too, or by the last three."
    )
    metric: Metric = Metric()
    thresholds: tuple[float, ...] = Field((), description="Values of the metric; how soon is each reached?")
    baseline: str | None = Field(None, description="The arm that the others are compared with, seed by seed.")
    problems: dict[str, OneProblem] = Field(
        default_factory=dict, description="Name to a problem: the experiment is done for each of them alone."
    )
    candidates: Candidates = Candidates()

    @model_validator(mode="after")
    def _fits(self) -> Experiment:
        for name in (*self.arms, *self.problems):
            if not re.match(NAME, name):
                raise ValueError(f"the name {name!r}: letters, digits, _ and - only")
        if self.baseline is not None and self.baseline not in self.arms:
            raise ValueError(f"baseline {self.baseline!r} is none of the arms: {', '.join(self.arms)}")
        if both := sorted({*self.seeds} & {*self.tuning_seeds}):
            raise ValueError(f"seed {both[0]} is in seeds and in tuning_seeds; a point chosen by a seed flatters it")
        for given in (self.seeds, self.tuning_seeds):
            if len({*given}) < len(given):
                raise ValueError(f"a seed stands twice in {list(given)}")
        tuned = [name for name, arm in self.arms.items() if len(arm.points()) > 1]
        if tuned and not self.tuning_seeds:
            raise ValueError(f"tuning_seeds: the arm {tuned[0]!r} has a grid, and no seed to search it by")
        if empty := [name for name, arm in self.arms.items() if not arm.points()]:
            raise ValueError(f"arms.{empty[0]}.tune: a list without values")
        return self

    def tuned(self) -> list[str]:
        """Arms whose grid has more than one point."""
        return [name for name, arm in self.arms.items() if len(arm.points()) > 1]

    def tuning_cells(self) -> list[Cell]:
        """The cells that the points of the grids are chosen by."""
        return [
            self.cell(name, point, seed)
            for name in self.tuned()
            for point in self.arms[name].points()
            for seed in self.tuning_seeds
        ]

    def cells(self, arm: str, point: Point) -> list[Cell]:
        """The cells of an arm that are reported, one for each seed."""
        return [self.cell(arm, point, seed) for seed in self.seeds]

    def every_cell(self) -> list[Cell]:
        """All that can be asked for: every point of every arm, with every seed of its kind."""
        reported = [
            cell for name, arm in self.arms.items() for point in arm.points() for cell in self.cells(name, point)
        ]
        return [*self.tuning_cells(), *reported]

    def cell(self, arm: str, point: Point, seed: int) -> Cell:
        """One cell.

        Raises:
            ConfigError: the settings do not make a configuration; the message names the arm.
        """
        tree = copy.deepcopy(read_tree(self.base))
        label = _label(point)
        name = ".".join(part for part in (self.name, arm, label, f"s{seed}") if part)
        where = f"experiment {self.name}, arm {arm}"
        for settings in (CELL, self.set, self.arms[arm].set, point, {"run.name": name, "run.seed": seed}):
            for key, value in settings.items():
                set_value(tree, key, copy.deepcopy(value), f"{where}: ")
        config = parse_config(tree, where=where)
        self._check_metric(config, where)
        if config.rollouts.deadline_s is not None:
            raise ConfigError(
                f"{where}: rollouts.deadline_s cuts by the clock, so two cells could hold different rows of a batch "
                "that they share, and their stores are put together by ids. Use rollouts.token_budget."
            )
        return Cell(arm=arm, point=label, seed=seed, config=config)

    def _check_metric(self, config: Config, where: str) -> None:
        chosen = config.evaluation
        if self.metric.benchmark not in chosen.benchmarks:
            raise ConfigError(
                f"{where}: metric.benchmark {self.metric.benchmark!r} is none of evaluation.benchmarks: "
                f"{', '.join(chosen.benchmarks) or 'there are none'}."
            )
        if not chosen.after:
            raise ConfigError(f"{where}: evaluation.after is false, and a cell's result is that of its last policy.")
        kind, at, k = self.metric.name.partition("@")
        if kind not in SAMPLED if at else kind not in SHOWN:
            names = ", ".join([f"{name}@{chosen.samples_per_problem}" for name in SAMPLED] + list(SHOWN))
            raise ConfigError(f"{where}: metric.name {self.metric.name!r} is none of {names}.")
        if at and k != str(chosen.samples_per_problem):
            raise ConfigError(
                f"{where}: metric.name is {self.metric.name!r}, but evaluation.samples_per_problem is "
                f"{chosen.samples_per_problem}."
            )

    def on_problem(self, level: str, question: str, pass_rate: float | None = None) -> Experiment:
        """The same on one problem alone, which is trained on and evaluated on; its pass rate is told in `about`."""
        source = {"path": self.candidates.path, "filter": "question = '{}'".format(question.replace("'", "''"))}
        alone = {
            "problems": [source],
            "evaluation.benchmarks": [PROBLEM],
            "evaluation.files": {PROBLEM: source},
        }
        rate = "" if pass_rate is None else f", which the base model solves in {pass_rate:.2f} of its tries"
        return self.model_copy(
            update={
                "name": f"{self.name}-{level}",
                "about": f"{self.about} One problem alone, {level}: {question}{rate}.".strip(),
                "set": {**self.set, **alone},
                "metric": self.metric.model_copy(update={"benchmark": PROBLEM}),
                "problems": {},
            }
        )


@dataclass(frozen=True)
class Cell:
    """An arm at a point with a seed: a run."""

    arm: str
    point: str
    """What was chosen in the grid, as lr0.0001; empty without a grid."""
    seed: int
    config: Config

    @property
    def name(self) -> str:
        """Arm, point and seed, as grpo.lr0.0001.s3."""
        return ".".join(part for part in (self.arm, self.point, f"s{self.seed}") if part)


def load_experiment(path: Path | str) -> Experiment:
    """Read an experiment's file; every configuration that it stands for is known to be one.

    Raises:
        ConfigError: the file or its base is missing, a key is unknown, an arm's settings make no configuration.
    """
    path = Path(path)
    tree = read_tree(path)
    try:
        experiment = Experiment.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path} is no experiment:\n" + "\n".join(_explained(error))) from error
    experiment = experiment.model_copy(update={"base": str((path.parent / experiment.base).resolve())})
    for checked in (
        (experiment.on_problem(level, "") for level in experiment.problems) if experiment.problems else (experiment,)
    ):
        for arm, settings in checked.arms.items():
            for point in settings.points():
                checked.cell(arm, point, checked.seeds[0])
    return experiment


def _explained(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        message = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        yield f"  - {key}: {message}" if key else f"  - {message}"


def _label(point: Point) -> str:
    """A point as part of a name: lr0.0001-beta0.03."""
    parts: Sequence[str] = [f"{key.rsplit('.', 1)[-1]}{value}" for key, value in point.items()]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(parts))
