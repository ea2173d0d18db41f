"""What every room's tests share: few threads, the data folder, a small random model with its tokenizer."""

import os
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from reval_core.policies.tiny import arithmetic_tokenizer


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reval_data() -> Path:
    """The folder of public problem files: REVAL_DATA, or shared/data beside the checkout."""
    named = os.environ.get("REVAL_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "aime24.jsonl").is_file():
        pytest.skip(f"no problem files in {folder}; set REVAL_DATA to a folder that has aime24.jsonl and the others")
    return folder


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 of 5,000 parameters with the arithmetic problems' tokenizer; tests copy it, none changes it."""
    folder = tmp_path_factory.mktemp("models") / "random"
    tokenizer = arithmetic_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=128,
                initializer_range=0.3,  # wide, so that its distributions are far from uniform
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
