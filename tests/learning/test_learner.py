"""The learner: equal gradients for any split, exact rest without reward, exact state, and non-finite updates."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.errors import LearningError
from reval_core.learning.batch import TrainingExample, micro_batches
from reval_core.learning.learner import Learner
from reval_core.learning.objective import trajectory_residual
from reval_core.learning.objectives import REGISTERED, Batch, Loss
from reval_core.learning.reference import reference_scores

MakeModel = Callable[..., nn.Module]
WithReference = Callable[..., list[TrainingExample]]
Examples = list[TrainingExample]
BETA = 0.1


def _learner(model: nn.Module, use: str = "reval", *, compute_dtype: str = "float32", **settings: object) -> Learner:
    optimizer = OptimizerConfig(**{"lr": 1e-3, "max_tokens_per_micro_batch": 64, **settings})
    return Learner(model, ObjectiveConfig(use=use, beta=BETA), optimizer, compute_dtype=compute_dtype)


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _gradient(learner: Learner, examples: Examples, **counts: int) -> Tensor:
    learner.zero_grad()
    learner.accumulate(examples, **counts)
    return torch.cat([parameter.grad.flatten() for parameter in learner.model.parameters()])


def _moved(make_model: MakeModel, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A policy away from the reference that `make_model` gives for seed 0."""
    model, other = make_model(dtype), make_model(dtype, seed=1)
    with torch.no_grad():
        for parameter, towards in zip(model.parameters(), other.parameters(), strict=True):
            parameter.lerp_(towards, 0.1)
    return model


@pytest.mark.parametrize("use", sorted(REGISTERED))
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_gradient_is_the_same_for_any_split_order_and_ranks(
    make_model: MakeModel, examples: Examples, with_reference: WithReference, use: str, dtype: torch.dtype, limit: float
) -> None:
    scored = with_reference(make_model(dtype), examples)
    scored[3] = replace(scored[3], weight=0.25)
    model = _moved(make_model, dtype)

    def gradient(max_tokens: int, order: Examples) -> Tensor:
        learner = _learner(model, use, max_tokens_per_micro_batch=max_tokens)
        learner.begin_round(scored)
        return _gradient(learner, order)

    expected = gradient(10_000, scored)
    assert expected.norm() > 1e-3
    assert [len(micro_batches(scored, max_tokens)) for max_tokens in (1, 30, 60)] == [12, 5, 3]
    for max_tokens in (1, 30, 60):
        found = gradient(max_tokens, scored)
        assert (found - expected).norm() / expected.norm() <= limit
    found = gradient(30, scored[::-1])
    assert (found - expected).norm() / expected.norm() <= limit

    # two ranks with whole groups each, their gradients added
    learner = _learner(model, use)
    learner.begin_round(scored)
    counts = {"count": 12, "token_count": sum(len(example.response_ids) for example in scored)}
    found = _gradient(learner, scored[:4], **counts) + _gradient(learner, scored[4:], **counts)
    assert (found - expected).norm() / expected.norm() <= limit


