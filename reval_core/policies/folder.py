"""A policy is a folder in Hugging Face layout plus a manifest: weights as safetensors, tokenizer, optimizer state.

Nothing pickled is ever read, no code of a model folder is run. A folder is written aside, fsynced and renamed, so what
stands under its final name is whole; a folder that contradicts its own manifest is refused. Whoever saves holds a lock
that ends with its process, so what lies aside while the lock is free belongs to nobody.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from reval_core.config import LoraConfig
from reval_core.errors import LearningError, PolicyError
from reval_core.exclusive import exclusive
from reval_core.identity import digest, files_digest
from reval_core.learning.adapters import adapted, adapter_tensors, is_adapted, peft_config
from reval_core.learning.shards import STATE, whole_tensors

disable_progress_bar()  # our own progress is shown instead

MANIFEST = "reval.json"
OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_SHARDS = "optimizer"
"""Folder of the optimizer's state where several ranks wrote it, in several files with an index."""
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""peft's layout."""
TOKENIZER_FILES = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
OptimizerState = Mapping[str, Tensor] | Callable[[Path], None]
HASHERS = min(8, os.cpu_count() or 1)
"""Tensors that are hashed side by side, and copied from a device to the CPU for it."""


@dataclass(frozen=True)
class Manifest:
    """What a saved policy says of itself."""

    policy_id: str
    weights_checksum: str
    tokenizer_id: str
    parent_policy_id: str | None
    reference_policy_id: str | None
    updates_done: int
    run_id: str | None
    iteration: int | None
    base_policy_id: str | None = None
    """What an adapter stands over; None where the weights are whole."""


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be a policy, with the reason and the cure.

    Raises:
        PolicyError: it is missing, has no config.json, no safetensors, pickled weights only, or no tokenizer.
    """
    if not folder.is_dir():
        raise PolicyError(f"There is no model folder {folder}. Give a folder in Hugging Face layout, or a hub id.")
    names = [path.name for path in folder.iterdir()]
    if ADAPTER_CONFIG in names and "config.json" not in names:
        raise PolicyError(
            f"{folder} holds an adapter without its base. `reval export-policy` merges the two into a whole model."
        )
    if "config.json" not in names:
        raise PolicyError(f"{folder} has no config.json, so it is not a model in Hugging Face layout.")
    if not any(name.endswith(".safetensors") and name != OPTIMIZER for name in names):
        pickled = [name for name in names if name.endswith(PICKLED)]
        if pickled:
            raise PolicyError(
                f"{folder} has pickled weights only ({pickled[0]}), and unpickling can run code. Convert it once with "
                "transformers' save_pretrained, which writes safetensors."
            )
        raise PolicyError(f"{folder} has no weights (*.safetensors).")
    if not tokenizer_files(folder):
        raise PolicyError(f"{folder} has no tokenizer (tokenizer.json); save the model's tokenizer into the folder.")


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; no remote code."""
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(f"The tokenizer in {folder} cannot be loaded: {error}") from error


