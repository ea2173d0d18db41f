"""The engines that the contract is asked of, and vLLM servers for the tests that need them.

The engines on vLLM stand in the group `vllm` (make vllm). Where vLLM is missing their tests are skipped, unless
REVAL_REQUIRE_VLLM=1 says that they must not be.
"""

from collections.abc import Callable, Iterator

import pytest
from contracted import (
    CONTEXT,
    KEY,
    KEY_ENV,
    VLLM_ARGUMENTS,
    Contracted,
    Server,
    contract_model,
    require_vllm,
    start_server,
)

from reval_core.config_engine import ServersConfig
from reval_core.policies.tiny import arithmetic_tokenizer
from reval_core.rollouts import RolloutEngine
from reval_core.rollouts.transformers_engine import TransformersEngine
from reval_core.rollouts.vllm_engine import VllmEngine
from reval_core.rollouts.vllm_servers import VllmServers


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


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two servers with the first weights of a model with a tied head."""
    require_vllm()
    folder = tmp_path_factory.mktemp("served")
    contract_model(tied=True, seed=99).save_pretrained(folder / "model")
    arithmetic_tokenizer().save_pretrained(folder / "model")
    started = [start_server(folder, number) for number in range(2)]
    try:
        for server in started:
            server.wait()
        yield started
    finally:
        for server in started:
            server.kill()


@pytest.fixture(scope="session")
def server_engine(
    servers: list[Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], VllmServers]]:
    """Makes engines that use both servers."""
    shared = tmp_path_factory.mktemp("shared")
    config = ServersConfig(addresses=[s.address for s in servers], folder=str(shared), api_key_env=KEY_ENV)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_ENV, KEY)
        yield lambda: VllmServers(config, max_batch_sequences=16)
