"""A budget of tokens: what is cut depends on the responses alone, and nothing is missing."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from reval_core.config import EngineConfig, RolloutConfig
from reval_core.errors import ConfigError
from reval_core.rollouts import Sample, SampleRequest, SamplingSettings, budget, check_limits, sample_within

Ends = dict[int, tuple[int, str]]
"""Sample index to (tokens, finish_reason)."""


class Scripted:
    """An engine whose responses have lengths that are known; token t of sample i is 1000 i + t."""

    name = "scripted/1"
    keeps = frozenset({"token_budget", "deadline_s"})

    def __init__(self, lengths: Mapping[int, float], late: Sequence[int] = ()) -> None:
        self.lengths, self.late = lengths, late
        self.sampled = 0
        self.steps: list[int] = []

    def load(self, policy_id: str, model: object) -> None: ...

    def close(self) -> None: ...

    def sample(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Iterator[Sample]:
        assert settings.token_budget is None
        self.steps.append(settings.max_new_tokens)
        for request in sorted(requests, key=lambda r: self.lengths[r.sample_index]):
            index = request.sample_index
            whole = self.lengths[index]
            count = int(min(whole, settings.max_new_tokens))
            ids = tuple(1000 * index + place for place in range(count))
            assert request.begun == ids[: len(request.begun)]
            assert request.begun_logprob == -float(len(request.begun))
            self.sampled += count - len(request.begun)
            reason = "deadline" if index in self.late else "stop" if whole <= settings.max_new_tokens else "length"
            yield Sample(request, ids, reason, -float(count))  # type: ignore[arg-type]


def asked(count: int) -> list[SampleRequest]:
    return [SampleRequest("prb", index, 0, (1, 2)) for index in range(count)]


def how(tokens: int | None, most: int = 1000, deadline_s: float | None = None) -> SamplingSettings:
    return SamplingSettings(most, 1.0, 1.0, 0, (0,), token_budget=tokens, deadline_s=deadline_s)


def run(engine: Scripted, settings: SamplingSettings, kept: Ends | None = None, *, most: int | None = None) -> Ends:
    """What is sampled beside what was kept, `most` responses of it."""
    kept = kept or {}
    missing = [request for request in asked(len(engine.lengths)) if request.sample_index not in kept]
    ends: Ends = {}
    for sample in sample_within(engine, missing, settings, list(kept.values())):
        if len(ends) == most:
            break
        assert sample.request in missing  # as it was asked for, without what was begun
        assert sample.logprob == -float(len(sample.token_ids))
        assert sample.request.sample_index not in ends
        ends[sample.request.sample_index] = (len(sample.token_ids), sample.finish_reason)
    return ends


def test_what_short_responses_leave_is_shared_among_the_others() -> None:
    engine = Scripted({0: 2, 1: 3, 2: 10, 3: 9})
    # 5 for each; 2 and 3 leave 5 over, which are 2 more for each of two; 1 is left, less than one for each
    assert run(engine, how(20)) == {0: (2, "stop"), 1: (3, "stop"), 2: (7, "budget"), 3: (7, "budget")}
    assert engine.steps == [5, 7]
    assert engine.sampled == 19


def test_a_share_too_small_to_go_on_for_is_left() -> None:
    # 160 for each; 12 left are 6 for each of two, which is less than 160 / 16
    engine = Scripted({0: 148, 1: 500, 2: 500})
    assert run(engine, how(480)) == {0: (148, "stop"), 1: (160, "budget"), 2: (160, "budget")}
    # 20 left are 10 for each
    engine = Scripted({0: 140, 1: 500, 2: 500})
    assert run(engine, how(480)) == {0: (140, "stop"), 1: (170, "budget"), 2: (170, "budget")}


def test_the_greatest_length_holds_within_the_budget() -> None:
    engine = Scripted({0: 4, 1: 100, 2: 100})
    assert run(engine, how(60, most=25)) == {0: (4, "stop"), 1: (25, "length"), 2: (25, "length")}
    assert run(Scripted({0: 4, 1: 100}), how(10**9, most=25)) == {0: (4, "stop"), 1: (25, "length")}


def test_a_response_that_ends_where_the_others_are_cut_ended_itself() -> None:
    assert run(Scripted({0: 5, 1: 6}), how(10)) == {0: (5, "stop"), 1: (5, "budget")}


@pytest.mark.parametrize("seed", range(40))
def test_the_longest_are_cut_at_one_length_and_none_is_missing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = dict(enumerate((1 + rng.lognormal(4.0, 1.2, 24)).astype(int).tolist()))
    tokens = int(rng.integers(24, 3000))
    engine = Scripted(lengths)
    ends = run(engine, how(tokens, most=400))
    assert ends.keys() == lengths.keys()
    assert engine.sampled == sum(count for count, _ in ends.values()) <= tokens
    cut = {count for count, reason in ends.values() if reason == "budget"}
    assert len(cut) <= 1
    for index, (count, reason) in ends.items():
        assert count == min(lengths[index], 400, *cut)
        assert reason == ("stop" if lengths[index] == count else "budget" if cut else "length")
    if cut:  # little is left: less than a sixteenth of the length, or one token, for each that was cut
        number = sum(reason == "budget" for _, reason in ends.values())
        assert tokens - engine.sampled < number * max(1, min(cut) // budget.LEAST_STEP)


@pytest.mark.parametrize("seed", range(10))
def test_an_attempt_may_end_after_any_response(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = dict(enumerate((1 + rng.lognormal(4.0, 1.2, 12)).astype(int).tolist()))
    settings = how(int(rng.integers(100, 900)), most=300)
    whole = run(Scripted(lengths), settings)
    for stored in range(13):
        first = run(Scripted(lengths), settings, most=stored)
        assert first | run(Scripted(lengths), settings, first) == whole
    kept = dict(list(whole.items())[::2])  # and whatever is missing of it
    assert kept | run(Scripted(lengths), settings, kept) == whole


def test_nothing_is_asked_of_the_engine_when_nothing_is_missing() -> None:
    engine = Scripted({0: 2})
    assert list(sample_within(engine, [], how(20), [(2, "stop")])) == []
    assert list(sample_within(engine, [], how(None), [(2, "stop")])) == []
    assert engine.steps == []


def test_without_a_budget_the_engine_is_asked_once() -> None:
    engine = Scripted({0: 2, 1: 2000})
    assert run(engine, how(None)) == {0: (2, "stop"), 1: (1000, "length")}
    assert engine.steps == [1000]


# -- with a deadline --------------------------------------------------------------------------------------------------


def test_when_the_time_is_over_nothing_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 50.0])  # at the start, before the first step, behind it
    monkeypatch.setattr(budget, "monotonic", lambda: next(clock, 50.0))
    engine = Scripted({0: 2, 1: 3, 2: 10, 3: 9})
    ends = run(engine, how(20, deadline_s=30.0))
    assert ends == {0: (2, "stop"), 1: (3, "stop"), 2: (5, "deadline"), 3: (5, "deadline")}


def test_what_the_engine_cut_late_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "monotonic", lambda: 0.0)
    engine = Scripted({0: 2, 1: 3, 2: 10, 3: 9}, late=[1])
    ends = run(engine, how(20, deadline_s=30.0))
    assert ends == {0: (2, "stop"), 1: (3, "deadline"), 2: (7, "budget"), 3: (7, "budget")}


def test_the_time_that_is_left_is_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 10.0, 10.0])
    monkeypatch.setattr(budget, "monotonic", lambda: next(clock, 10.0))
    given: list[float | None] = []

    class Listening(Scripted):
        def sample(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Iterator[Sample]:
            given.append(settings.deadline_s)
            yield from super().sample(requests, settings)

    run(Listening({0: 2, 1: 30}), how(20, deadline_s=30.0))
    assert given == [26.0, 20.0]


# -- what is recorded, and who keeps it -------------------------------------------------------------------------------


def test_unset_limits_leave_the_recorded_settings_as_they_were() -> None:
    plain = {"max_new_tokens": 8, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "stop_ids": [0]}
    assert list(how(None, most=8).recorded().items()) == list(plain.items())
    assert how(20, most=8, deadline_s=1.5).recorded() == {**plain, "token_budget": 20, "deadline_s": 1.5}


def test_an_engine_that_keeps_no_limit_is_refused_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(Scripted):
        keeps = frozenset()

    monkeypatch.setattr(math, "plain_engine", Plain, raising=False)
    engine = EngineConfig(use="math:plain_engine")
    check_limits(RolloutConfig(engine=engine))
    check_limits(RolloutConfig(token_budget=1000, deadline_s=5.0))
    for limit in ({"token_budget": 1000}, {"deadline_s": 5.0}):
        (name,) = limit
        with pytest.raises(ConfigError, match=rf"rollouts\.{name} is set, and the engine 'math:plain_engine'"):
            check_limits(RolloutConfig.model_validate({"engine": engine, **limit}))