@pytest.mark.parametrize("use", ["reval", "tbrm", "regression", "vargrad", "logz"])
def test_the_loss_and_the_report_are_those_of_the_formula(
    make_model: MakeModel, examples: Examples, with_reference: WithReference, use: str
) -> None:
    scored, policy = with_reference(make_model(), examples), _moved(make_model)
    now = with_reference(policy, examples)
    report = _learner(policy, use, max_tokens_per_micro_batch=30).update(scored)
    before, after = (
        {name: torch.tensor([getattr(e, name) for e in some]).double() for name in ("ref_logprob", "ref_root_value")}
        for some in (scored, now)
    )
    residual = trajectory_residual(
        logprob=after["ref_logprob"],
        root_value=after["ref_root_value"],
        **before,
        reward=torch.tensor([example.reward for example in scored]),
        beta=BETA,
        baseline=use,
        group=torch.arange(12) // 4,
    )
    np.testing.assert_allclose(report.residual, residual, rtol=0, atol=1e-4)
    np.testing.assert_allclose(report.log_ratio, after["ref_logprob"] - before["ref_logprob"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(report.root_gap, after["ref_root_value"] - before["ref_root_value"], rtol=0, atol=1e-4)
    assert report.loss == pytest.approx(residual.square().mean().item(), rel=1e-4)
    assert report.residual.dtype == report.log_ratio.dtype == report.root_gap.dtype == np.float64
    assert (report.n_examples, report.n_tokens) == (12, sum(len(example.response_ids) for example in examples))
    assert (report.skipped, report.lr) == (False, 1e-3)


def test_what_an_objective_has_not_is_nan_in_the_report(make_model: MakeModel, examples: Examples) -> None:
    learner = _learner(make_model(), "grpo")
    learner.begin_round(examples)
    report = learner.update(examples)
    for values in (report.residual, report.log_ratio, report.root_gap):
        assert np.isnan(values).all()
        assert len(values) == 12


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_without_reward_a_policy_at_its_reference_does_not_move_by_a_bit(
    make_model: MakeModel, examples: Examples, compute_dtype: str
) -> None:
    model = make_model()
    learner = _learner(model, compute_dtype=compute_dtype, max_tokens_per_micro_batch=30)
    logprob, value = reference_scores(model, examples, max_tokens=30, compute_dtype=compute_dtype)
    scored = [
        replace(example, reward=0.0, ref_logprob=float(logprob[n]), ref_root_value=float(value[n]))
        for n, example in enumerate(examples)
    ]
    before = _weights(model)
    for _ in range(5):
        report = learner.update(scored)
        assert report.loss == report.grad_norm == 0.0
        assert (report.residual == 0).all()
    assert torch.equal(_weights(model), before)


def test_weight_decay_moves_weights_even_without_reward(
    make_model: MakeModel, examples: Examples, with_reference: WithReference
) -> None:
    model = make_model()
    scored = with_reference(model, examples, 64, reward=0.0)
    before = _weights(model)
    _learner(model, weight_decay=0.1).update(scored)
    assert not torch.equal(_weights(model), before)


@pytest.mark.parametrize("use", sorted(REGISTERED))
def test_learning_raises_what_was_rewarded(
    make_model: MakeModel, examples: Examples, with_reference: WithReference, use: str
) -> None:
    """Fails with a sign turned anywhere."""
    model = make_model()
    scored = with_reference(model, examples)
    learner = _learner(model, use, lr=3e-3)
    learner.begin_round(scored)
    for _ in range(8):
        learner.update(scored)
    gain = np.array([after.ref_logprob for after in with_reference(model, examples)]) - [e.ref_logprob for e in scored]
    reward = np.array([example.reward for example in scored])
    assert gain[reward == 1].mean() > gain[reward == 0].mean() + 0.3


def test_the_round_starts_with_a_ratio_of_exactly_one(make_model: MakeModel, examples: Examples) -> None:
    learner = _learner(make_model(), "grpo", max_tokens_per_micro_batch=30)
    seen: list[Tensor] = []
    grpo = learner.objective.loss

    def spy(batch: Batch, config: ObjectiveConfig) -> Loss:
        seen.append((batch.token_logprob - batch.old_token_logprob)[batch.response_mask].detach())
        return grpo(batch, config)

    learner.objective = replace(learner.objective, loss=spy)
    learner.begin_round(examples)
    learner.update(examples)
    assert (torch.cat(seen) == 0).all()
    seen.clear()
    learner.update(examples)
    assert (torch.cat(seen) != 0).any()


def test_policy_gradient_losses_are_a_token_mean_and_a_sum_per_trajectory(
    make_model: MakeModel, examples: Examples
) -> None:
    """At the round's start every ratio is 1: the loss is - sum of advantage times length, divided by the count."""
    lengths = np.array([len(example.response_ids) for example in examples])
    rewards = np.array([example.reward for example in examples]).reshape(3, 4)
    centred = rewards - rewards.mean(1, keepdims=True)
    normalised = centred / (rewards.std(1, ddof=1, keepdims=True) + 1e-6)
    for use, advantage, count in (("grpo", normalised, lengths.sum()), ("dr_grpo", centred, 12)):
        learner = _learner(make_model(), use, max_tokens_per_micro_batch=30)
        learner.begin_round(examples)
        expected = -(advantage.ravel() * lengths).sum() / count
        assert learner.update(examples).loss == pytest.approx(expected, rel=1e-5)


def test_a_batch_that_did_not_begin_the_round_is_refused(make_model: MakeModel, examples: Examples) -> None:
    learner = _learner(make_model(), "grpo")
    learner.begin_round(examples[:8])
    with pytest.raises(LearningError, match=r"trj_\d+ has no log-probs"):
        learner.update(examples)


def test_missing_reference_scores_and_empty_updates_are_refused(make_model: MakeModel, examples: Examples) -> None:
    learner = _learner(make_model())
    with pytest.raises(LearningError, match="needs ref_logprob, and 12 of 12 trajectories lack it"):
        learner.update(examples)
    with pytest.raises(LearningError, match="without any trajectory"):
        learner.update([])


def test_group_objectives_refuse_a_group_of_one(
    make_model: MakeModel, examples: Examples, with_reference: WithReference
) -> None:
    model = make_model()
    with pytest.raises(LearningError, match="one trajectory"):
        _learner(model, "vargrad").update(with_reference(model, examples)[:5])


@pytest.mark.parametrize("use", ["reval", "grpo"])
def test_two_runs_give_the_same_bits(
    make_model: MakeModel, examples: Examples, with_reference: WithReference, use: str
) -> None:
    scored = with_reference(make_model(), examples)
    results = []
    for _ in range(2):
        model = make_model()
        learner = _learner(model, use)
        learner.begin_round(scored)
        for _ in range(3):
            learner.update(scored)
        results.append(_weights(model))
    assert torch.equal(*results)


def test_three_updates_a_save_and_three_more_are_six_updates_bit_for_bit(
    make_model: MakeModel, examples: Examples, with_reference: WithReference
) -> None:
    model = make_model()
    scored = with_reference(model, examples)
    learner = _learner(model, warmup_updates=5)
    rates = [learner.update(scored).lr for _ in range(3)]
    saved_weights, saved_state = deepcopy(model), save(learner.state_tensors())
    rates += [learner.update(scored).lr for _ in range(3)]
    assert rates == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3])

    other = _learner(saved_weights, warmup_updates=5)
    other.load_state_tensors(load(saved_state))
    assert other.updates_done == 3
    for _ in range(3):
        other.update(scored)
    assert torch.equal(_weights(saved_weights), _weights(model))
    state, expected = other.state_tensors(), learner.state_tensors()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_saved_state_is_a_copy(make_model: MakeModel, examples: Examples, with_reference: WithReference) -> None:
    model = make_model()
    scored = with_reference(model, examples)
    learner = _learner(model)
    assert set(learner.state_tensors()) == {"learner.updates_done", "learner.skipped_in_a_row"}
    learner.update(scored)
    state = learner.state_tensors()
    before = {name: value.clone() for name, value in state.items()}
    learner.update(scored)
    learner.load_state_tensors(state)
    learner.update(scored)
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_state_of_another_model_or_with_holes_is_refused(
    make_model: MakeModel, examples: Examples, with_reference: WithReference
) -> None:
    model = make_model()
    learner = _learner(model)
    learner.update(with_reference(model, examples))
    state = learner.state_tensors()
    name = next(name for name in state if name.startswith("adamw.exp_avg."))
    for change, message in (
        ({name: None}, "is not complete"),
        ({"learner.updates_done": None}, "is not complete"),
        ({name: torch.zeros(3)}, "another model or optimizer: exp_avg"),
        ({"adamw.step.lm_tail": torch.tensor(1.0)}, "unknown here"),
    ):
        changed = {key: value for key, value in {**state, **change}.items() if value is not None}
        with pytest.raises(LearningError, match=message):
            learner.load_state_tensors(changed)


