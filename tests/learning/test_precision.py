"""bfloat16 compute on float32 weights: rounded copies, float32 sums of gradients, and a rounded reference."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from reval_core.learning.batch import TrainingExample
from reval_core.learning.precision import computing_in, round_weights
from reval_core.learning.reference import reference_scores, score_examples, scoring_mode

MakeModel = Callable[..., nn.Module]
Examples = list[TrainingExample]


def test_parameters_are_rounded_inside_and_themselves_again_outside(make_model: MakeModel) -> None:
    model = make_model(tie_word_embeddings=True)
    before = dict(model.named_parameters(remove_duplicate=False))
    with pytest.raises(RuntimeError, match="inside"), computing_in(model, "bfloat16"):
        for name, copy in model.named_parameters(remove_duplicate=False):
            assert copy.dtype == torch.bfloat16
            assert torch.equal(copy, before[name].bfloat16())
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert model.model.rotary_emb.inv_freq.dtype == torch.float32
        raise RuntimeError("inside")
    after = dict(model.named_parameters(remove_duplicate=False))
    assert all(after[name] is before[name] for name in before)
    with computing_in(model, "float32"):
        assert next(model.parameters()).dtype == torch.float32


def test_gradients_of_micro_batches_add_up_in_float32() -> None:
    """In bfloat16 a sum stalls: 256 + 1 is 256."""
    layer = nn.Linear(1, 1, bias=False)
    with computing_in(layer, "bfloat16"):
        for size in [256.0] + 100 * [1.0]:
            layer(torch.tensor([[size]], dtype=torch.bfloat16)).backward()
        assert layer.weight.grad is None
    assert layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.item() == 356


@pytest.mark.parametrize("packed", [False, True])
def test_a_reference_rounded_for_good_scores_as_its_weights_do_to_the_bit(
    make_model: MakeModel, examples: Examples, packed: bool
) -> None:
    model = make_model(tie_word_embeddings=True)
    rounded = deepcopy(model)
    round_weights(rounded)
    assert {parameter.dtype for parameter in rounded.parameters()} == {torch.bfloat16}
    settings = {"max_tokens": 30, "packed": packed, "compute_dtype": "bfloat16"}
    found, expected = (reference_scores(some, examples, **settings) for some in (rounded, model))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_gradient_in_bfloat16_is_near_that_in_float32(make_model: MakeModel, examples: Examples) -> None:
    model, gradients = make_model(), []
    for dtype in ("float32", "bfloat16"):
        model.zero_grad()
        with scoring_mode(model, dtype, packed=True):
            _, scores = score_examples(model, examples, gradient=True, packed=True)
            (scores.logprob + scores.root_value).mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert gradients[1].dtype == torch.float32
    assert (gradients[1] - gradients[0]).norm() / gradients[0].norm() < 0.03
