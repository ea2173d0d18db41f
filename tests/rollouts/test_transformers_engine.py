import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from reval_core.config import EngineConfig
from reval_core.errors import ConfigError
from reval_core.identity import sample_seed
from reval_core.policies.folder import load_model, weights_checksum
from reval_core.rollouts import (
    Sample,
    SampleRequest,
    SamplingSettings,
    make_engine,
    sample_within,
    transformers_engine,
)
from reval_core.rollouts.transformers_engine import TransformersEngine

VOCABULARY = 19
STOP = 1
Drawn = dict[tuple[str, int], Sample]


def random_model(*, tied: bool = True) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,
            tie_word_embeddings=tied,
        )
    ).eval()


def model_with_learned_positions() -> GPT2LMHeadModel:
    """Rotary positions only tell distances; here a prompt that padding had moved would be another prompt."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=16, n_layer=2, n_head=4, n_inner=24, initializer_range=0.3
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(params=["tied", "untied", "learned positions"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return model_with_learned_positions() if "learned" in request.param else random_model(tied=request.param == "tied")


@pytest.fixture
def requests() -> list[SampleRequest]:
    """Four samples of each of six prompts of 1 to 11 tokens."""
    rng = np.random.default_rng(0)
    prompts = {f"prb_{n}": tuple(rng.integers(2, VOCABULARY, 1 + 2 * n).tolist()) for n in range(6)}
    return [
        SampleRequest(name, index, sample_seed("bat", 0, name, index), prompt)
        for name, prompt in prompts.items()
        for index in range(4)
    ]


def settings(*, most: int = 20, top_p: float = 1.0, top_k: int = 0, temperature: float = 1.0) -> SamplingSettings:
    return SamplingSettings(most, temperature, top_p, top_k, (STOP,))


def sample(
    model: torch.nn.Module,
    requests: Sequence[SampleRequest],
    how: SamplingSettings | None = None,
    *,
    sequences: int = 256,
    tokens: int = 1_000_000,
    pad_id: int = 0,
) -> Drawn:
    engine = TransformersEngine(max_batch_sequences=sequences, max_batch_tokens=tokens, pad_id=pad_id)
    engine.load("pol_1", model)
    drawn = list(engine.sample(requests, how or settings()))
    assert len(drawn) == len(requests)
    return {(s.request.problem_id, s.request.sample_index): s for s in drawn}


def tokens_of(drawn: Drawn) -> dict[tuple[str, int], tuple[int, ...]]:
    return {key: s.token_ids for key, s in drawn.items()}


# -- a sample is its own ----------------------------------------------------------------------------------------------


def test_a_sample_does_not_depend_on_what_is_sampled_beside_it(
    model: PreTrainedModel, requests: list[SampleRequest]
) -> None:
    wanted = tokens_of(sample(model, requests))
    assert len({len(ids) for ids in wanted.values()}) > 3  # they leave the batch one after another
    assert tokens_of(sample(model, requests)) == wanted
    assert tokens_of(sample(model, requests[::-1])) == wanted
    assert tokens_of(sample(model, requests, sequences=5)) == wanted
    assert tokens_of(sample(model, requests, sequences=1)) == wanted
    assert tokens_of(sample(model, requests, tokens=70)) == wanted
    assert tokens_of(sample(model, requests, pad_id=7)) == wanted
    some = requests[1::3]
    assert tokens_of(sample(model, some)) == {
        (r.problem_id, r.sample_index): wanted[r.problem_id, r.sample_index] for r in some
    }


def test_samples_of_one_prompt_differ(model: PreTrainedModel, requests: list[SampleRequest]) -> None:
    drawn = tokens_of(sample(model, requests))
    for name in {request.problem_id for request in requests}:
        assert len({drawn[name, index] for index in range(4)}) == 4


def test_another_seed_gives_another_sample(requests: list[SampleRequest]) -> None:
    model = random_model()
    others = [SampleRequest(r.problem_id, r.sample_index, r.seed ^ 1, r.prompt_ids) for r in requests]
    first, second = tokens_of(sample(model, requests)), tokens_of(sample(model, others))
    assert sum(first[key] != second[key] for key in first) > 20


def test_torchs_own_random_state_plays_no_part(requests: list[SampleRequest]) -> None:
    model = random_model()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = tokens_of(sample(model, requests))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert tokens_of(sample(model, requests)) == first


# -- log-probabilities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_those_of_a_whole_forward_pass(
    model: PreTrainedModel, requests: list[SampleRequest], temperature: float
) -> None:
    for drawn in sample(model, requests, settings(temperature=temperature)).values():
        prompt, response = drawn.request.prompt_ids, drawn.token_ids
        with torch.no_grad():  # one sequence alone, nothing padded, no cache
            logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0].double()
        logprobs = torch.log_softmax(logits[len(prompt) - 1 : -1] / temperature, dim=-1)
        whole = logprobs.gather(-1, torch.tensor(response)[:, None]).sum().item()
        assert drawn.logprob == pytest.approx(whole, abs=1e-4)


def test_the_first_tokens_come_with_the_models_probabilities() -> None:
    model = random_model()
    prompt = (5, 9, 3)
    many = [SampleRequest("prb", index, sample_seed("bat", 0, "prb", index), prompt) for index in range(4000)]
    first = [s.token_ids[0] for s in sample(model, many, settings(most=1), sequences=1000).values()]
    with torch.no_grad():
        wanted = torch.softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1].double(), dim=-1).numpy()
    expected = 4000 * wanted
    counts = np.bincount(first, minlength=VOCABULARY)
    assert ((counts - expected) ** 2 / expected).sum() < 42.3  # 99.9 % of chi-square with 18 degrees of freedom


# -- ends -------------------------------------------------------------------------------------------------------------


def test_a_response_ends_with_its_stop_token_or_at_the_limit(
    model: PreTrainedModel, requests: list[SampleRequest]
) -> None:
    drawn = sample(model, requests, settings(most=8))
    reasons = [s.finish_reason for s in drawn.values()]
    assert {"stop", "length"} == set(reasons)
    for s in drawn.values():
        assert STOP not in s.token_ids[:-1]
        if s.finish_reason == "stop":
            assert s.token_ids[-1] == STOP
            assert len(s.token_ids) <= 8
        else:
            assert s.token_ids[-1] != STOP
            assert len(s.token_ids) == 8


def test_a_shorter_limit_cuts_the_same_responses(requests: list[SampleRequest]) -> None:
    model = random_model()
    long, short = sample(model, requests, settings(most=12)), sample(model, requests, settings(most=3))
    for key, s in short.items():
        assert s.token_ids == long[key].token_ids[:3]


def test_any_of_the_stop_tokens_ends_a_response(requests: list[SampleRequest]) -> None:
    model = random_model()
    free = sample(model, requests)
    stops = (STOP, 7, 12)
    for key, s in sample(model, requests, SamplingSettings(20, 1.0, 1.0, 0, stops)).items():
        ids = free[key].token_ids
        end = next((place for place, token in enumerate(ids) if token in stops), len(ids) - 1)
        assert s.token_ids == ids[: end + 1]


def test_a_stop_token_at_once_is_a_response(requests: list[SampleRequest]) -> None:
    every = SamplingSettings(20, 1.0, 1.0, 0, tuple(range(VOCABULARY)))
    for s in sample(random_model(), requests, every).values():
        assert (len(s.token_ids), s.finish_reason) == (1, "stop")


def test_responses_come_as_they_end(requests: list[SampleRequest]) -> None:
    engine = TransformersEngine()
    engine.load("pol_1", random_model())
    lengths = [len(s.token_ids) for s in engine.sample(requests, settings())]
    assert lengths == sorted(lengths)


def test_nothing_asked_for_gives_nothing() -> None:
    assert sample(random_model(), []) == {}


# -- only the run's settings count ------------------------------------------------------------------------------------


def test_generation_settings_in_the_models_folder_change_nothing(
    random_folder: Path, tmp_path: Path, requests: list[SampleRequest]
) -> None:
    plain, set_up = tmp_path / "plain", tmp_path / "set-up"
    shutil.copytree(random_folder, plain)
    shutil.copytree(random_folder, set_up)
    (plain / "generation_config.json").unlink(missing_ok=True)
    own = {
        "do_sample": True,
        "top_p": 0.1,
        "top_k": 2,
        "temperature": 0.3,
        "repetition_penalty": 5.0,
        "eos_token_id": 4,
    }
    (set_up / "generation_config.json").write_text(json.dumps(own))
    first, second = load_model(plain), load_model(set_up)
    assert second.generation_config.top_k == 2
    assert sample(first, requests) == sample(second, requests)


def test_top_k_and_top_p_of_the_run_count(requests: list[SampleRequest]) -> None:
    model = random_model()
    greedy = tokens_of(sample(model, requests, settings(top_k=1)))
    assert greedy == tokens_of(sample(model, requests, settings(top_p=1e-6)))
    for name in {request.problem_id for request in requests}:
        assert len({greedy[name, index] for index in range(4)}) == 1
    assert greedy != tokens_of(sample(model, requests))


# -- the model is lent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_given_back_as_it_was(requests: list[SampleRequest], training: bool) -> None:
    model = random_model().train(training)
    checksum = weights_checksum(model)
    sample(model, requests)
    assert model.training == training
    assert torch.is_grad_enabled()
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert weights_checksum(model) == checksum


def test_a_caller_that_stops_early_or_learns_meanwhile_is_not_disturbed(requests: list[SampleRequest]) -> None:
    model = random_model().train()
    engine = TransformersEngine(max_batch_sequences=4)
    engine.load("pol_1", model)
    samples = engine.sample(requests, settings())
    next(samples)
    assert torch.is_grad_enabled()  # between two samples the caller's own mode holds
    samples.close()
    assert model.training
    assert torch.is_grad_enabled()


def test_a_failure_while_sampling_gives_the_model_back(requests: list[SampleRequest]) -> None:
    model = random_model().train()
    engine = TransformersEngine()
    engine.load("pol_1", model)
    outside = SampleRequest("prb", 0, 0, (VOCABULARY + 5,))
    with pytest.raises(IndexError):
        list(engine.sample([outside], settings()))
    assert model.training
    assert torch.is_grad_enabled()


def test_new_weights_of_the_same_object_are_sampled_from(requests: list[SampleRequest]) -> None:
    model = random_model()
    engine = TransformersEngine()
    engine.load("pol_1", model)
    before = {s.request: s.token_ids for s in engine.sample(requests, settings())}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    after = {s.request: s.token_ids for s in engine.sample(requests, settings())}
    assert before != after
    assert tokens_of(sample(model, requests)) == {(r.problem_id, r.sample_index): ids for r, ids in after.items()}


# -- engines by name --------------------------------------------------------------------------------------------------


def test_the_engines_name_tells_its_precision() -> None:
    names = [make_engine(EngineConfig(), compute_dtype=dtype, pad_id=0).name for dtype in ("float32", "bfloat16")]
    assert names == ["transformers/float32", "transformers/bfloat16"]


def test_bfloat16_samples_from_float32_weights(requests: list[SampleRequest]) -> None:
    model = random_model()
    engine = make_engine(EngineConfig(), compute_dtype="bfloat16", pad_id=0)
    engine.load("pol_1", model)
    drawn = list(engine.sample(requests, settings()))
    assert len(drawn) == len(requests)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    first = {(s.request.problem_id, s.request.sample_index): s.logprob for s in drawn}
    exact = sample(model, requests)
    assert any(first[key] != exact[key].logprob for key in exact)


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Unknown engine 'transfomers'\. Did you mean 'transformers'"):
        make_engine(EngineConfig(use="transfomers"), compute_dtype="float32", pad_id=0)


# -- responses that were begun, and time that is over -----------------------------------------------------------------


def going_on(free: Drawn, tokens: int) -> list[SampleRequest]:
    """Requests to go on with what is longer than so many tokens; its log-probability is made up."""
    return [
        replace(s.request, begun=s.token_ids[:tokens], begun_logprob=-100.0)
        for s in free.values()
        if len(s.token_ids) > tokens
    ]


@pytest.mark.parametrize("begun", [1, 12])
def test_a_response_goes_on_as_if_it_had_never_stopped(
    model: PreTrainedModel, requests: list[SampleRequest], begun: int
) -> None:
    free = sample(model, requests)
    head = sample(model, requests, settings(most=begun))
    rest = going_on(free, begun)
    assert len(rest) > 3
    for key, s in sample(model, rest, sequences=3).items():
        assert s.token_ids == free[key].token_ids
        assert s.finish_reason == free[key].finish_reason
        assert s.logprob == pytest.approx(free[key].logprob - head[key].logprob - 100.0, abs=1e-4)


def test_responses_may_have_come_differently_far(requests: list[SampleRequest]) -> None:
    model = random_model()
    free = sample(model, requests)
    mixed = [
        replace(s.request, begun=s.token_ids[: place % 5])
        for place, s in enumerate(free.values())
        if len(s.token_ids) > place % 5
    ]
    assert len({len(request.begun) for request in mixed}) == 5
    drawn = tokens_of(sample(model, mixed))
    assert drawn == {key: ids for key, ids in tokens_of(free).items() if key in drawn}


@pytest.mark.parametrize("sequences", [256, 5])
def test_a_budget_cuts_the_same_responses_in_any_batches(requests: list[SampleRequest], sequences: int) -> None:
    model = random_model()
    free = sample(model, requests)
    engine = TransformersEngine(max_batch_sequences=sequences)
    engine.load("pol_1", model)
    drawn = list(sample_within(engine, requests, replace(settings(), token_budget=150)))
    assert len(drawn) == len(requests)
    assert sum(len(s.token_ids) for s in drawn) <= 150
    (cut,) = {len(s.token_ids) for s in drawn if s.finish_reason == "budget"}
    for s in drawn:
        whole = free[s.request.problem_id, s.request.sample_index]
        assert s.token_ids == whole.token_ids[:cut]
        assert s.finish_reason == (whole.finish_reason if len(whole.token_ids) <= cut else "budget")


def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock finds a second gone."""
    seconds = itertools.count()
    monkeypatch.setattr(transformers_engine, "monotonic", lambda: float(next(seconds)))


