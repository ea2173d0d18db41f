"""AdamW in float32, in 8 bits and paged: close to each other, and their state comes back to the bit."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.errors import ConfigError, LearningError
from reval_core.learning.learner import Learner
from reval_core.learning.optimizers import make_optimizer, restored, state_tensors

LEAN = ("adamw_8bit", "adamw_paged")


def config(use: str, **settings: Any) -> OptimizerConfig:
    if use != "adamw":
        pytest.importorskip("bitsandbytes")
    return OptimizerConfig(use=use, **{"lr": 1e-2, **settings})  # type: ignore[arg-type]


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    """One large enough to be held in 8 bits, with a last block that is not full, one small, one never learned."""
    source = torch.Generator().manual_seed(seed)
    sizes = {"large": (65, 68), "small": (7,), "idle": (3,)}
    return {name: nn.Parameter(torch.randn(size, generator=source)) for name, size in sizes.items()}


def step(optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter], index: int) -> None:
    source = torch.Generator().manual_seed(100 + index)
    for name in ("large", "small"):
        named[name].grad = torch.randn(named[name].shape, generator=source)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
        optimizer.step()


@pytest.mark.parametrize("use", ["adamw", *LEAN])
def test_the_state_comes_back_to_the_bit(use: str, tmp_path: Path) -> None:
    one = parameters()
    optimizer = make_optimizer(config(use), one)
    for index in range(3):
        step(optimizer, one, index)
    save_file(state_tensors(optimizer, use, one), tmp_path / "optimizer.safetensors")
    other = {name: nn.Parameter(value.detach().clone()) for name, value in one.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
        again = restored(config(use), other, load_file(tmp_path / "optimizer.safetensors"))
    for index in range(3, 6):
        step(optimizer, one, index)
        step(again, other, index)
    assert all(torch.equal(one[name], other[name]) for name in one)
    states = state_tensors(optimizer, use, one), state_tensors(again, use, other)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not any("idle" in name for name in states[0])
    if use == "adamw_8bit":
        assert states[0]["adamw_8bit.state1.large"].dtype == torch.uint8
        assert states[0]["adamw_8bit.absmax1.large"].numel() == -(-65 * 68 // 256)


@pytest.mark.parametrize(("use", "limit"), [("adamw_paged", 1e-6), ("adamw_8bit", 0.05)])
def test_the_lean_ones_move_weights_as_adamw_does(use: str, limit: float) -> None:
    moved = []
    for kind in ("adamw", use):
        named = parameters()
        optimizer = make_optimizer(config(kind, betas=(0.9, 0.99)), named)
        for index in range(10):
            step(optimizer, named, index)
        moved.append(named["large"].detach() - parameters()["large"].detach())
    assert (moved[1] - moved[0]).norm() <= limit * moved[0].norm()


@pytest.mark.parametrize("use", LEAN)
def test_a_learner_stopped_and_restored_learns_the_same(
    use: str, make_model: Callable[..., Any], examples: Any, with_reference: Callable[..., Any]
) -> None:
    settings, objective = config(use, warmup_updates=4), ObjectiveConfig(beta=0.5)
    model = make_model()
    scored = with_reference(model, examples)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
        learner = Learner(model, objective, settings)
        learner.update(scored)
        rates = [learner.update(scored).lr]
        other = make_model(seed=1)
        other.load_state_dict(model.state_dict())
        again = Learner(other, objective, settings)
        again.load_state_tensors(learner.state_tensors())
        assert learner.update(scored).lr == again.update(scored).lr == pytest.approx(rates[0] * 3 / 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_the_state_of_another_optimizer_is_refused() -> None:
    named = parameters()
    optimizer = make_optimizer(config("adamw"), named)
    step(optimizer, named, 0)
    state = state_tensors(optimizer, "adamw", named)
    with pytest.raises(LearningError, match=r"state is of adamw, and optimizer\.use is 'adamw_8bit'"):
        restored(config("adamw_8bit"), named, state)


@pytest.mark.parametrize("use", LEAN)
def test_a_missing_library_is_said_with_its_cure(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ConfigError, match=rf"'{use}', and the package bitsandbytes is not installed.*\[lean\]"):
        make_optimizer(OptimizerConfig(use=use), parameters())  # type: ignore[arg-type]
