"""Packed sequences: the scores and gradients of padded ones, for every family, split and order."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.errors import LearningError
from reval_core.learning.attention import packed_attention
from reval_core.learning.batch import TrainingExample, micro_batches
from reval_core.learning.layout import packed_layout, padded_layout
from reval_core.learning.learner import Learner
from reval_core.learning.objectives import REGISTERED
from reval_core.learning.reference import reference_scores, score_examples, scoring_mode
from reval_core.learning.scoring import PLAIN_HEAD_FAMILIES, Scores

MakeModel = Callable[..., nn.Module]
Examples = list[TrainingExample]


def _scores(model: nn.Module, examples: Examples, *, packed: bool) -> Scores:
    with scoring_mode(model, "float32", packed=packed):
        return score_examples(model, examples, gradient=True, packed=packed, token_logprobs=True)[1]


def test_both_layouts_hold_the_same_tokens_and_cells(examples: Examples) -> None:
    packed, padded = packed_layout(examples), padded_layout(examples)
    assert packed.input_ids.shape == (1, sum(len(example) for example in examples))
    assert torch.equal(packed.input_ids[0], padded.input_ids[padded.attention_mask.bool()])
    assert torch.equal(packed.position_ids[0], padded.position_ids[padded.attention_mask.bool()])
    for name in ("labels", "first"):
        assert torch.equal(getattr(packed, name), getattr(padded, name))
    for layout in (packed, padded):
        # what predicts a response token stands right before it
        assert torch.equal(layout.input_ids.flatten()[layout.predicting + 1], layout.labels)
        assert layout.response_mask.flatten().nonzero().flatten().equal(layout.cells)
        assert layout.response_mask.sum(1).tolist() == [len(example.response_ids) for example in examples]
    assert packed.boundaries.diff().tolist() == [*packed.lengths] == [len(example) for example in examples]


@pytest.mark.parametrize("family", sorted(PLAIN_HEAD_FAMILIES))
def test_every_family_scores_packed_sequences_as_it_scores_each_alone(family: str) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 19, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    window = {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 0}
    config = AutoConfig.for_model(family, **sizes, **heads, **ids, **window, resid_pdrop=0.0, attn_pdrop=0.0)
    model = AutoModelForCausalLM.from_config(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    rng = np.random.default_rng(0)
    examples = [
        TrainingExample("trj", "grp", rng.integers(0, 19, 3 + n), rng.integers(0, 19, 1 + 3 * n), 0.0) for n in range(4)
    ]
    packed = _scores(model, examples, packed=True)
    for row, example in enumerate(examples):
        alone = _scores(model, [example], packed=False)
        torch.testing.assert_close(packed.logprob[row], alone.logprob[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(packed.root_value[row], alone.root_value[0], rtol=1e-10, atol=1e-10)
    assert model.config._attn_implementation == "sdpa"  # as before


@pytest.mark.parametrize("window", [None, 1, 3, 5, 6, 100])
def test_attention_is_that_of_a_block_diagonal_mask(window: int | None) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 4, 10, 8).double(), torch.randn(1, 2, 10, 8).double(), torch.randn(1, 2, 10, 8).double()
    sequence = torch.repeat_interleave(torch.arange(3), torch.tensor([1, 6, 3]))
    distance = torch.arange(10)[:, None] - torch.arange(10)
    mask = (sequence[:, None] == sequence) & (distance >= 0) & (distance < (window or 10))
    expected = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True).transpose(1, 2)
    boundaries = torch.tensor([0, 1, 7, 10], dtype=torch.int32)
    arguments = {"boundaries": boundaries, "lengths": (1, 6, 3), "scaling": 0.3, "sliding_window": window}
    found, _ = packed_attention(nn.Identity(), q, k, v, None, **arguments)
    torch.testing.assert_close(found, expected)
    for refused in ({"dropout": 0.1}, {"softcap": 30.0}):
        with pytest.raises(ValueError, match=r"optimizer\.packing: false"):
            packed_attention(nn.Identity(), q, k, v, None, **arguments, **refused)


@pytest.mark.filterwarnings("ignore:.*activation_checkpointing:FutureWarning")
@pytest.mark.parametrize("use", sorted(REGISTERED))
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_gradient_is_that_of_padded_rows_for_any_split_and_order(
    make_model: MakeModel, examples: Examples, use: str, dtype: torch.dtype, limit: float
) -> None:
    model = make_model(dtype, seed=1)
    logprob, value = reference_scores(make_model(dtype), examples, max_tokens=64)
    scored = [
        replace(example, ref_logprob=float(logprob[n]), ref_root_value=float(value[n]))
        for n, example in enumerate(examples)
    ]
    scored[3] = replace(scored[3], weight=0.25)

    def gradient(max_tokens: int, order: Examples, *, packing: bool) -> Tensor:
        settings = OptimizerConfig(max_tokens_per_micro_batch=max_tokens, packing=packing)
        learner = Learner(model, ObjectiveConfig(use=use, beta=0.1), settings)
        learner.begin_round(scored)
        learner.zero_grad()
        learner.accumulate(order)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    expected = gradient(10_000, scored, packing=False)
    assert expected.norm() > 1e-3
    for max_tokens, order in ((1, scored), (20, scored), (40, scored), (10_000, scored), (40, scored[::-1])):
        found = gradient(max_tokens, order, packing=True)
        assert (found - expected).norm() / expected.norm() <= limit
    model.gradient_checkpointing_enable()
    found = gradient(40, scored, packing=True)
    assert (found - expected).norm() / expected.norm() <= limit


def test_packed_micro_batches_are_full_and_hold_every_example_once() -> None:
    rng = np.random.default_rng(0)
    examples = [
        TrainingExample(str(n), "g", np.zeros(3, np.int32), np.zeros(length, np.int32), 0.0)
        for n, length in enumerate(rng.integers(1, 60, 200))
    ]
    batches = micro_batches(examples, 100, packed=True)
    assert sorted(index for indices in batches for index in indices) == list(range(200))
    sizes = [sum(len(examples[index]) for index in indices) for indices in batches]
    assert max(sizes) <= 100
    assert len(batches) <= 1.03 * sum(sizes) / 100 + 1
    assert micro_batches(examples, 1, packed=True) == [
        [index] for index in sorted(range(200), key=lambda index: -len(examples[index]))
    ]


def test_a_model_that_cannot_be_packed_says_so(examples: Examples) -> None:
    with pytest.raises(LearningError, match=r"optimizer\.packing is true, but"):
        reference_scores(nn.Linear(2, 2), examples, max_tokens=64, packed=True)
