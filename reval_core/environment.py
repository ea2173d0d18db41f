"""What a run ran under: versions, device, threads, code. Recorded for every attempt, compared on resume."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from reval_core import __version__
from reval_core.errors import ConfigError
from reval_core.identity import LEARNING_VERSION, ROLLOUT_VERSION

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "duckdb",
    "pyarrow",
    "prefect",
    "mlflow",
    "math-verify",
    "sympy",
    "peft",
    "bitsandbytes",
    "vllm",
)
BITS_DEPEND_ON = (
    "torch", "transformers", "numpy", "peft", "bitsandbytes", "threads", "cpu", "device", "ranks", "LEARNING_VERSION",
)  # fmt: skip
"""What the bits of learned weights depend on, on one kind of device."""


def versions(device: str, ranks: int = 1) -> dict[str, Any]:
    """Package versions, our own hand-raised versions, and what bits of results depend on."""
    found: dict[str, Any] = {"reval": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found |= {
        "LEARNING_VERSION": LEARNING_VERSION,
        "ROLLOUT_VERSION": ROLLOUT_VERSION,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": device_name(device),
    }
    return found | {"ranks": ranks} if ranks > 1 else found


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """``torch 2.11.0 -> 2.13.0`` for each entry that is not the same."""
    keys = sorted(set(before) | set(after))
    return [f"{key} {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def choose_device(wanted: str) -> str:
    """The torch device: ``auto`` is the first GPU, or the CPU where there is none; ``cpu:1`` is the CPU, too.

    Raises:
        ConfigError: PyTorch does not know the device, or sees none of the kind here.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch(r"cpu(:\d+)?", wanted):
        return "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ConfigError(f"model.device {wanted!r} is none: use auto, cpu, cuda or cuda:1.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"model.device is {wanted!r}, but PyTorch sees {torch.cuda.device_count()} GPUs here. Use auto or cpu, or "
            "install the CUDA build of torch (README, Installation)."
        )
    return wanted


def device_slot(wanted: str) -> str:
    """What two runs must not hold at once: ``cpu``, ``cuda:0``. CPUs may be told apart by numbers of one's own."""
    device = choose_device(wanted) if wanted == "auto" else wanted
    return "cuda:0" if device == "cuda" else device


def device_name(device: str) -> str:
    """The device in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return "cpu"


def git_commit() -> str | None:
    """Commit of the checkout this code runs from, with ``+changes`` when files differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if dirty else "")
