"""What every engine promises. On transformers here; on vLLM, in process and over HTTP, by `make vllm`."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from contracted import DEVICE, Contracted
from torch import Tensor

from reval_core.identity import sample_seed
from reval_core.rollouts import Sample, SampleRequest, SamplingSettings, sample_within

STOP = 1
Drawn = dict[tuple[str, int], Sample]
ALL = SamplingSettings(max_new_tokens=16, temperature=1.0, top_p=1.0, top_k=0, stop_ids=(STOP,))


def requests_of(prompts: Sequence[Sequence[int]], samples: int = 4) -> list[SampleRequest]:
    """Some samples of each prompt."""
    names = {f"prb_{number}": tuple(prompt) for number, prompt in enumerate(prompts)}
    return [
        SampleRequest(name, index, sample_seed("bat", 0, name, index), prompt)
        for name, prompt in names.items()
        for index in range(samples)
    ]


@pytest.fixture(scope="module")
def requests() -> list[SampleRequest]:
    """Four samples of each of five prompts of 1 to 13 tokens."""
    rng = np.random.default_rng(0)
    return requests_of([rng.integers(4, 19, 1 + 3 * number).tolist() for number in range(5)])


def drawn(contracted: Contracted, requests: Sequence[SampleRequest], settings: SamplingSettings = ALL) -> Drawn:
    samples = list(contracted.engine.sample(requests, settings))
    assert len(samples) == len(requests)
    return {(s.request.problem_id, s.request.sample_index): s for s in samples}


def tokens_of(samples: Drawn) -> dict[tuple[str, int], tuple[int, ...]]:
    return {key: s.token_ids for key, s in samples.items()}


def logits_of(model: torch.nn.Module, sample: Sample) -> Tensor:
    """[T, V] float64 logits of the response's positions: one sequence alone, nothing padded, no cache."""
    prompt = sample.request.prompt_ids
    ids = torch.tensor([prompt + sample.token_ids], device=DEVICE)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0].double()
    return logits[len(prompt) - 1 : -1].cpu()


def furthest(model: torch.nn.Module, samples: Drawn, temperature: float = 1.0) -> float:
    """The greatest difference of a response's log-probability from a whole forward pass, in nats."""
    apart = []
    for sample in samples.values():
        logprobs = torch.log_softmax(logits_of(model, sample) / temperature, dim=-1)
        whole = logprobs.gather(-1, torch.tensor(sample.token_ids)[:, None]).sum().item()
        apart.append(abs(sample.logprob - whole))
    return max(apart)


# -- weights ----------------------------------------------------------------------------------------------------------


def test_log_probabilities_are_the_models_before_and_after_a_swap(
    contracted: Contracted, requests: list[SampleRequest]
) -> None:
    first, second = contracted.model(0), contracted.model(1)
    contracted.engine.load("pol_1", first)
    before = drawn(contracted, requests)
    assert furthest(first, before) < 1e-4
    contracted.engine.load("pol_2", second)
    after = drawn(contracted, requests)
    assert furthest(second, after) < 1e-4
    assert furthest(first, after) > 1.0
    assert {s.policy_id for s in before.values()} == {"pol_1"}
    assert {s.policy_id for s in after.values()} == {"pol_2"}


def test_a_long_prompt_that_is_cached_is_computed_anew_after_a_swap(contracted: Contracted) -> None:
    shared = np.random.default_rng(1).integers(4, 19, 120).tolist()
    siblings = requests_of([[*shared, 5], [*shared, 6]])
    for seed in (0, 1):
        model = contracted.model(seed)
        contracted.engine.load(f"pol_{seed}", model)
        assert furthest(model, drawn(contracted, siblings)) < 1e-4
        assert furthest(model, drawn(contracted, siblings)) < 1e-4  # the second time from the cache


def test_a_step_of_learning_in_place_is_a_new_policy(contracted: Contracted, requests: list[SampleRequest]) -> None:
    model = contracted.model().train()
    contracted.engine.load("pol_1", model)
    before = drawn(contracted, requests)
    contracted.engine.sleep()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    ids = torch.tensor([[4, 5, 6, 7]], device=DEVICE)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    contracted.engine.load("pol_2", model)
    after = drawn(contracted, requests)
    assert tokens_of(after) != tokens_of(before)
    assert furthest(model, after) < 1e-4
    assert model.training


def test_it_wakes_with_the_policy_that_is_loaded(contracted: Contracted, requests: list[SampleRequest]) -> None:
    model = contracted.model()
    contracted.engine.load("pol_1", model)
    wanted = drawn(contracted, requests)
    contracted.engine.sleep()
    contracted.engine.sleep()
    contracted.engine.load("pol_1", model)
    assert tokens_of(drawn(contracted, requests)) == tokens_of(wanted)


