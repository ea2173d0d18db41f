"""Models and requests that every engine is asked about, and the engines themselves.

The engines on vLLM stand in the group `vllm` (make vllm). Where vLLM is missing their tests are skipped, unless
REVAL_REQUIRE_VLLM=1 says that they must not be.
"""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from reval_core.engine_config import ServersConfig
from reval_core.policies.tiny import arithmetic_tokenizer
from reval_core.rollouts import RolloutEngine
from reval_core.rollouts.transformers_engine import TransformersEngine
from reval_core.rollouts.vllm_engine import VllmEngine
from reval_core.rollouts.vllm_servers import VllmServers

CONTEXT = 256
VLLM_ARGUMENTS = {"enforce_eager": True, "block_size": 32}
"""Blocks so short that the prompts of these tests fill several, and are found in the prefix cache again."""
KEY_ENV, KEY = "REVAL_TEST_SERVERS_KEY", "key-of-the-tests"


def contract_model(*, tied: bool, seed: int = 0) -> PreTrainedModel:
    """A random model that vLLM's kernels for a CPU can run: heads of 32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(
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
        ).eval()


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


@pytest.fixture(
    scope="module",
    params=[
        ("transformers", True),
        ("transformers", False),
        pytest.param(("vllm", True), marks=pytest.mark.vllm),
        pytest.param(("vllm", False), marks=pytest.mark.vllm),
        pytest.param(("vllm-server", True), marks=pytest.mark.vllm),
    ],
    ids=lambda given: f"{given[0]} {'tied' if given[1] else 'untied'}",
)
def contracted(request: pytest.FixtureRequest) -> Iterator[Contracted]:
    """Each engine, for models with a head that is the embedding and with one of its own."""
    kind, tied = request.param
    if kind == "transformers":
        engine: RolloutEngine = TransformersEngine(max_batch_sequences=16)
    elif kind == "vllm":
        require_vllm()
        engine = VllmEngine(max_batch_sequences=16, context=CONTEXT, arguments=VLLM_ARGUMENTS)
    else:
        engine = request.getfixturevalue("server_engine")()
    yield Contracted(engine, tied)
    engine.close()


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


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two servers with the first weights of a model with a tied head."""
    require_vllm()
    folder = tmp_path_factory.mktemp("served")
    contract_model(tied=True, seed=99).save_pretrained(folder / "model")
    arithmetic_tokenizer().save_pretrained(folder / "model")
    started = [_start(folder, number) for number in range(2)]
    try:
        for server in started:
            server.wait()
        yield started
    finally:
        for server in started:
            server.kill()


@pytest.fixture(scope="session")
def server_engine(servers: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], VllmServers]]:
    """Makes engines that use both servers."""
    shared = tmp_path_factory.mktemp("shared")
    config = ServersConfig(addresses=[s.address for s in servers], folder=str(shared), api_key_env=KEY_ENV)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_ENV, KEY)
        yield lambda: VllmServers(config, max_batch_sequences=16)


def _start(folder: Path, number: int) -> Server:
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