def load_model(folder: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> nn.Module:
    """The folder's model in evaluation mode; safetensors only, no remote code.

    Args:
        folder: Hugging Face layout, checked by `check_folder`.
        dtype: precision of the weights in memory.
        device: torch device.

    Raises:
        PolicyError: the folder cannot be a policy, its weights are damaged, or they leave parameters of the model out.
    """
    check_folder(folder)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise PolicyError(f"The model in {folder} cannot be loaded: {error}") from error
    if found["missing_keys"]:  # transformers fills them with random numbers
        missing = ", ".join(sorted(found["missing_keys"])[:3])
        raise PolicyError(f"The weights in {folder} leave out {len(found['missing_keys'])} parameters ({missing}).")
    return model.to(device).eval()


def model_config(folder: Path) -> Any:
    """What the folder's config.json says of its architecture; no remote code.

    Raises:
        PolicyError: it is damaged, or this version of transformers does not know it.
    """
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(f"The config.json in {folder} cannot be used: {error}") from error


def outline(folder: Path) -> nn.Module:
    """The folder's model without its weights, on "meta": what layers it has, and how large they are."""
    config = model_config(folder)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def tokenizer_id(folder: Path) -> str:
    """Digest of the tokenizer's files: which token ids mean what."""
    return files_digest("tok", folder, tokenizer_files(folder))


def base_policy_id(folder: Path) -> str:
    """Id of a base policy: digest of its weights, architecture and tokenizer files."""
    names = [
        path.name
        for path in folder.iterdir()
        if path.is_file()
        and path.name not in (MANIFEST, OPTIMIZER, "generation_config.json")
        and (path.name.endswith((".safetensors", ".safetensors.index.json")) or path.name == "config.json")
    ]
    return files_digest("pol", folder, sorted({*names, *tokenizer_files(folder)}))


def weights_checksum(model: nn.Module) -> str:
    """Digest of names, types, shapes and bytes of all parameters (tied ones once) and buffers that are saved.

    Of a model with an adapter the adapter alone counts: nothing else of it is learned or saved.
    Each tensor has a SHA-256 of its own: one stream over 30 GB would take 20 s on one core. Tensors of another device
    come to the CPU one by one, at most `HASHERS` at a time.
    """
    if is_adapted(model):
        tensors = adapter_tensors(model)
    else:
        saved = model.state_dict().keys()
        tensors = dict(model.named_parameters()) | {k: v for k, v in model.named_buffers() if k in saved}
    names = sorted(tensors, key=lambda name: tensors[name].nbytes, reverse=True)  # a large one last would be waited for
    with ThreadPoolExecutor(HASHERS) as pool:
        digests = list(pool.map(_tensor_digest, (tensors[name] for name in names)))
    return digest("wts", dict(zip(names, digests, strict=True)))


def _tensor_digest(tensor: Tensor) -> str:
    value = tensor.detach().to("cpu").contiguous()
    state = hashlib.sha256(f"{value.dtype} {tuple(value.shape)}\n".encode())
    state.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def save_policy(
    folder: Path, model: nn.Module, tokenizer_folder: Path, manifest: Manifest, optimizer: OptimizerState | None
) -> None:
    """Write a policy folder aside, make it durable and rename it; an existing one of that name is replaced.

    Processes that save under the same parent folder do so one after another.

    Args:
        folder: final place.
        model: saved by its own `save_pretrained` as safetensors; where it has an adapter, the adapter as peft does.
        tokenizer_folder: where the tokenizer files are copied from, byte for byte.
        manifest: what the folder says of itself.
        optimizer: tensors of the optimizer's state, or what writes them into a folder in several files; None for a
            policy that is not to be learned from here on.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside, before = folder.with_name(f"{folder.name}.tmp"), folder.with_name(f"{folder.name}.old")
    with exclusive(_lock(folder.parent)):
        try:
            for left in (aside, before):
                _put_away(left)
            _write_weights(model, aside)
            for name in tokenizer_files(tokenizer_folder):
                shutil.copyfile(tokenizer_folder / name, aside / name)
            if callable(optimizer):
                optimizer(aside / OPTIMIZER_SHARDS)
            elif optimizer is not None:
                save_file(dict(optimizer), aside / OPTIMIZER)
            (aside / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
            let_read(aside, MANIFEST)
            _make_durable(aside)
            if folder.exists():  # whole under one name or the other: a removal under way would leave half a folder
                folder.rename(before)
            aside.rename(folder)
            _sync(folder.parent)
        finally:
            for left in (aside, before):
                _put_away(left)


def let_read(folder: Path, like: str) -> None:
    """Weights may be read by whom another file of the folder may be: safetensors writes them for their owner alone."""
    for path in folder.rglob("*.safetensors"):
        shutil.copymode(folder / like, path)


def _write_weights(model: nn.Module, folder: Path) -> None:
    if not is_adapted(model):
        model.save_pretrained(folder)  # type: ignore[operator]
        return
    peft_config(model).save_pretrained(folder)
    tensors = {name: value.detach().to("cpu").contiguous() for name, value in adapter_tensors(model).items()}
    save_file(tensors, folder / ADAPTER, metadata={"format": "pt"})


def remove_policy(folder: Path) -> None:
    """Remove a saved policy; renamed aside first, so that a kill leaves nothing that looks whole.

    What a process has in memory of it stays usable, and nobody saves meanwhile.
    """
    aside = folder.with_name(f"{folder.name}.tmp")
    with exclusive(_lock(folder.parent)):
        _put_away(aside)
        folder.rename(aside)
        _sync(folder.parent)
        _put_away(aside)


def sweep(policies: Path) -> None:
    """Put away what killed processes left while they saved; waits for one that is saving."""
    if not policies.is_dir():
        return
    with exclusive(_lock(policies)):
        for left in (*policies.glob("pol_*.tmp"), *policies.glob("pol_*.old")):
            _put_away(left)


def _lock(policies: Path) -> Path:
    """Held by whoever saves among these policies."""
    return policies.with_name(f"{policies.name}.lock")


def _put_away(left: Path) -> None:
    """Give a replaced folder whose successor never came its name back; remove anything else that lies aside."""
    folder = left.with_suffix("")
    if left.suffix == ".old" and left.exists() and not folder.exists():
        left.rename(folder)
    elif left.exists():
        shutil.rmtree(left)


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest; None for a folder that ReVal did not write.

    Raises:
        PolicyError: the manifest is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        return Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise PolicyError(f"{path} is damaged ({error}). Remove the folder; the policy is learned again.") from error


def load_saved(folder: Path, policy_id: str, *, device: str) -> tuple[nn.Module, Manifest]:
    """Load a policy that ReVal saved and hold it against its manifest, which is returned beside the model.

    Raises:
        PolicyError: the folder is another policy, or its weights are not the ones it was saved with.
    """
    manifest = _manifest_of(folder, policy_id)
    model = load_model(folder, device=device)
    _check_weights(folder, model, manifest)
    return model, manifest


def load_adapter(folder: Path, policy_id: str, base: nn.Module, base_policy_id: str) -> tuple[nn.Module, Manifest]:
    """Load an adapter that ReVal saved over its base, whose weights it shares; `load_saved` otherwise.

    Raises:
        PolicyError: the folder is another policy, its adapter stands over another base, or its tensors are not the
            ones it was saved with.
    """
    manifest = _manifest_of(folder, policy_id)
    if manifest.base_policy_id != base_policy_id:
        found = manifest.base_policy_id or "no base: its weights are whole"
        raise PolicyError(
            f"{folder} holds an adapter over {found}, and the base here is {base_policy_id}. Over other weights it "
            "would be another policy. Set model.path to its base."
        )
    try:
        told = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        lora = LoraConfig(rank=told["r"], alpha=told["lora_alpha"], targets=tuple(told["target_modules"]))
        model = adapted(base, lora, load_file(folder / ADAPTER), frozen=True)
    except (OSError, ValueError, KeyError, SafetensorError, LearningError) as error:
        raise PolicyError(f"The adapter in {folder} is damaged ({error}). Remove it; it is learned again.") from error
    _check_weights(folder, model, manifest)
    return model, manifest


def _manifest_of(folder: Path, policy_id: str) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None or manifest.policy_id != policy_id:
        found = manifest.policy_id if manifest else "no manifest"
        raise PolicyError(f"{folder} should hold {policy_id} but says {found}. Remove it; the policy is learned again.")
    return manifest


def _check_weights(folder: Path, model: nn.Module, manifest: Manifest) -> None:
    checksum = weights_checksum(model)
    if checksum != manifest.weights_checksum:
        raise PolicyError(
            f"The weights in {folder} were changed: checksum {checksum}, the manifest says "
            f"{manifest.weights_checksum}. Remove the folder; the policy is learned again."
        )


def state_folder(folder: Path) -> Path | None:
    """Where the safetensors of the saved optimizer state lie; None when the folder was saved without one."""
    if (folder / OPTIMIZER).exists():
        return folder
    return folder / OPTIMIZER_SHARDS if (folder / OPTIMIZER_SHARDS).is_dir() else None


def has_optimizer(folder: Path) -> bool:
    """Whether learning can go on from a saved policy: it has the optimizer's state, by one process or by ranks."""
    return state_folder(folder) is not None


def load_optimizer(folder: Path) -> dict[str, Tensor] | None:
    """The saved optimizer state, whole, or None when the folder was saved without one."""
    place = state_folder(folder)
    if place is None:
        return None
    try:
        return load_file(folder / OPTIMIZER) if place == folder else whole_tensors(place, STATE)
    except (SafetensorError, LearningError) as error:
        damaged = folder / OPTIMIZER if place == folder else place
        raise PolicyError(f"{damaged} is damaged ({error}). Remove {folder}; the policy is learned again.") from error


def tokenizer_files(folder: Path) -> list[str]:
    """Names of the folder's tokenizer files."""
    return [path.name for path in folder.iterdir() if path.is_file() and path.name.startswith(TOKENIZER_FILES)]


def _make_durable(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
