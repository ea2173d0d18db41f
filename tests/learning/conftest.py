"""A tiny random model and trajectories of mixed lengths, shared by the tests of learning."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from small import small_examples, small_model
from transformers import Qwen2ForCausalLM

from reval_core.learning.batch import TrainingExample
from reval_core.learning.reference import reference_scores


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_model() -> Callable[..., Qwen2ForCausalLM]:
    return small_model


@pytest.fixture
def examples() -> list[TrainingExample]:
    return small_examples()


@pytest.fixture
def with_reference() -> Callable[..., list[TrainingExample]]:
    """The examples with their scores under a model, and optionally another reward for all."""

    def scored(
        model: torch.nn.Module, some: Sequence[TrainingExample], max_tokens: int = 16384, reward: float | None = None
    ) -> list[TrainingExample]:
        logprob, value = reference_scores(model, some, max_tokens=max_tokens)
        return [
            replace(
                example,
                ref_logprob=float(logprob[index]),
                ref_root_value=float(value[index]),
                reward=example.reward if reward is None else reward,
            )
            for index, example in enumerate(some)
        ]

    return scored