# -- a sample is its own ----------------------------------------------------------------------------------------------


def test_the_same_seeds_give_the_same_tokens_whatever_is_sampled_beside_them(
    contracted: Contracted, requests: list[SampleRequest]
) -> None:
    contracted.engine.load("pol_1", contracted.model())
    wanted = tokens_of(drawn(contracted, requests))
    assert tokens_of(drawn(contracted, requests)) == wanted
    assert tokens_of(drawn(contracted, requests[::-1])) == wanted
    some = requests[1::3]
    assert tokens_of(drawn(contracted, some)) == {key: wanted[key] for key in tokens_of(drawn(contracted, some))}
    alone = [tokens_of(drawn(contracted, [request])) for request in requests[:6]]
    assert {key: ids for one in alone for key, ids in one.items()}.items() <= wanted.items()


def test_samples_of_one_prompt_and_other_seeds_differ(contracted: Contracted, requests: list[SampleRequest]) -> None:
    contracted.engine.load("pol_1", contracted.model())
    first = tokens_of(drawn(contracted, requests))
    for name in {request.problem_id for request in requests}:
        assert len({first[name, index] for index in range(4)}) >= 3  # the stop token at once can come twice
    second = tokens_of(drawn(contracted, [replace(r, seed=r.seed ^ 1) for r in requests]))
    assert sum(first[key] != second[key] for key in first) > len(first) - 3


def test_the_callers_random_states_grad_mode_and_threads_stay(
    contracted: Contracted, requests: list[SampleRequest]
) -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state(), torch.get_num_threads()
    contracted.engine.load("pol_rng", contracted.model())
    drawn(contracted, requests)
    contracted.engine.sleep()
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.get_num_threads() == before[3]
    torch.set_num_threads(before[3] + 1)
    assert torch.get_num_threads() == before[3] + 1
    torch.set_num_threads(before[3])
    assert torch.is_grad_enabled()


def test_the_first_tokens_come_with_the_models_probabilities(contracted: Contracted) -> None:
    model = contracted.model()
    contracted.engine.load("pol_1", model)
    many = requests_of([[5, 9, 4]], samples=600)
    first = [s.token_ids[0] for s in drawn(contracted, many, replace(ALL, max_new_tokens=1)).values()]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 9, 4]], device=DEVICE)).logits[0, -1]
        wanted = torch.softmax(logits.double(), dim=-1).cpu().numpy()
    counts = np.bincount(first, minlength=len(wanted))
    rare = 600 * wanted < 5  # together, as the test wants expected counts of 5 and more
    expected = np.append(600 * wanted[~rare], 600 * wanted[rare].sum())
    found = np.append(counts[~rare], counts[rare].sum())
    assert ((found - expected) ** 2 / expected).sum() < 42.3  # 99.9 % of chi-square with 18 degrees of freedom


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"), [(0.7, 1.0, 0), (1.0, 0.8, 0), (0.7, 0.8, 0), (1.3, 1.0, 3), (0.7, 0.9, 4)]
)
def test_log_probabilities_are_at_the_temperature_and_before_the_cuts(
    contracted: Contracted, requests: list[SampleRequest], temperature: float, top_p: float, top_k: int
) -> None:
    model = contracted.model()
    contracted.engine.load("pol_1", model)
    settings = replace(ALL, temperature=temperature, top_p=top_p, top_k=top_k)
    samples = drawn(contracted, requests, settings)
    assert furthest(model, samples, temperature) < 1e-4
    for sample in samples.values():
        for token, logits in zip(sample.token_ids, logits_of(model, sample), strict=True):
            likelier = torch.softmax(logits / temperature, dim=-1)
            likelier = likelier[likelier > likelier[token]]
            assert not top_k or len(likelier) < top_k
            assert likelier.sum() < top_p + 1e-4


def test_cuts_to_one_token_are_greedy(contracted: Contracted, requests: list[SampleRequest]) -> None:
    model = contracted.model()
    contracted.engine.load("pol_1", model)
    for settings in (replace(ALL, top_k=1), replace(ALL, top_p=1e-6)):
        for sample in drawn(contracted, requests, settings).values():
            assert tuple(logits_of(model, sample).argmax(-1).tolist()) == sample.token_ids


