"""The tiny random model and the trajectories of mixed lengths of these tests, for programs that they start, too."""

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from reval_core.learning.batch import TrainingExample

VOCABULARY = 23


def small_model(dtype: torch.dtype = torch.float32, seed: int = 0, **settings: object) -> Qwen2ForCausalLM:
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


def small_examples() -> list[TrainingExample]:
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
