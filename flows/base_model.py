"""What can be known of a run's base model without its weights: the tokenizer, and how large it is.

A built-in model is not trained for this and nothing large is fetched from the hub.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import (
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoConfig, AutoModelForCausalLM

from reval_core.config import ModelConfig
from reval_core.errors import PolicyError
from reval_core.home import expand
from reval_core.policies.folder import OPTIMIZER, TOKENIZER_FILES, load_tokenizer
from reval_core.policies.tiny import (
    WarmStart,
    arithmetic_tokenizer,
    build_byte_model,
    build_tiny_model,
    byte_tokenizer,
)

HUB_TIMEOUT_S = 3.0
"""Seconds to wait for the hub's answer about one small file."""
HTTP_ERROR: Any = HfHubHTTPError.__mro__[1]
"""HTTPError of the HTTP library that huggingface_hub uses, another one in newer versions."""


def load_tokenizer_only(config: ModelConfig) -> Any:
    """The base model's tokenizer: of its folder, of the hub's tokenizer files, or of a built-in model's recipe.

    Raises:
        PolicyError: there is no such folder, or the hub does not give the files.
    """
    if config.path == "builtin:tiny":
        return arithmetic_tokenizer()
    if config.path == "builtin:bytes":
        return byte_tokenizer()
    return load_tokenizer(local_folder(config) or _tokenizer_from_hub(config))


def local_folder(config: ModelConfig) -> Path | None:
    """The folder that `model.path` names, None for a hub id or a built-in model.

    Raises:
        PolicyError: it is the path of a folder that is not there.
    """
    if config.path.startswith("builtin:"):
        return None
    path = expand(config.path)
    if path.is_dir():
        return path
    if config.path.startswith((".", "/", "~", "$")) or config.path.count("/") != 1:
        raise PolicyError(f"model.path: there is no folder {path}.")
    return None


def _tokenizer_from_hub(config: ModelConfig) -> Path:
    # config.json tells transformers which class of tokenizer the files are for
    wanted = [*(f"{name}*" for name in TOKENIZER_FILES), "*.model", "config.json"]
    token = os.environ.get(config.token_env)
    try:
        return Path(snapshot_download(config.path, revision=config.revision, token=token, allow_patterns=wanted))
    except (HTTP_ERROR, OSError, ValueError) as error:
        raise PolicyError(
            f"model.path: {config.path!r} is no folder here and its tokenizer could not be fetched from the hub "
            f"({type(error).__name__}). Check the name and the network, set {config.token_env} for a gated model, or "
            "give a local folder."
        ) from error


@dataclass(frozen=True)
class ModelSize:
    """The numbers that decide how much memory a decoder-only model takes."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    """Width of the MLP."""
    kv_width: int
    """Values of a token's key (or value) in one layer, over all heads."""
    vocabulary: int
    source: str
    """What the numbers were taken from, in words."""


def model_size(config: ModelConfig) -> ModelSize:
    """Size of the base model: from its files, from the hub's config.json, else guessed from the name.

    Raises:
        PolicyError: there is no such folder, or not even the name says how large the model is.
    """
    if config.path.startswith("builtin:"):
        return _builtin_size(config.path)
    folder = local_folder(config)
    if folder is not None:
        return folder_size(folder)
    return _hub_size(config) or _size_by_name(config.path)


def folder_size(folder: Path) -> ModelSize:
    """Size of a model folder, by config.json and the headers of its safetensors files."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PolicyError(f"{folder} has no config.json, so it is not a model in Hugging Face layout.") from error
    weights = [path for path in folder.glob("*.safetensors") if path.name != OPTIMIZER]
    parameters = sum(math.prod(shape) for path in weights for shape in _tensor_shapes(path))
    return _shaped(config, parameters, "its safetensors files")


def _tensor_shapes(path: Path) -> list[list[int]]:
    """Shapes in a safetensors header: 8 bytes of length, then JSON (the format's own description)."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]


def _shaped(config: dict[str, Any], parameters: int, source: str) -> ModelSize:
    heads = config.get("num_attention_heads") or 1
    hidden = config.get("hidden_size") or 0
    head_width = config.get("head_dim") or hidden // heads
    return ModelSize(
        parameters=parameters,
        layers=config.get("num_hidden_layers") or 0,
        hidden=hidden,
        intermediate=config.get("intermediate_size") or 4 * hidden,
        kv_width=(config.get("num_key_value_heads") or heads) * head_width,
        vocabulary=config.get("vocab_size") or 0,
        source=source,
    )


def _builtin_size(path: str) -> ModelSize:
    """The recipe's model with its training left out: tens of milliseconds, and gone again."""
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside) / "model"
        if path == "builtin:bytes":
            build_byte_model(folder, seed=0)
        else:
            build_tiny_model(folder, seed=0, recipe=WarmStart(skill_steps=0, mode_steps=0, mode_texts=1))
        return _shaped(_read_config(folder), _count(folder), f"the recipe of {path}")


def _read_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _count(folder: Path) -> int:
    """Parameters of the model that a config.json describes, tied ones once; built without memory for its weights."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(
            f"{folder / 'config.json'} describes no model that transformers can build: {error}"
        ) from error
    return sum(parameter.numel() for parameter in model.parameters())


def _hub_size(config: ModelConfig) -> ModelSize | None:
    """By the hub's config.json, cached or fetched (a few kB); None where neither can be had."""
    cached = try_to_load_from_cache(config.path, "config.json", revision=config.revision)
    source = "its config.json in the hub's cache"
    if not isinstance(cached, str):
        source = "its config.json on the hub"
        token = os.environ.get(config.token_env)
        try:
            # asked once: without a network the download itself would try again for half a minute
            url = hf_hub_url(config.path, "config.json", revision=config.revision)
            get_hf_file_metadata(url, token=token, timeout=HUB_TIMEOUT_S)
            cached = hf_hub_download(config.path, "config.json", revision=config.revision, token=token)
        except (HTTP_ERROR, OSError, ValueError):
            return None
    folder = Path(cached).parent
    return _shaped(_read_config(folder), _count(folder), source)


def _size_by_name(name: str) -> ModelSize:
    """``.../Qwen2.5-Math-7B`` has about 7e9 parameters; the shape is that of a usual model of so many."""
    found = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", name.lower())
    if not found:
        raise PolicyError(
            f"{name} is not here, the hub was not reached, and its name does not end in a size such as 7B."
        )
    number, unit = found[-1]
    parameters = round(float(number) * (1e9 if unit == "b" else 1e6))
    # 12 hidden^2 parameters a layer, and 128 times as wide as deep: the proportions of Llama and Qwen at 7 billion
    layers = max(1, round((parameters / (12 * 128**2)) ** (1 / 3)))
    hidden = 128 * layers
    source = f"the name {name!r} alone (the hub was not reached), its shape guessed: {layers} layers of {hidden}"
    return ModelSize(parameters, layers, hidden, 4 * hidden, hidden // 4, 150_000, source)