def test_a_response_ends_with_a_stop_token_or_at_the_limit(
    contracted: Contracted, requests: list[SampleRequest]
) -> None:
    contracted.engine.load("pol_1", contracted.model())
    samples = drawn(contracted, requests)
    assert {s.finish_reason for s in samples.values()} == {"stop", "length"}
    for s in samples.values():
        assert STOP not in s.token_ids[:-1]
        assert (s.token_ids[-1] == STOP) == (s.finish_reason == "stop")
        assert len(s.token_ids) == 16 or s.finish_reason == "stop"
    # the model's own EOS is not among the stop tokens
    assert any(3 in s.token_ids[:-1] for s in samples.values())


def test_any_of_several_stop_tokens_ends_a_response(contracted: Contracted, requests: list[SampleRequest]) -> None:
    contracted.engine.load("pol_1", contracted.model())
    free = tokens_of(drawn(contracted, requests))
    stops = (STOP, 7, 12)
    for key, s in drawn(contracted, requests, replace(ALL, stop_ids=stops)).items():
        end = next((place for place, token in enumerate(free[key]) if token in stops), len(free[key]) - 1)
        assert s.token_ids == free[key][: end + 1]
        assert s.finish_reason == ("stop" if s.token_ids[-1] in stops else "length")


def test_a_stop_token_at_once_is_a_response(contracted: Contracted, requests: list[SampleRequest]) -> None:
    model = contracted.model()
    contracted.engine.load("pol_1", model)
    every = replace(ALL, stop_ids=tuple(range(model.config.vocab_size)))
    samples = drawn(contracted, requests, every)
    assert {(len(s.token_ids), s.finish_reason) for s in samples.values()} == {(1, "stop")}


def test_the_longest_sequence_fits(contracted: Contracted) -> None:
    model = contracted.model()
    contracted.engine.load("pol_1", model)
    longest = requests_of([[5] * 240], samples=24)
    whole = [s for s in drawn(contracted, longest).values() if s.finish_reason == "length"]
    assert whole
    assert {len(s.token_ids) for s in whole} == {16}


def test_nothing_asked_for_gives_nothing(contracted: Contracted) -> None:
    contracted.engine.load("pol_1", contracted.model())
    assert list(contracted.engine.sample([], ALL)) == []


# -- an end before the end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [False, True])
def test_who_stops_early_leaves_nothing_behind(
    contracted: Contracted, requests: list[SampleRequest], cut: bool
) -> None:
    contracted.engine.load("pol_1", contracted.model())
    settings = replace(ALL, top_k=5) if cut else ALL
    wanted = tokens_of(drawn(contracted, requests, settings))
    for after in (0, 1, 3):
        samples = iter(contracted.engine.sample(requests, settings))
        for _ in range(after):
            next(samples)
        samples.close()  # type: ignore[attr-defined]
        assert torch.is_grad_enabled()
    assert tokens_of(drawn(contracted, requests, settings)) == wanted


def test_a_budget_is_kept_and_what_it_cut_is_what_the_policy_samples(
    contracted: Contracted, requests: list[SampleRequest]
) -> None:
    if "token_budget" not in contracted.engine.keeps:
        pytest.skip("it keeps no budget")
    model = contracted.model()
    contracted.engine.load("pol_1", model)
    limited = replace(ALL, token_budget=10 * len(requests))
    tokens = []
    for _ in range(2):
        samples = list(sample_within(contracted.engine, requests, limited))
        ends = {(s.request.problem_id, s.request.sample_index): s for s in samples}
        assert len(ends) == len(requests)
        assert {s.finish_reason for s in samples} >= {"stop", "budget"}
        assert sum(len(s.token_ids) for s in samples) <= 10 * len(requests)
        assert len({len(s.token_ids) for s in samples if s.finish_reason == "budget"}) == 1
        assert furthest(model, ends) < 1e-3
        assert all(not s.request.begun for s in samples)
        tokens.append(tokens_of(ends))
    assert tokens[0] == tokens[1]


def test_at_a_deadline_everybody_has_a_token(contracted: Contracted, requests: list[SampleRequest]) -> None:
    if "deadline_s" not in contracted.engine.keeps:
        pytest.skip("it keeps no deadline")
    model = contracted.model()
    contracted.engine.load("pol_1", model)
    samples = drawn(contracted, requests, replace(ALL, deadline_s=0.0))
    assert "deadline" in {s.finish_reason for s in samples.values()}
    assert min(len(s.token_ids) for s in samples.values()) >= 1
    assert furthest(model, samples) < 1e-3
    late = [s for s in samples.values() if s.finish_reason == "deadline"]
    assert all(STOP not in s.token_ids for s in late)
    # with time enough it changes nothing, and nothing was left behind
    wanted = tokens_of(drawn(contracted, requests))
    assert tokens_of(drawn(contracted, requests, replace(ALL, deadline_s=600.0))) == wanted
