"""The self-test: what it lets pass and what it finds."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.errors import LearningError
from reval_core.learning.batch import TrainingExample
from reval_core.learning.calibration import CalibrationReport, calibrate
from reval_core.learning.reference import reference_scores

MakeModel = Callable[..., nn.Module]
WithReference = Callable[..., list[TrainingExample]]


def _calibrate(model: nn.Module, examples: list[TrainingExample], **settings: object) -> CalibrationReport:
    optimizer = OptimizerConfig(max_tokens_per_micro_batch=30)
    return calibrate(model, examples, ObjectiveConfig(beta=0.1, **settings), optimizer)


def test_stored_scores_of_the_same_layout_give_exactly_zero_whatever_the_reward(
    make_model: MakeModel, examples: list[TrainingExample], with_reference: WithReference
) -> None:
    model = make_model()
    model.train()
    report = _calibrate(model, with_reference(model, examples, 30))
    assert (report.n_examples, report.same_layout, report.stored, report.tolerance) == (12, 0.0, 0.0, 1e-3)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_another_layout_stays_within_the_tolerance(
    make_model: MakeModel, examples: list[TrainingExample], with_reference: WithReference
) -> None:
    model = make_model()
    report = _calibrate(model, with_reference(model, examples[::-1], 10_000)[::-1])
    assert report.same_layout == 0.0
    assert report.stored < 1e-4


def test_bfloat16_is_allowed_its_noise_and_is_exact_in_the_same_layout(
    make_model: MakeModel, examples: list[TrainingExample]
) -> None:
    model = make_model()
    logprob, value = reference_scores(model, examples, max_tokens=30, compute_dtype="bfloat16")
    scored = [
        replace(example, ref_logprob=logprob[n], ref_root_value=value[n] + 0.04) for n, example in enumerate(examples)
    ]
    arguments = ObjectiveConfig(), OptimizerConfig(max_tokens_per_micro_batch=30)
    report = calibrate(model, scored, *arguments, compute_dtype="bfloat16")
    assert report.same_layout == 0.0
    assert report.stored == pytest.approx(0.04)
    assert report.tolerance == 0.05  # the response of one token is the nearest to its limit
    with pytest.raises(LearningError, match=r"0\.001 is allowed"):
        calibrate(model, scored, *arguments)


@pytest.mark.parametrize("name", ["ref_logprob", "ref_root_value"])
def test_a_stale_score_is_found(
    make_model: MakeModel, examples: list[TrainingExample], with_reference: WithReference, name: str
) -> None:
    model = make_model()
    scored = with_reference(model, examples)
    scored[4] = replace(scored[4], **{name: getattr(scored[4], name) + 0.01})
    with pytest.raises(LearningError, match=r"trajectory trj_4 has a residual of -0\.0(1|0999\d*|1000\d*) nats"):
        _calibrate(model, scored)


def test_scores_under_another_temperature_or_reference_are_found(
    make_model: MakeModel, examples: list[TrainingExample], with_reference: WithReference
) -> None:
    scored = with_reference(make_model(), examples)
    for model, settings in ((make_model(), {"policy_temperature": 0.9}), (make_model(seed=1), {})):
        with pytest.raises(LearningError, match="Score the window again"):
            _calibrate(model, scored, **settings)


def test_a_path_that_is_not_the_references_is_found(
    make_model: MakeModel, examples: list[TrainingExample], with_reference: WithReference
) -> None:
    model = make_model()
    scored = with_reference(model, examples)

    def other_in_the_gradient_pass(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output + 1e-3 * torch.is_grad_enabled()

    model.get_input_embeddings().register_forward_hook(other_in_the_gradient_pass)
    with pytest.raises(LearningError, match="residuals are not 0 in the same layout"):
        _calibrate(model, scored)


def test_weights_that_are_not_finite_are_found(
    make_model: MakeModel, examples: list[TrainingExample], with_reference: WithReference
) -> None:
    model = make_model()
    scored = with_reference(model, examples)
    with torch.no_grad():
        next(model.parameters())[:] = float("nan")
    with pytest.raises(LearningError):
        _calibrate(model, scored)


def test_missing_scores_are_refused(make_model: MakeModel, examples: list[TrainingExample]) -> None:
    with pytest.raises(LearningError, match="the calibration self-test needs ref_logprob"):
        _calibrate(make_model(), examples)
    with pytest.raises(LearningError, match="at least one drawn trajectory"):
        _calibrate(make_model(), [])
