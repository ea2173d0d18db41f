"""What is watched of a run after each round: the rules of the section ``health``, and which of them a run breaks.

A rule is a band and how many rounds in a row a metric must have left it. The defaults are for binary rewards and
reasoning models; docs/health.md says why each is what it is, and on what runs it was tried. All of them warn:
what makes going on senseless (updates that are not finite, a reference with a residual, a full disk, ungradable
batches) ends a run by checks of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import model_validator

from reval_core.section import Section, neutral


def _above(bound: float | None) -> Any:
    return neutral(bound, description="Out of bounds when greater; null: no bound on this side.")


def _below(bound: float | None) -> Any:
    return neutral(bound, description="Out of bounds when less; null: no bound on this side.")


def _rounds(count: int) -> Any:
    return neutral(count, description="Rounds in a row that it is out of bounds until something is done.", ge=1)


class HealthRule(Section):
    """When a metric counts as out of bounds, and what then."""

    above: float | None = _above(None)
    below: float | None = _below(None)
    rounds: int = _rounds(3)
    then: Literal["warn", "stop", "ignore"] = neutral(
        "warn",
        description="warn: a row, a warning and an event; stop: end the run as well, after the round; ignore: nothing.",
    )

    @model_validator(mode="after")
    def _some_band(self) -> HealthRule:
        if self.above is None and self.below is None and self.then != "ignore":
            raise ValueError("give above, below or both; to leave the metric unwatched, then: ignore")
        if self.above is not None and self.below is not None and self.below >= self.above:
            raise ValueError(f"below ({self.below:g}) must be less than above ({self.above:g})")
        return self

    def broken_bound(self, value: float | None) -> float | None:
        """The bound that a value is beyond; None where it is within the band, or there is no value."""
        if value is None:
            return None
        if self.above is not None and value > self.above:
            return self.above
        if self.below is not None and value < self.below:
            return self.below
        return None


class ResidualSpreadRule(HealthRule):
    """Standard deviation of the Bellman residual over the round's updates, times beta: in units of the reward."""

    above: float | None = _above(1.5)


class RootValueGapRule(HealthRule):
    """Mean V(s1) - V_ref(s1) over updates, times beta: what prompts are held worth, in units of the reward."""

    above: float | None = _above(1.5)
    below: float | None = _below(-1.5)


class AllWrongRule(HealthRule):
    """Share of the round's prompts to which no response was right."""

    above: float | None = _above(0.9)
    rounds: int = _rounds(5)


class TruncatedRule(HealthRule):
    """Share of the round's responses that were cut, by length, budget or deadline."""

    above: float | None = _above(0.5)


class TimeoutRule(HealthRule):
    """Share of the round's responses whose grading took longer than `reward.timeout_s`."""

    above: float | None = _above(0.01)


class StalenessRule(HealthRule):
    """Mean age, in rounds, of the responses in the round's updates."""

    above: float | None = _above(16.0)


class EngineMismatchRule(HealthRule):
    """Mean difference of the engine's log-probability of a response and the trainer's at first use, in nats a token."""

    above: float | None = _above(0.02)
    rounds: int = _rounds(2)


class FreeDiskRule(HealthRule):
    """Free space on the disk of the root in GB, measured after the round; of earlier rounds nobody knows."""

    below: float | None = _below(5.0)
    rounds: Literal[1] = neutral(1, description="Always 1.")


class HealthConfig(Section):
    """What is watched after each round. Each metric has a band, rounds in a row, and what then; docs/health.md."""

    residual_spread: ResidualSpreadRule = ResidualSpreadRule()
    root_value_gap: RootValueGapRule = RootValueGapRule()
    all_wrong_share: AllWrongRule = AllWrongRule()
    truncated_share: TruncatedRule = TruncatedRule()
    timeout_share: TimeoutRule = TimeoutRule()
    staleness: StalenessRule = StalenessRule()
    engine_mismatch: EngineMismatchRule = EngineMismatchRule()
    free_disk_gb: FreeDiskRule = FreeDiskRule()

    def rules(self) -> dict[str, HealthRule]:
        """Metric to rule, of those that are watched."""
        rules: dict[str, HealthRule] = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: rule for name, rule in rules.items() if rule.then != "ignore"}

    @property
    def longest(self) -> int:
        """Rounds that must be known to decide all rules."""
        return max((rule.rounds for rule in self.rules().values()), default=0)


@dataclass(frozen=True)
class Breach:
    """A metric that has been out of bounds for as many rounds as its rule says."""

    metric: str
    value: float
    """Of the newest round."""
    bound: float
    """The one that this value is beyond."""
    rounds: int
    """Rounds in a row that the rule asks for."""
    action: str
    """warn or stop."""

    def __str__(self) -> str:
        side = "above" if self.value > self.bound else "below"
        row = "" if self.rounds == 1 else f", the last of {self.rounds} rounds in a row out of bounds"
        return f"{self.metric} is {self.value:.4g}, {side} {self.bound:g}{row}"


def breaches(config: HealthConfig, measured: Sequence[Mapping[str, float | None]]) -> list[Breach]:
    """The rules that a run breaks.

    Args:
        config: the rules.
        measured: metric to value of the newest rounds, oldest first, without gap; a metric that is missing or None was
            not measured in that round, and is not out of bounds in it.
    """
    found = []
    for metric, rule in config.rules().items():
        last = [rule.broken_bound(round_.get(metric)) for round_ in measured[-rule.rounds :]]
        if len(last) == rule.rounds and None not in last:
            value, bound = measured[-1][metric], last[-1]
            assert value is not None
            assert bound is not None
            found.append(Breach(metric, value, bound, rule.rounds, rule.then))
    return found
