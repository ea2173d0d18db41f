"""What the tests of engines share: a model, vLLM where it must be, and servers on this machine."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from reval_core.policies.tiny import arithmetic_tokenizer
from reval_core.rollouts import RolloutEngine

CONTEXT = 256
VLLM_ARGUMENTS = {"enforce_eager": True, "block_size": 32}
"""Blocks so short that the prompts of these tests fill several, and are found in the prefix cache again."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KEY_ENV, KEY = "REVAL_TEST_SERVERS_KEY", "key-of-the-tests"


def contract_model(*, tied: bool, seed: int = 0) -> PreTrainedModel:
    """A random model that vLLM's kernels for a CPU can run, with heads of 32; on a GPU where there is one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(arithmetic_tokenizer()),
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                max_position_embeddings=CONTEXT,
                initializer_range=0.2,  # wide, so that its distributions are far from uniform
                tie_word_embeddings=tied,
                bos_token_id=None,
                eos_token_id=3,  # not among the stop tokens of the tests, so it must not end a response
                pad_token_id=0,
            )
        )
    return model.eval().to(DEVICE)


@dataclass(frozen=True)
class Contracted:
    """An engine and the kind of model that it was started for."""

    engine: RolloutEngine
    tied: bool

    def model(self, seed: int = 0) -> PreTrainedModel:
        """Random weights of that kind."""
        return contract_model(tied=self.tied, seed=seed)


def require_vllm() -> None:
    """Skip where vLLM is missing, or fail where it must not be."""
    if importlib.util.find_spec("vllm") is None:
        if os.environ.get("REVAL_REQUIRE_VLLM"):
            pytest.fail("vLLM is missing, and REVAL_REQUIRE_VLLM is set: make vllm")
        pytest.skip("vLLM is not installed here: make vllm")


@dataclass
class Server:
    """A vLLM server of these tests, on this machine."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, seconds: float = 420.0) -> None:
        """Until it answers."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and self.process.poll() is None:
            try:
                httpx.get(f"{self.address}/health", timeout=5.0).raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.5)
        pytest.fail(f"the vLLM server did not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        """At once, with all its processes."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start_server(folder: Path, number: int) -> Server:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"server-{number}.log"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "model")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--api-key", KEY, "--dtype", "float32"]
    command += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm", "--enforce-eager"]
    command += ["--block-size", "32", "--max-model-len", str(CONTEXT), "--max-num-seqs", "16"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
            start_new_session=True,
        )
    return Server(f"http://127.0.0.1:{port}", process, log)
