"""An engine with weights of its own is held against the model after each swap."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from contracted import contract_model

from reval_core.config_engine import SyncCheckConfig
from reval_core.errors import RolloutError
from reval_core.rollouts import Sample, SampleRequest, SamplingSettings
from reval_core.rollouts.logprobs import MOST_TOKENS, response_logprobs, with_logprobs
from reval_core.rollouts.sync import Sync, check_sync, measure_sync
from reval_core.rollouts.transformers_engine import TransformersEngine

CHECK = SyncCheckConfig()
SETTINGS = SamplingSettings(16, 1.0, 1.0, 0, (1,))
REQUESTS = [SampleRequest("prb", index, 17 * index, (5, 6, 7 + index)) for index in range(8)]


class Copying(TransformersEngine):
    """Samples with a copy of the weights, which `change` can spoil."""

    copies_weights = True

    def __init__(self, change: Callable[[Any], None]) -> None:
        super().__init__()
        self._change = change

    def load(self, policy_id: str, model: Any) -> None:
        own = copy.deepcopy(model)
        with torch.no_grad():
            self._change(own)
        super().load(policy_id, own)


class AtOne(Copying):
    """Tells log-probabilities of logits that no temperature divides."""

    def sample(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Iterator[Sample]:
        for sample in super().sample(requests, settings):
            yield replace(sample, logprob=response_logprobs(self._model, [sample], 1.0, compute_dtype="float32")[0])


def measured(engine: TransformersEngine, settings: SamplingSettings = SETTINGS) -> Sync:
    model = contract_model(tied=True)
    engine.load("pol_1", model)
    return measure_sync(engine, model, REQUESTS, settings, CHECK, compute_dtype="float32")


def test_a_true_copy_passes() -> None:
    engine = Copying(lambda model: None)
    for settings in (SETTINGS, replace(SETTINGS, temperature=0.7, top_p=0.5, top_k=3)):
        sync = measured(engine, settings)
        assert sync.mean <= sync.worst < 1e-5
        assert 8 <= sync.tokens <= 8 * 16
        check_sync(sync, engine, "pol_1", CHECK, compute_dtype="float32")


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        (Copying(lambda model: model.lm_head.weight.mul_(1.05)), SETTINGS),
        (Copying(lambda model: model.model.layers[0].mlp.up_proj.weight.zero_()), SETTINGS),
        (AtOne(lambda model: None), replace(SETTINGS, temperature=0.7)),
        (Copying(lambda model: model.to(torch.bfloat16).to(torch.float32)), SETTINGS),
    ],
    ids=["stale head", "stale layer", "another temperature", "another precision"],
)
def test_what_samples_from_something_else_is_stopped(engine: TransformersEngine, settings: SamplingSettings) -> None:
    sync = measured(engine, settings)
    assert sync.mean > 1e-3
    with pytest.raises(
        RolloutError, match=r"was given pol_1, but its log-probabilities differ .* nats a token, at wor"
    ):
        check_sync(sync, engine, "pol_1", CHECK, compute_dtype="float32")


class Lazy(Copying):
    """Answers what it likes of a request's samples."""

    def __init__(self, answer: Callable[[list[Sample]], list[Sample]]) -> None:
        super().__init__(lambda model: None)
        self._answer = answer

    def sample(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Iterator[Sample]:
        yield from self._answer(list(super().sample(requests, settings)))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda samples: [], "asked for 8 responses and gave 0"),
        (lambda samples: samples[1:], "asked for 8 responses and gave 7"),
        (lambda samples: [replace(samples[0], token_ids=()), *samples[1:]], "gave 8, 1 of them without any token"),
    ],
)
def test_an_engine_that_answers_less_than_it_was_asked_is_stopped(
    answer: Callable[[list[Sample]], list[Sample]], said: str
) -> None:
    with pytest.raises(RolloutError, match=said):
        measured(Lazy(answer))


def test_the_bound_follows_the_precision_or_the_configuration() -> None:
    engine = Copying(lambda model: None)
    rounded = Sync(mean=0.02, worst=0.2, tokens=100)
    check_sync(rounded, engine, "pol_1", CHECK, compute_dtype="bfloat16")
    with pytest.raises(RolloutError, match=r"above: 0\.001"):
        check_sync(rounded, engine, "pol_1", CHECK, compute_dtype="float32")
    with pytest.raises(RolloutError, match=r"above: 0\.01"):
        check_sync(rounded, engine, "pol_1", SyncCheckConfig(above=0.01), compute_dtype="bfloat16")
    with pytest.raises(RolloutError):
        check_sync(Sync(float("nan"), float("nan"), 1), engine, "pol_1", CHECK, compute_dtype="bfloat16")


def test_whole_forward_passes_agree_however_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model = contract_model(tied=False).train()
    engine = TransformersEngine()
    engine.load("pol_1", model)
    samples = list(engine.sample(REQUESTS, replace(SETTINGS, temperature=0.7)))
    alone = [response_logprobs(model, [sample], 0.7, compute_dtype="float32")[0] for sample in samples]
    assert alone == pytest.approx([sample.logprob for sample in samples], abs=1e-4)
    assert model.training
    for most in (MOST_TOKENS, 40, 3):
        monkeypatch.setattr("reval_core.rollouts.logprobs.MOST_TOKENS", most)
        blank = [replace(sample, logprob=0.0) for sample in samples]
        done = list(with_logprobs(blank, model, 0.7, compute_dtype="float32"))
        assert [sample.request for sample in done] == [sample.request for sample in samples]
        assert [sample.logprob for sample in done] == pytest.approx(alone, abs=1e-4)
    assert list(with_logprobs([], model, 0.7, compute_dtype="float32")) == []
