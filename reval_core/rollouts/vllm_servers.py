"""vLLM servers over HTTP: one request a sample, spread over all servers; who fails is left out until the next load.

New weights go by path: they are written into a folder that worker and servers share, each server is told to read them,
and the folder is removed. A server serves one run at a time, since its weights are that run's.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import anyio
import httpx
import torch
from anyio.from_thread import start_blocking_portal
from safetensors.torch import save_file
from torch import Tensor, nn

from reval_core.config_engine import ServersConfig
from reval_core.errors import ConfigError, RolloutError
from reval_core.home import expand
from reval_core.rollouts.engine import Sample, SampleRequest, SamplingSettings
from reval_core.rollouts.logprobs import with_logprobs
from reval_core.rollouts.vllm_library import finite, is_cut, named_weights, sampling

log = logging.getLogger(__name__)

HEALTH_S = 10.0
"""Between two looks at whether a server lives while it samples."""
ANSWER_S = 30.0
"""A living server answers short questions in this time."""
BREAKS = 3
"""Connections of one request that break, the server saying that it lives, until it is left out."""
FILE_BYTES = 4 << 30
"""Weights are written in files of about this size, one in memory at a time."""


class VllmServers:
    """Samples by servers that hold a copy of the weights.

    Args:
        servers: the section ``rollouts.engine.servers``.
        compute_dtype: precision that the servers were started with.
        max_batch_sequences: requests under way on each server.

    Raises:
        ConfigError: no address, or no folder.
    """

    copies_weights = True
    keeps = frozenset({"token_budget"})
    """No deadline: a server answers when a response is whole."""

    def __init__(
        self, servers: ServersConfig, *, compute_dtype: str = "float32", max_batch_sequences: int = 256
    ) -> None:
        if not servers.addresses or servers.folder is None:
            raise ConfigError(
                "rollouts.engine.use 'vllm-server' needs rollouts.engine.servers.addresses and .folder; "
                "docs/engines.md shows how such a server is started."
            )
        self._config, self._dtype, self._most = servers, compute_dtype, max_batch_sequences
        self._folder = expand(servers.folder).absolute()
        self._up: list[_Server] = []
        self._name: str | None = None
        self._policy_id: str | None = None
        self._model: Any = None

    @property
    def name(self) -> str:
        """With the version that the servers tell; they are asked once.

        Raises:
            ConfigError: none answers, or they are of several versions.
        """
        if self._name is None:
            versions: dict[str, str] = {}
            for address in self._config.addresses:
                try:
                    answer = httpx.get(f"{address}/version", headers=self._headers(), timeout=ANSWER_S)
                    versions[address] = answer.raise_for_status().json()["version"]
                except httpx.HTTPError as error:
                    log.warning("the vLLM server %s does not answer: %s", address, _told(error))
            if len(set(versions.values())) != 1:
                found = "no server answers" if not versions else f"the servers are of several versions, {versions}"
                raise ConfigError(f"rollouts.engine.servers.addresses: {found}.")
            self._name = f"vllm-server-{next(iter(versions.values()))}/{self._dtype}"
        return self._name

    def load(self, policy_id: str, model: Any) -> None:
        """Write the weights and have every server that lives read them.

        They are always read: a server that was started again since has its first weights.

        Raises:
            RolloutError: no server took them, or the policy is an adapter.
        """
        self._policy_id = None
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="weights-", dir=self._folder) as folder:
            write_weights(Path(folder), model, getattr(torch, self._dtype))
            for path in (Path(folder), *Path(folder).iterdir()):  # servers may run as somebody else
                path.chmod(0o755 if path.is_dir() else 0o644)
            failed = self._everywhere(folder)
        self._up = [server for server in map(_Server, self._config.addresses) if server.address not in failed]
        if not self._up:
            told = "; ".join(f"{address}: {why}" for address, why in failed.items())
            raise RolloutError(f"No vLLM server took the weights of {policy_id}. {told}")
        for address, why in failed.items():
            log.warning("the vLLM server %s is left out until the next policy: %s", address, why)
        self._policy_id, self._model = policy_id, model

    def sample(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Iterator[Sample]:
        """Finished responses as they end. With top_k or top_p their log-probabilities are the model's own."""
        if self._policy_id is None:
            raise RolloutError("The vLLM servers were asked to sample before a policy was loaded.")
        samples = self._sampled(requests, settings)
        if is_cut(settings):
            return with_logprobs(samples, self._model, settings.temperature, compute_dtype=self._dtype)
        return samples

    def sleep(self) -> None:
        """Nothing: the servers have devices of their own."""

    def close(self) -> None:
        """Let go of the model; the servers stay as they are."""
        self._policy_id = self._model = None

    # -- weights ------------------------------------------------------------------------------------------------------

    def _everywhere(self, folder: str) -> dict[str, str]:
        """Address to reason of the servers that did not read the weights."""
        failed: dict[str, str] = {}

        async def each() -> None:
            async with self._client(self._config.update_s) as client, anyio.create_task_group() as group:
                for address in self._config.addresses:
                    group.start_soon(update, client, address)

        async def update(client: httpx.AsyncClient, address: str) -> None:
            try:
                (await client.get(f"{address}/health", timeout=ANSWER_S)).raise_for_status()
                for path, body in (
                    ("pause?mode=abort", None),
                    ("collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}}),
                    ("reset_prefix_cache", None),
                    ("resume", None),
                ):
                    (await client.post(f"{address}/{path}", json=body)).raise_for_status()
            except httpx.HTTPError as error:
                failed[address] = _told(error)

        with start_blocking_portal() as portal:
            portal.call(each)
        return failed

    # -- samples ------------------------------------------------------------------------------------------------------

    def _sampled(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Iterator[Sample]:
        done: SimpleQueue[Future[Sample]] = SimpleQueue()
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(self._client(None)) as client:
            limiter = portal.call(anyio.CapacityLimiter, self._most * len(self._up))
            watches = [portal.start_task_soon(self._watch, client, server) for server in self._up]
            asked = [portal.start_task_soon(self._ask, client, limiter, request, settings) for request in requests]
            try:
                for future in asked:
                    future.add_done_callback(done.put)
                for _ in asked:
                    yield done.get().result()
            finally:  # a connection that is closed ends its request on the server
                for future in asked:
                    future.cancel()
                for watch in watches:
                    watch.cancel()

    async def _ask(
        self,
        client: httpx.AsyncClient,
        limiter: anyio.CapacityLimiter,
        request: SampleRequest,
        settings: SamplingSettings,
    ) -> Sample:
        """A sample by the server that has least to do, or by another one when it fails."""
        body = sampling(request, settings) | {
            "prompt": [*request.prompt_ids, *request.begun],
            "return_token_ids": True,
            "skip_special_tokens": False,
        }
        broken = 0
        async with limiter:
            while self._up:
                server = min(self._up, key=lambda server: len(server.under_way))
                with anyio.CancelScope() as scope:
                    server.under_way.add(scope)
                    try:
                        answer = await client.post(
                            f"{server.address}/v1/completions", json=body, timeout=self._config.request_s
                        )
                        if answer.status_code < 500:
                            return self._sample(request, server, answer)
                        self._leave_out(server, f"status {answer.status_code}: {answer.text[:200]}")
                    except httpx.TimeoutException as error:
                        self._leave_out(server, _told(error))
                    except httpx.TransportError as error:
                        # one connection may break for itself; a server on which several do has failed
                        broken += 1
                        if broken == BREAKS or not await self._lives(client, server):
                            self._leave_out(server, _told(error))
                    finally:
                        server.under_way.discard(scope)
        raise RolloutError("No vLLM server is left. What was sampled is stored; start the servers and the run again.")

    async def _watch(self, client: httpx.AsyncClient, server: _Server) -> None:
        """Leave a server out that does not say that it lives; its host may be gone without a word."""
        while server in self._up:
            await anyio.sleep(HEALTH_S)
            if not await self._lives(client, server):
                self._leave_out(server, "it does not say that it lives")

    async def _lives(self, client: httpx.AsyncClient, server: _Server) -> bool:
        try:
            return (await client.get(f"{server.address}/health", timeout=ANSWER_S)).is_success
        except httpx.HTTPError:
            return False

    def _leave_out(self, server: _Server, why: str) -> None:
        if server not in self._up:
            return
        self._up.remove(server)
        others = len(server.under_way)
        log.warning("the vLLM server %s failed (%s); %d requests go to others", server.address, why, others)
        for scope in server.under_way:
            scope.cancel()

    def _sample(self, request: SampleRequest, server: _Server, answer: httpx.Response) -> Sample:
        where = f"The vLLM server {server.address}, asked for sample {request.sample_index} of {request.problem_id},"
        if answer.status_code != 200:
            raise RolloutError(f"{where} refused with status {answer.status_code}: {answer.text[:500]}")
        (choice,) = answer.json()["choices"]
        if choice["finish_reason"] not in ("stop", "length"):
            raise RolloutError(f"{where} ended with {choice['finish_reason']!r}. Does another run use this server?")
        tokens, logprobs = tuple(choice["token_ids"]), choice["logprobs"]["token_logprobs"]
        if len(tokens) != len(logprobs):
            raise RolloutError(f"{where} gave {len(tokens)} tokens and {len(logprobs)} log-probabilities.")
        logprob = finite(request.begun_logprob + sum(logprobs), self._policy_id)
        return Sample(request, (*request.begun, *tokens), choice["finish_reason"], logprob, self._policy_id)

    def _client(self, timeout: float | None) -> httpx.AsyncClient:
        # shorter than the five seconds after which a server closes a connection, so that none closes under a request
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2.0)
        return httpx.AsyncClient(headers=self._headers(), timeout=timeout, limits=limits)

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self._config.api_key_env)
        return {"Authorization": f"Bearer {key}"} if key else {}


class _Server:
    """A server that has the policy's weights."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.under_way: set[anyio.CancelScope] = set()


def write_weights(folder: Path, model: nn.Module, dtype: torch.dtype) -> None:
    """All weights as safetensors, the output head of tied models too, in the precision that they are sampled in."""
    part: dict[str, Tensor] = {}
    number = 0
    for name, value in named_weights(model):
        wanted = dtype if value.is_floating_point() else value.dtype
        part[name] = value.to("cpu", wanted, copy=True).contiguous()
        if sum(tensor.nbytes for tensor in part.values()) >= FILE_BYTES:
            save_file(part, folder / f"model-{number:05d}.safetensors", metadata={"format": "pt"})
            part, number = {}, number + 1
    if part:
        save_file(part, folder / f"model-{number:05d}.safetensors", metadata={"format": "pt"})


def _told(error: httpx.HTTPError) -> str:
    """The error in words; some have none of their own."""
    return f"{type(error).__name__} {error}".strip()
