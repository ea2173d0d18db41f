"""A tiny random model and trajectories of mixed lengths, shared by the tests of learning."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from reval_core.learning.batch import TrainingExample
from reval_core.learning.reference import reference_scores

VOCABULARY = 23


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_model() -> Callable[..., Qwen2ForCausalLM]:
    def make(dtype: torch.dtype = torch.float32, seed: int = 0, **settings: object) -> Qwen2ForCausalLM:
        torch.manual_seed(seed)
        config = Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,
            **settings,
        )
        return Qwen2ForCausalLM(config).to(dtype).eval()

    return make


@pytest.fixture
def examples() -> list[TrainingExample]:
    """12 trajectories, 3 groups of 4; prompts of 2 to 6 tokens, responses of 1 to 9; rewards 1, 0, 0, 1, ..."""
    rng = np.random.default_rng(7)
    made = []
    for index in range(12):
        prompt = np.random.default_rng(index // 4).integers(0, VOCABULARY, 2 + 2 * (index // 4))
        response = rng.integers(0, VOCABULARY, 1 + (index * 5) % 9)
        made.append(
            TrainingExample(
                trajectory_id=f"trj_{index}",
                group_id=f"prompt_{index // 4}",
                prompt_ids=prompt.astype(np.int32),
                response_ids=response.astype(np.int32),
                reward=float(index % 3 == 0),
            )
        )
    return made


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
