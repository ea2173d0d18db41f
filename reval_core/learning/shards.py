"""Tensors of all ranks as safetensors in Hugging Face's layout of several files: whole tensors, and an index as JSON.

    NAME-00001-of-00002.safetensors   NAME-00002-of-00002.safetensors   NAME.safetensors.index.json

Each file is written by one rank, and no rank ever holds more than a file of whole tensors. Anything that reads
safetensors reads them; ranks read their own shares through torch.distributed.checkpoint, whatever their number.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.tensor import DTensor

from reval_core.errors import LearningError

MODEL, STATE = "model", "optimizer"
"""Names of the files of a model's weights, as Hugging Face has it, and of an optimizer's state."""
FILE_BYTES = 2**31
"""At most in one file, but for a larger tensor, which has its own."""


def index_name(name: str) -> str:
    """Name of the index."""
    return f"{name}.safetensors.index.json"


def write_shards(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors, shards or whole, into a folder that all ranks see. All ranks are to call it.

    Outside a process group this process writes all of them.
    """
    ranks, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    files = _files(tensors, ranks)
    file_names = [f"{name}-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(files), ranks):  # as many files at a time as there are ranks, each of which keeps one
        mine: dict[str, Tensor] = {}
        for writer, members in enumerate(files[start : start + ranks]):
            for member in members:
                whole = _whole(tensors[member])
                if writer == rank:
                    mine[member] = whole.to("cpu").contiguous()
        if mine:
            save_file(mine, folder / file_names[start + rank], metadata={"format": "pt"})
    if rank == 0:
        weight_map = {member: file for file, members in zip(file_names, files, strict=True) for member in members}
        index = {"metadata": {"total_size": sum(_size(value) for value in tensors.values())}, "weight_map": weight_map}
        (folder / index_name(name)).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    if dist.is_initialized():
        dist.all_reduce(torch.zeros(1))  # nobody goes on before all files stand


def names(folder: Path) -> list[str]:
    """Names of all tensors in the folder's safetensors.

    Raises:
        LearningError: there are none, or a file is damaged.
    """
    found: list[str] = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                found += file.keys()
        except SafetensorError as error:
            raise LearningError(f"{path} is damaged ({error}).") from error
    if not found:
        raise LearningError(f"{folder} has no safetensors.")
    return found


def read_into(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read values from the folder's safetensors into the tensors; of one that is spread over ranks the own share.

    Raises:
        LearningError: a tensor is missing or has another shape.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it takes this for the only process
        try:
            dcp.load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
        except (dcp.api.CheckpointException, SafetensorError) as error:
            raise LearningError(f"The tensors in {folder} cannot be read: {error}") from error


def whole_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """All tensors that `write_shards` wrote, on the CPU.

    Raises:
        LearningError: a file is missing or damaged.
    """
    return {key: value for part in each_file(folder, name) for key, value in part.items()}


def each_file(folder: Path, name: str) -> Iterator[dict[str, Tensor]]:
    """The same, a file at a time."""
    try:
        index = json.loads((folder / index_name(name)).read_text(encoding="utf-8"))
        for file in sorted(set(index["weight_map"].values())):
            yield load_file(folder / file)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise LearningError(f"The files of {index_name(name)} in {folder} are damaged: {error}") from error


def _files(tensors: Mapping[str, Tensor], ranks: int) -> list[list[str]]:
    """Which tensors stand in which file, in their order; enough files that each rank has one to write."""
    limit = min(FILE_BYTES, -(-sum(_size(value) for value in tensors.values()) // ranks))
    files: list[list[str]] = []
    held = limit
    for name, value in tensors.items():
        if not files or held + _size(value) > limit:
            files.append([])
            held = 0
        files[-1].append(name)
        held += _size(value)
    return files


def _size(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _whole(value: Tensor) -> Tensor:
    value = value.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value
