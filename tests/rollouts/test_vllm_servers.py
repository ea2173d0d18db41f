"""vLLM servers on this machine: keys, failures, and what two of them do for each other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from contracted import KEY_ENV, Server, contract_model
from safetensors.torch import load_file

from reval_core.config_engine import EngineConfig, ServersConfig
from reval_core.errors import ConfigError, RolloutError
from reval_core.identity import sample_seed
from reval_core.rollouts import SampleRequest, SamplingSettings, check_engine
from reval_core.rollouts import vllm_servers as module
from reval_core.rollouts.vllm_servers import VllmServers, write_weights

NOBODY = "http://127.0.0.1:9"
"""An address at which nothing listens."""
REQUESTS = [SampleRequest("prb", index, sample_seed("bat", 0, "prb", index), (5, 6, 7)) for index in range(120)]
SETTINGS = SamplingSettings(200, 1.0, 1.0, 0, (0,))  # long responses


def server_config(folder: Path, *addresses: str) -> ServersConfig:
    return ServersConfig(addresses=addresses, folder=str(folder), api_key_env=KEY_ENV)


# -- without a server -------------------------------------------------------------------------------------------------


def test_addresses_and_a_folder_are_needed() -> None:
    with pytest.raises(ConfigError, match=r"needs rollouts\.engine\.servers\.addresses and \.folder"):
        check_engine(EngineConfig(use="vllm-server"))
    with pytest.raises(ValueError, match="is no base address"):
        ServersConfig(addresses=["localhost:8000"])
    with pytest.raises(ValueError, match="an address stands twice"):
        ServersConfig(addresses=["http://a:1", "http://a:1/"])
    with pytest.raises(ConfigError, match=r"args do not fit the engine 'vllm-server'"):
        check_engine(EngineConfig(use="vllm-server", servers={"addresses": [NOBODY], "folder": "/x"}, args={"a": 1}))


def test_servers_that_do_not_answer_are_an_error(tmp_path: Path) -> None:
    engine = VllmServers(server_config(tmp_path, NOBODY))
    with pytest.raises(ConfigError, match="no server answers"):
        _ = engine.name
    with pytest.raises(
        RolloutError, match=r"No vLLM server took the weights of pol_1\. http://127\.0\.0\.1:9: Connect"
    ):
        engine.load("pol_1", contract_model(tied=True))
    with pytest.raises(RolloutError, match="before a policy was loaded"):
        engine.sample(REQUESTS, SETTINGS)
    assert list(tmp_path.iterdir()) == []  # the weights are put away


@pytest.mark.parametrize("piece", [module.FILE_BYTES, 1])
def test_weights_are_written_whole_with_the_head(tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_BYTES", piece)
    model = contract_model(tied=True)
    write_weights(tmp_path, model, torch.bfloat16)
    files = sorted(tmp_path.iterdir())
    assert len(files) == (1 if piece > 1 else len(model.state_dict()))
    read = {name: value for file in files for name, value in load_file(file).items()}
    assert read.keys() == model.state_dict().keys()
    assert torch.equal(read["lm_head.weight"], model.lm_head.weight.to(torch.bfloat16))


# -- with servers -----------------------------------------------------------------------------------------------------


@pytest.mark.vllm
def test_the_name_tells_the_servers_version(server_engine: Callable[[], VllmServers]) -> None:
    assert server_engine().name.startswith("vllm-server-0.")
    assert server_engine().name.endswith("/float32")


@pytest.mark.vllm
def test_a_wrong_key_is_refused_at_once(
    server_engine: Callable[[], VllmServers], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = server_engine()
    engine.load("pol_1", contract_model(tied=True))
    monkeypatch.setenv(KEY_ENV, "another")
    with pytest.raises(RolloutError, match="refused with status 401"):
        list(engine.sample(REQUESTS[:3], SETTINGS))


@pytest.mark.vllm
def test_a_server_that_is_gone_before_is_left_out(
    servers: list[Server], server_engine: Callable[[], VllmServers], tmp_path: Path
) -> None:
    server_engine()  # sets the key
    engine = VllmServers(server_config(tmp_path, NOBODY, servers[0].address), max_batch_sequences=16)
    model = contract_model(tied=True)
    engine.load("pol_1", model)
    assert len(list(engine.sample(REQUESTS[:4], SETTINGS))) == 4


@pytest.mark.vllm
def test_a_server_that_is_killed_in_the_middle_loses_nothing(
    servers: list[Server], server_engine: Callable[[], VllmServers]
) -> None:
    """The last test of this file: the second server stays dead."""
    engine = server_engine()
    engine.load("pol_1", contract_model(tied=True))
    samples = engine.sample(REQUESTS, SETTINGS)
    done = [next(samples) for _ in range(5)]
    servers[1].kill()
    done += list(samples)
    assert sorted(sample.request.sample_index for sample in done) == list(range(120))
    assert [server.address for server in engine._up] == [servers[0].address]
    again = {s.request.sample_index: s.token_ids for s in engine.sample(REQUESTS[:20], SETTINGS)}
    assert again == {s.request.sample_index: s.token_ids for s in done if s.request.sample_index < 20}
    servers[0].kill()
    with pytest.raises(RolloutError, match="No vLLM server is left"):
        list(engine.sample(REQUESTS[:2], SETTINGS))
