"""Scores of responses: against the model's own logits, under any padding, junk, order and chunking."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from reval_core.learning import head
from reval_core.learning.batch import TrainingExample, pad
from reval_core.learning.precision import computing_in
from reval_core.learning.scoring import PLAIN_HEAD_FAMILIES, Scores, score

MakeModel = Callable[..., nn.Module]


def _bare(model: nn.Module, example: TrainingExample, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-prob of each response token and V before it, from the logits of one unpadded sequence."""
    ids = torch.from_numpy(np.concatenate([example.prompt_ids, example.response_ids]).astype(np.int64))
    logits = model(ids[None]).logits[0]
    start = len(example.prompt_ids)
    logits = logits[start - 1 : -1] / temperature  # the row before each response token
    return logits.log_softmax(1).gather(1, ids[start:, None]).squeeze(1), logits.logsumexp(1)


def _score(model: nn.Module, examples: list[TrainingExample], side: str = "right", **settings: object) -> Scores:
    batch = pad(examples, pad_id=5, side=side)
    return score(model, batch.input_ids, batch.attention_mask, batch.response_mask, **settings)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_are_those_of_each_sequence_alone(
    make_model: MakeModel, examples: list[TrainingExample], side: str, temperature: float
) -> None:
    model = make_model(torch.float64)
    batch = pad(examples, side=side)
    scores = _score(model, examples, side, temperature=temperature, token_logprobs=True)
    for row, example in enumerate(examples):
        tokens, values = _bare(model, example, temperature)
        mask = batch.response_mask[row]
        torch.testing.assert_close(scores.token_logprob[row][mask], tokens, rtol=0, atol=1e-12)
        torch.testing.assert_close(scores.value[row][mask], values, rtol=0, atol=1e-12)
        torch.testing.assert_close(scores.logprob[row], tokens.sum(), rtol=0, atol=1e-12)
        torch.testing.assert_close(scores.root_value[row], values[0], rtol=0, atol=1e-12)
        assert (scores.token_logprob[row][~mask] == 0).all()
        assert (scores.value[row][~mask] == 0).all()


def test_dtypes_are_float32_or_better(make_model: MakeModel, examples: list[TrainingExample]) -> None:
    for model_dtype, expected in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        scores = _score(make_model(model_dtype), examples, token_logprobs=True)
        assert scores.logprob.dtype == scores.root_value.dtype == scores.token_logprob.dtype == expected
    assert _score(make_model(), examples).token_logprob is None


@pytest.mark.parametrize("under", ["autocast", "computing_in"])
def test_under_bfloat16_the_logits_are_still_float32(
    make_model: MakeModel, examples: list[TrainingExample], under: str
) -> None:
    model, example, states = make_model(), examples[-1], []
    with torch.autocast("cpu", dtype=torch.bfloat16) if under == "autocast" else computing_in(model, "bfloat16"):
        hook = model.model.register_forward_hook(lambda module, given, output: states.append(output.last_hidden_state))
        value = _score(model, [example]).root_value[0]
        hook.remove()
        (state,) = states  # what the head was given: another shape of the batch would round it otherwise
        hidden = state[0, len(example.prompt_ids) - 1]
        rounded = model.lm_head(hidden).float().logsumexp(0)
        exact = (model.lm_head.weight.double() @ hidden.double()).logsumexp(0)
    assert abs(value.item() - exact.item()) < 1e-5
    assert abs(rounded.item() - exact.item()) > 1e-4
    assert abs(_score(model, [example]).root_value[0].item() - exact.item()) > 2e-5  # the rest was rounded


def _gradient(model: nn.Module, scores: Scores) -> Tensor:
    weight = torch.linspace(-1, 2, len(scores.logprob), dtype=scores.logprob.dtype)
    model.zero_grad()
    (weight * (scores.logprob + scores.root_value)).sum().backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_gradient_does_not_depend_on_padding_junk_or_side(
    make_model: MakeModel, examples: list[TrainingExample], dtype: torch.dtype, limit: float
) -> None:
    model = make_model(dtype)
    expected = _gradient(model, _score(model, examples))
    assert expected.norm() > 1
    for side in ("left", "right"):
        batch = pad(examples, side=side)
        for junk in (1, -100, 10**6):  # not even ids of the vocabulary
            ids = torch.where(batch.attention_mask.bool(), batch.input_ids, junk)
            ids = nn.functional.pad(ids, (3, 2), value=junk)
            masks = [nn.functional.pad(mask, (3, 2)) for mask in (batch.attention_mask, batch.response_mask)]
            found = _gradient(model, score(model, ids, *masks))
            assert (found - expected).norm() / expected.norm() <= limit