def test_a_non_finite_update_is_skipped_and_several_in_a_row_stop_the_run(
    make_model: MakeModel, examples: Examples, with_reference: WithReference
) -> None:
    model = make_model()
    good = with_reference(model, examples)
    bad = [*good[:-1], replace(good[-1], ref_logprob=1e200)]  # finite itself, its square is not
    learner = _learner(model, max_skipped_in_a_row=3)
    learner.update(good)
    before, moments = _weights(model), learner.state_tensors()
    for _ in range(2):
        report = learner.update(bad)
        assert report.skipped
        assert not np.isfinite(report.loss)
    assert torch.equal(_weights(model), before)
    state = learner.state_tensors()
    assert all(torch.equal(state[name], moments[name]) for name in state if name.startswith("adamw."))
    assert (int(state["learner.skipped_in_a_row"]), int(state["learner.updates_done"])) == (2, 3)
    assert not learner.update(good).skipped
    assert learner.skipped_in_a_row == 0
    learner.update(bad)
    learner.update(bad)
    with pytest.raises(LearningError, match="3 updates in a row were not finite"):
        learner.update(bad)


def test_a_non_finite_gradient_under_a_finite_loss_is_skipped(
    make_model: MakeModel, examples: Examples, with_reference: WithReference
) -> None:
    model = make_model()
    learner = _learner(model)
    scored = with_reference(model, examples)
    next(model.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    before = _weights(model)
    report = learner.update(scored)
    assert report.skipped
    assert np.isfinite(report.loss)
    assert np.isnan(report.grad_norm)
    assert torch.equal(_weights(model), before)


def test_a_non_finite_loss_with_a_finite_gradient_is_skipped(
    make_model: MakeModel, examples: Examples, with_reference: WithReference
) -> None:
    model = make_model()
    learner = _learner(model)
    learner.accumulate(with_reference(model, examples))
    before = _weights(model)
    norm, _, skipped = learner.step(float("inf"))
    assert np.isfinite(norm)
    assert skipped
    assert torch.equal(_weights(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_norm_is_reported_before_clipping_and_clipped_to_the_limit(
    make_model: MakeModel, examples: Examples, with_reference: WithReference
) -> None:
    """Adam's first moment after one step is (1 - beta1) times the clipped gradient."""
    model = make_model()
    scored = with_reference(model, examples)
    expected = _gradient(_learner(model), scored).norm().item()
    learner = _learner(model, clip_norm=0.5)
    assert learner.update(scored).grad_norm == pytest.approx(expected, rel=1e-5)
    assert expected > 5
    moments = [value for name, value in learner.state_tensors().items() if name.startswith("adamw.exp_avg.")]
    assert torch.cat([moment.flatten() for moment in moments]).norm().item() == pytest.approx(0.05, rel=1e-4)


def test_a_half_precision_model_gets_float32_masters(
    make_model: MakeModel, examples: Examples, with_reference: WithReference
) -> None:
    model = make_model(torch.bfloat16)
    learner = _learner(model, compute_dtype="bfloat16", lr=1e-6)
    scored = with_reference(model, examples)
    before = _weights(model)
    learner.update(scored)
    assert before.dtype == torch.float32
    assert (_weights(model) != before).float().mean() > 0.5  # bfloat16 weights would not have moved
    with pytest.raises(LearningError, match="compute_dtype is 'float16'"):
        _learner(model, compute_dtype="float16")


@pytest.mark.filterwarnings("ignore:.*activation_checkpointing:FutureWarning")
def test_gradient_checkpointing_changes_nothing_and_excludes_dropout(
    make_model: MakeModel, examples: Examples, with_reference: WithReference
) -> None:
    model = make_model(torch.float64)
    scored = with_reference(model, examples)
    expected = _gradient(_learner(model), scored)
    model.gradient_checkpointing_enable()
    learner = _learner(model)
    assert model.training  # it works in training mode only
    found = _gradient(learner, scored)
    assert (found - expected).norm() / expected.norm() < 1e-12
    dropping = make_model(attention_dropout=0.1)
    dropping.gradient_checkpointing_enable()
    with pytest.raises(LearningError, match=r"drops out with probability 0\.1"):
        _learner(dropping)


def test_dropout_is_off_while_scoring_and_learning(
    make_model: MakeModel, examples: Examples, with_reference: WithReference
) -> None:
    model = make_model(attention_dropout=0.5).train()
    scored = with_reference(model, examples, 64, reward=0.0)
    assert model.training  # as before
    learner = _learner(model)
    model.train()
    assert learner.update(scored).loss == 0.0