def test_after_the_deadline_each_response_is_given_as_far_as_it_came(
    model: PreTrainedModel, requests: list[SampleRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = sample(model, requests)
    clock(monkeypatch)  # one look at the start, one before the batch, one for each token
    drawn = sample(model, requests, replace(settings(), deadline_s=7.0))
    assert {len(s.token_ids) for s in drawn.values() if s.finish_reason == "deadline"} == {6}
    for key, s in drawn.items():
        assert s.token_ids == free[key].token_ids[:6]
        assert s.finish_reason == ("deadline" if len(free[key].token_ids) > 6 else "stop")


def test_time_is_shared_among_batches_and_none_goes_without(
    requests: list[SampleRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model()
    never = SamplingSettings(20, 1.0, 1.0, 0, (VOCABULARY,), deadline_s=48.0)
    clock(monkeypatch)
    drawn = sample(model, requests, never, sequences=6)
    lengths = [len(s.token_ids) for s in drawn.values()]
    assert set(lengths) <= {
        9,
        10,
        11,
        12,
    }  # a quarter of 48 looks at the clock for each of four batches, few for itself
    assert {s.finish_reason for s in drawn.values()} == {"deadline"}
    clock(monkeypatch)
    nothing = sample(model, requests, replace(never, deadline_s=0.0), sequences=6)
    assert {(len(s.token_ids), s.finish_reason) for s in nothing.values()} == {(1, "deadline")}


def test_batches_that_end_early_leave_their_time_to_the_others(
    requests: list[SampleRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Uneven(TransformersEngine):
        def limits(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> np.ndarray:
            return np.array([2 if len(r.prompt_ids) > 6 else settings.max_new_tokens for r in requests])

    engine = Uneven(max_batch_sequences=12)
    engine.load("pol_1", random_model())
    clock(monkeypatch)
    never = SamplingSettings(50, 1.0, 1.0, 0, (VOCABULARY,), deadline_s=24.0)
    ends = {(len(s.token_ids), s.finish_reason) for s in engine.sample(requests, never)}
    assert ends == {(2, "length"), (20, "deadline")}  # not 12 for each