def test_masks_may_be_of_any_kind(make_model: MakeModel, examples: list[TrainingExample]) -> None:
    model, batch = make_model(), pad(examples)
    expected = _score(model, examples).logprob
    for kind in (torch.bool, torch.int64, torch.float32):
        masks = batch.attention_mask.to(kind), batch.response_mask.to(kind)
        assert torch.equal(score(model, batch.input_ids.int(), *masks).logprob, expected)


def test_a_response_of_one_token_is_its_raw_logit_minus_the_root_value(make_model: MakeModel) -> None:
    model = make_model(torch.float64)
    example = TrainingExample("trj_0", "grp_0", np.array([3], np.int32), np.array([7], np.int32), 1.0)
    scores = _score(model, [example])
    raw = model(torch.tensor([[3]])).logits[0, 0, 7]
    torch.testing.assert_close((scores.logprob + scores.root_value)[0], raw, rtol=0, atol=1e-13)


def test_the_head_in_chunks_gives_the_same_scores_and_gradient(
    make_model: MakeModel, examples: list[TrainingExample], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(torch.float64)
    whole = _score(model, examples)
    gradient = _gradient(model, whole)
    monkeypatch.setattr(head, "LOGITS_PER_CHUNK", 23 * 4)  # four positions at a time
    chunked = _score(model, examples)
    torch.testing.assert_close(chunked.logprob, whole.logprob, rtol=0, atol=1e-12)
    assert (_gradient(model, chunked) - gradient).norm() / gradient.norm() < 1e-12


SIZES = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}


@pytest.mark.parametrize("family", [*sorted(PLAIN_HEAD_FAMILIES), "gemma2", "cohere"])
def test_every_family_is_scored_by_its_own_logits(family: str) -> None:
    """Also those whose logits are scaled or capped after the head, which the short way would miss."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES)
    model = AutoModelForCausalLM.from_config(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0)  # logits large enough for a cap to show
    rng = np.random.default_rng(0)
    examples = [
        TrainingExample("trj", "grp", rng.integers(0, 19, n + 1), rng.integers(0, 19, 3 - n), 0.0) for n in range(3)
    ]
    for side in ("left", "right"):
        scores = _score(model, examples, side)
        for row, example in enumerate(examples):
            tokens, values = _bare(model, example)
            torch.testing.assert_close(scores.logprob[row], tokens.sum(), rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(scores.root_value[row], values[0], rtol=1e-9, atol=1e-9)


class Table(nn.Module):
    """Logits by the last token alone, from a forward that knows nothing of positions or masks."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.arange(16, dtype=torch.float64).view(4, 4).sin())

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits[input_ids])


def test_any_module_with_logits_can_be_scored() -> None:
    model = Table()
    scores = score(model, torch.tensor([[9, 1, 2, 3]]), torch.tensor([[0, 1, 1, 1]]), torch.tensor([[0, 0, 1, 1]]))
    expected = model.logits[1].log_softmax(0)[2] + model.logits[2].log_softmax(0)[3]
    torch.testing.assert_close(scores.logprob[0], expected)
    torch.testing.assert_close(scores.root_value[0], model.logits[1].logsumexp(0))


@pytest.mark.parametrize(
    ("attention", "response", "message"),
    [
        ([[1, 1, 1], [1, 1, 1]], [[0, 0, 1], [0, 0, 0]], r"rows \[1\] have no response token"),
        ([[1, 1, 1], [1, 1, 0]], [[0, 1, 1], [0, 1, 1]], r"rows \[1\] a response token is padding"),
        ([[1, 1, 1], [1, 1, 1]], [[1, 1, 1], [0, 1, 1]], r"rows \[0\] a response token is padding or has no token"),
        ([[0, 1, 1], [1, 1, 1]], [[0, 1, 1], [0, 1, 1]], r"rows \[0\] a response token is padding or has no token"),
        ([[1, 1], [1, 1]], [[0, 1], [0, 1]], r"must all be \[B, T\]"),
    ],
)
def test_what_cannot_be_scored_is_refused(attention: list, response: list, message: str) -> None:
    ids = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        score(Table(), ids, torch.tensor(attention), torch.tensor(response))


def test_a_temperature_of_zero_is_refused(make_model: MakeModel, examples: list[TrainingExample]) -> None:
    with pytest.raises(ValueError, match="temperature is 0"):
        _score(make_model(), examples, temperature=0)
