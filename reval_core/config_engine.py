"""The section ``rollouts.engine``: what samples the responses, and where it stands."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from reval_core.section import Section, neutral, variable_name


class SyncCheckConfig(Section):
    """Engines with weights of their own are held against the learner's model after each swap; docs/engines.md."""

    samples: int = neutral(8, ge=0, description="Short responses that are sampled and compared after a swap; 0: none.")
    tokens: int = neutral(16, ge=1, description="Tokens of each at most.")
    above: float | None = neutral(
        None,
        gt=0,
        description="Mean difference, in nats a token, that stops the run; None: 0.001 in float32, 0.1 in bfloat16.",
    )


class VllmConfig(Section):
    """vLLM in the worker's own process, beside the learner on its GPU."""

    memory: float = neutral(
        0.4, gt=0, lt=1, description="Part of the GPU's memory for weights, activations and KV cache."
    )
    sleeps: bool = neutral(
        True, description="Give that memory back between two batches, and take weights over again before the next."
    )


class ServersConfig(Section):
    """vLLM servers, on this machine or others, that share a folder with the worker."""

    addresses: tuple[str, ...] = neutral((), description="Base addresses, such as http://127.0.0.1:8000.")
    folder: str | None = neutral(
        None, description="Folder that worker and servers see under the same path; new weights are written there."
    )
    api_key_env: str = neutral(
        "VLLM_API_KEY", description="Name of the environment variable with the servers' key; not set: no key is sent."
    )
    request_s: float = neutral(
        3600.0, gt=0, description="A server that keeps a response waiting longer has failed, and others are asked."
    )
    update_s: float = neutral(600.0, gt=0, description="A server that takes longer to load new weights is left out.")

    @field_validator("api_key_env")
    @classmethod
    def _name(cls, value: str) -> str:
        return variable_name(value)

    @field_validator("addresses")
    @classmethod
    def _http(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [address for address in value if not address.startswith(("http://", "https://"))]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no base address; write it as http://host:8000")
        bare = tuple(address.rstrip("/") for address in value)
        if len(set(bare)) < len(bare):
            raise ValueError("an address stands twice")
        return bare


class EngineConfig(Section):
    """What samples the responses."""

    use: str = Field(
        "transformers", description="transformers, vllm, vllm-server, or package.module:attribute of your own."
    )
    max_batch_sequences: int = neutral(
        256, ge=1, description="Sequences decoded together; of vllm-server on each server."
    )
    max_batch_tokens: int = neutral(
        1_000_000, ge=1, description="Prompt plus response tokens held in one decoded batch (transformers)."
    )
    args: dict[str, Any] = Field(default_factory=dict, description="Further settings of the engine; vllm: EngineArgs.")
    check: SyncCheckConfig = SyncCheckConfig()
    vllm: VllmConfig = VllmConfig()
    servers: ServersConfig = ServersConfig()
