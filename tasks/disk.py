"""Asks whether a stage fits the disk before it starts: a full disk in the middle of it costs more than a refusal."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

from reval_core.home import expand
from reval_core.learning.adapters import adapter_numbers
from reval_core.policies.folder import OPTIMIZER, outline
from reval_core.store import space
from reval_core.store.archive import TOKEN_BYTES
from tasks.run import Here, Run

RESPONSE_BYTES = 1_000
"""The rows of one response beside its payload: itself, its verdict, its scores, its place in the buffer."""
CHECKPOINTING = 2
"""DuckDB writes what it moves into the file before it gives the old place back."""
MASTER_BYTES = 4
"""A float32 weight, and each of Adam's two moments."""


def check_responses(run: Run, responses: int, max_new_tokens: int) -> None:
    """Refuse to sample responses that the disk has no room for.

    Args:
        run: whose rounds so far tell how long a response is; without one, each may be as long as is allowed.
        responses: how many are to be sampled.
        max_new_tokens: tokens of one at most.

    Raises:
        StoreError: says what is needed and what is free.
    """
    sampled = [output for (_, stage, _), output in run.history.items() if stage == "generate"]
    count = sum(output["trajectories"] for output in sampled)
    mean = sum(output["tokens"] for output in sampled) / count if count else max_new_tokens
    tokens = min(mean, max_new_tokens)
    needed = int(responses * (tokens * TOKEN_BYTES + RESPONSE_BYTES)) * CHECKPOINTING
    space.require(run.home.root, needed, f"{responses:,} responses of about {tokens:,.0f} tokens")


def check_policy(here: Here, *, with_optimizer: bool) -> None:
    """Refuse to save a policy that the disk has no room for.

    Raises:
        StoreError: says what is needed and what is free.
    """
    tensors = 3 if with_optimizer else 1
    base, lora = here.run.base.folder, here.run.config.model.lora
    learned = parameters(base) if lora is None else adapter_numbers(outline(base), lora)
    needed = learned * MASTER_BYTES * tensors
    what = "A checkpoint" if with_optimizer else "The policy to evaluate"
    space.require(here.run.home.policies, needed, f"{what} of round {here.iteration}")


def check_exchange(here: Here) -> None:
    """Refuse to learn by ranks where the disk has no room for the weights that they give back.

    Raises:
        StoreError: says what is needed and what is free.
    """
    run = here.run
    if run.config.learning.ranks > 1:
        needed = parameters(run.base.folder) * MASTER_BYTES
        folder = run.config.learning.folder
        place = run.home.root if folder is None else expand(folder)
        space.require(place, needed, f"The weights that the ranks give back in round {here.iteration}")


def parameters(folder: Path) -> int:
    """Numbers in a model folder's weights, from the heads of its files."""
    count = 0
    # some folders of a hub have the same weights again under another name
    files = [*folder.glob("model*.safetensors")] or [p for p in folder.glob("*.safetensors") if p.name != OPTIMIZER]
    for path in files:
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                number = 1
                for length in tensors.get_slice(name).get_shape():
                    number *= length
                count += number
    return count
