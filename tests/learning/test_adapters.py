"""Low-rank adapters: what they compute, what of a model they let learn, and what is held once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from reval_core.config import LoraConfig, ModelConfig, ObjectiveConfig, OptimizerConfig
from reval_core.errors import ConfigError, LearningError
from reval_core.learning import head
from reval_core.learning.activations import checkpoint_activations
from reval_core.learning.adapters import (
    adapted,
    adapter_numbers,
    adapter_tensors,
    check_targets,
    learn_adapter,
)
from reval_core.learning.batch import TrainingExample
from reval_core.learning.calibration import calibrate
from reval_core.learning.learner import Learner
from reval_core.learning.precision import round_weights
from reval_core.learning.reference import reference_scores
from reval_core.policies.folder import weights_checksum

pytest.importorskip("peft")

LORA = LoraConfig(rank=3, alpha=6)
OBJECTIVE = ObjectiveConfig(beta=0.5)
Examples = list[TrainingExample]


@pytest.fixture
def base(make_model: Callable[..., Any]) -> Any:
    return make_model().requires_grad_(False)


def grown(base: Any, seed: int = 3, lora: LoraConfig = LORA) -> Any:
    """A model with an adapter whose second factors are no longer 0."""
    model = adapted(base, lora)
    source = torch.Generator().manual_seed(seed)
    for name, value in adapter_tensors(model).items():
        if ".lora_B." in name:
            value.data.normal_(0, 0.3, generator=source)
    return model


def dense(base: Any, model: Any) -> tuple[Any, dict[str, nn.Parameter]]:
    """The base with W + (alpha / rank) B A written out as its weights, which require a gradient, by name."""
    plain = copy.deepcopy(base)
    tensors = adapter_tensors(model)
    changed = {}
    for name in {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in tensors}:
        a, b = (tensors[f"base_model.model.{name}.lora_{part}.weight"].detach() for part in "AB")
        module = plain.get_submodule(name)
        module.weight = nn.Parameter(module.weight.detach() + LORA.alpha / LORA.rank * (b @ a))
        changed[name] = module.weight
    return plain, changed


def test_the_gradient_is_that_of_the_dense_product(
    base: Any, examples: Examples, with_reference: Callable[..., Examples]
) -> None:
    scored = with_reference(base, examples)
    model = grown(base)
    plain, changed = dense(base, model)
    learner, whole = (Learner(one, OBJECTIVE, OptimizerConfig()) for one in (model, plain))
    found, wanted = learner.accumulate(scored), whole.accumulate(scored)
    np.testing.assert_allclose(found.residual, wanted.residual, atol=2e-5)
    scale, tensors = LORA.alpha / LORA.rank, adapter_tensors(model)
    for name, weight in changed.items():
        a, b = (tensors[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        for value, gradient in ((a, scale * b.T @ weight.grad), (b, scale * weight.grad @ a.T)):
            assert (value.grad - gradient).norm() <= 1e-5 * gradient.norm(), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_adapter_moves_and_the_base_is_held_once(
    dtype: str, base: Any, examples: Examples, with_reference: Callable[..., Examples]
) -> None:
    if dtype == "bfloat16":
        round_weights(base)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    model = adapted(base, LORA)
    started = weights_checksum(model)
    learner = Learner(model, OBJECTIVE, OptimizerConfig(lr=1e-2), compute_dtype=dtype)
    learner.update(with_reference(base, examples))
    learner.update(with_reference(base, examples))  # B is no longer 0, so A moves, too
    assert all(torch.equal(before[name], value) for name, value in base.state_dict().items())
    assert weights_checksum(model) != started
    assert all(value.grad is None and value.dtype == torch.float32 for value in adapter_tensors(model).values())
    moved = {name for name in learner.state_tensors() if name.startswith("adamw.exp_avg.")}
    assert len(moved) == len(adapter_tensors(model)) == 2 * 2 * len(LORA.targets)
    shared = {id(value) for value in base.parameters()}
    own = [value for value in model.parameters() if id(value) not in shared]
    assert sum(value.numel() for value in own) == adapter_numbers(base, LORA)
    assert {id(value) for value in own} == {id(value) for value in adapter_tensors(model).values()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_new_adapter_scores_exactly_as_the_base(dtype: str, packed: bool, base: Any, examples: Examples) -> None:
    if dtype == "bfloat16":
        round_weights(base)
    settings: dict[str, Any] = {"max_tokens": 40, "packed": packed, "compute_dtype": dtype}
    wanted = reference_scores(base, examples, **settings)
    np.testing.assert_array_equal(reference_scores(adapted(base, LORA), examples, **settings), wanted)
    scored = [replace(e, ref_logprob=a, ref_root_value=b) for e, a, b in zip(examples, *wanted, strict=True)]
    report = calibrate(
        base,
        scored,
        OBJECTIVE,
        OptimizerConfig(packing=packed, max_tokens_per_micro_batch=40),
        policy=adapted(base, LORA),
        compute_dtype=dtype,
    )
    assert (report.same_layout, report.stored) == (0, 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_snapshot_stays_within_the_bound_of_another_layout(dtype: str, base: Any, examples: Examples) -> None:
    if dtype == "bfloat16":
        round_weights(base)
    snapshot = grown(base)
    padded = reference_scores(snapshot, examples, max_tokens=10**6, compute_dtype=dtype)
    scored = [replace(e, ref_logprob=a, ref_root_value=b) for e, a, b in zip(examples, *padded, strict=True)]
    packed = OptimizerConfig(packing=True, max_tokens_per_micro_batch=40)
    report = calibrate(snapshot, scored, OBJECTIVE, packed, compute_dtype=dtype)
    assert report.same_layout == 0
    assert report.stored <= report.tolerance


def test_the_self_test_sees_an_adapter_that_is_not_the_reference(
    base: Any, examples: Examples, with_reference: Callable[..., Examples]
) -> None:
    with pytest.raises(LearningError, match="residuals are not 0"):
        calibrate(base, with_reference(base, examples), OBJECTIVE, OptimizerConfig(), policy=grown(base))


def test_a_snapshot_scores_as_the_policy_did_while_the_policy_goes_on(
    base: Any, examples: Examples, with_reference: Callable[..., Examples]
) -> None:
    policy = grown(base)
    snapshot = adapted(base, LORA, adapter_tensors(policy), frozen=True)
    then = reference_scores(policy, examples, max_tokens=10**6)
    learner = Learner(policy, OBJECTIVE, OptimizerConfig(lr=1e-2))
    learner.update(with_reference(snapshot, examples))
    np.testing.assert_array_equal(reference_scores(snapshot, examples, max_tokens=10**6), then)
    assert not np.array_equal(reference_scores(policy, examples, max_tokens=10**6), then)
    np.testing.assert_array_equal(
        reference_scores(base, examples, max_tokens=10**6),
        reference_scores(adapted(base, LORA), examples, max_tokens=10**6),
    )


@pytest.mark.parametrize("recomputed", [True, "mlp", "gates"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputing_changes_no_bit(
    recomputed: Any, dtype: str, base: Any, examples: Examples, with_reference: Callable[..., Examples]
) -> None:
    if dtype == "bfloat16":
        round_weights(base)
    scored = with_reference(base, examples)
    gradients = []
    for what in (False, recomputed):
        model = grown(base)
        checkpoint_activations(model, what)
        learner = Learner(model, OBJECTIVE, OptimizerConfig(), compute_dtype=dtype)
        learner.accumulate(scored)
        gradients.append(torch.cat([value.grad.flatten() for value in adapter_tensors(model).values()]))
    assert torch.equal(*gradients)
    assert not any("forward" in module.__dict__ for module in base.modules())  # the base is no other for it


def test_packing_and_slices_of_the_vocabulary_give_the_same_gradient(
    base: Any, examples: Examples, with_reference: Callable[..., Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = with_reference(base, examples)

    def gradient(**settings: Any) -> torch.Tensor:
        model = grown(base)
        Learner(model, OBJECTIVE, OptimizerConfig(**settings)).accumulate(scored)
        return torch.cat([value.grad.flatten() for value in adapter_tensors(model).values()])

    whole = gradient()
    for settings in ({"packing": True}, {"max_tokens_per_micro_batch": 20}):
        assert (gradient(**settings) - whole).norm() <= 1e-5 * whole.norm()
    monkeypatch.setattr(head, "LOGITS_PER_CHUNK", 100)
    assert (gradient(packing=True) - whole).norm() <= 1e-5 * whole.norm()


def test_the_first_factors_depend_on_the_seed_alone(base: Any) -> None:
    one = adapter_tensors(adapted(base, LORA))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = adapter_tensors(adapted(base, LORA))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], again[name]) for name in one)
    other = adapter_tensors(adapted(base, LORA.model_copy(update={"seed": 1})))
    for name, value in one.items():
        assert torch.equal(value, other[name]) == (".lora_B." in name)
        if ".lora_A." in name:
            bound = value.shape[1] ** -0.5  # as peft has it
            assert value.abs().max() <= bound
            assert value.abs().max() > bound / 2


def test_a_model_goes_on_learning_from_a_frozen_snapshot(base: Any) -> None:
    snapshot = adapted(base, LORA, adapter_tensors(grown(base)), frozen=True)
    assert not any(value.requires_grad for value in snapshot.parameters())
    learn_adapter(snapshot)
    assert all(value.requires_grad for value in adapter_tensors(snapshot).values())
    assert not any(value.requires_grad for value in base.parameters())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("lm_head", "is the LM head or the embedding"),
        ("embed_tokens", "is the LM head or the embedding"),
        ("self_attn", "no linear layers 'self_attn'; it has down_proj, gate_proj"),
        ("query", "no linear layers 'query'"),
    ],
)
def test_targets_that_cannot_have_an_adapter_are_refused(target: str, message: str, base: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        check_targets(base, LORA.model_copy(update={"targets": ("q_proj", target)}))


def test_a_model_without_linear_layers_says_so() -> None:
    sizes = {"vocab_size": 19, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **sizes))  # its layers are Conv1D
    with pytest.raises(ConfigError, match="'c_proj'; it has none but the LM head, so it can have no adapters"):
        check_targets(model, LORA.model_copy(update={"targets": ("c_proj",)}))


def test_tensors_of_another_adapter_are_refused(base: Any) -> None:
    with pytest.raises(LearningError, match="other tensors than"):
        adapted(base, LORA, adapter_tensors(adapted(base, LORA.model_copy(update={"rank": 2}))))


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="only 0 makes sense here: a residual compares"):
        LoraConfig(dropout=0.1)
    with pytest.raises(ValueError, match="there is none: the reference is the base"):
        ModelConfig(lora=LORA, reference="host")
