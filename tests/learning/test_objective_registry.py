"""Objectives by name, one's own objective, and the combinations that cannot be."""

import sys

import pytest
import torch

from reval_core.config import ObjectiveConfig
from reval_core.errors import ConfigError
from reval_core.learning import objectives
from reval_core.learning.objectives import REGISTERED, Batch, Loss, Objective, Update, check, objective_for


def _config(use: str, off_policy: int = 1, **settings: object) -> ObjectiveConfig:
    return ObjectiveConfig(use=use, updates={"on_policy": 1, "off_policy": off_policy}, **settings)


def test_the_registered_objectives_and_what_each_needs() -> None:
    needs = {name: set(objective.needs) for name, objective in REGISTERED.items()}
    assert needs == {
        "reval": {"ref_logprob", "ref_root_value", "root_value"},
        "tbrm": {"ref_logprob", "root_value"},
        "regression": {"ref_logprob"},
        "vargrad": {"ref_logprob", "group", "update_logprob"},
        "logz": {"ref_logprob", "group", "update_logprob"},
        "grpo": {"group", "old_logprob"},
        "dr_grpo": {"group", "old_logprob"},
    }
    assert {name for name, objective in REGISTERED.items() if not objective.replay} == {"grpo", "dr_grpo"}
    assert {name for name, objective in REGISTERED.items() if not objective.needs_reference} == {"grpo", "dr_grpo"}
    assert all(objective.name == name for name, objective in REGISTERED.items())


class _Read:
    """A configuration that keeps account of what is read of it."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> object:
        self.names.add(name)
        return getattr(ObjectiveConfig(), name)


@pytest.mark.parametrize("name", REGISTERED)
def test_an_objective_reads_the_settings_that_it_declares(name: str) -> None:
    objective, config = REGISTERED[name], _Read()
    numbers, tokens = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    update = Update(reward=numbers, group=torch.tensor([0, 0]), ref_logprob=numbers, logprob=numbers)
    batch = Batch(
        logprob=numbers,
        root_value=numbers,
        reward=numbers,
        weight=torch.ones(2, dtype=torch.float64),
        response_mask=torch.ones(2, 3, dtype=torch.bool),
        count=2,
        token_count=6,
        ref_logprob=numbers,
        ref_root_value=numbers,
        constant=objective.constant(update, config) if objective.constant else None,
        token_logprob=tokens,
        old_token_logprob=tokens,
    )
    objective.loss(batch, config)
    assert config.names == objective.reads


def test_ones_own_objective_reads_everything_unless_it_says_otherwise() -> None:
    everything = {"beta", "value_gradient", "clip_low", "clip_high"}
    assert Objective("mine", version=1, needs=frozenset(), loss=_zero).reads == everything
    assert Objective("mine", version=1, needs=frozenset(), reads={"beta"}, loss=_zero).reads == {"beta"}


@pytest.mark.parametrize("name", ["lr", "updates", "policy_temperature"])
def test_a_setting_that_no_objective_can_read_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"reads \['{name}'\], unknown. Known: beta, clip_high"):
        Objective("mine", version=1, needs=frozenset(), reads={name}, loss=_zero)


def _zero(batch: Batch, config: ObjectiveConfig) -> Loss:
    return Loss(0 * batch.logprob.sum())


mine = Objective("mine", version=3, needs=frozenset({"ref_logprob"}), loss=_zero)


def test_ones_own_objective_is_found_by_module_and_attribute() -> None:
    assert check(_config(f"{__name__}:mine")) is mine


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("revel", "Did you mean 'reval'"),
        (f"{__name__}:_zero", "is a function; expected"),
        (f"{__name__}:absent", "has no 'absent'"),
        ("no_such_module:mine", "cannot be imported"),
    ],
)
def test_what_is_no_objective_is_explained(use: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        objective_for(ObjectiveConfig(use=use))


def test_an_unknown_need_is_an_error() -> None:
    with pytest.raises(ConfigError, match="critic"):
        Objective("mine", version=1, needs={"critic"}, loss=_zero)


@pytest.mark.parametrize("use", ["reval", "tbrm", "regression", "vargrad", "logz"])
def test_off_policy_objectives_may_replay_and_pass_often_over_the_fresh_batch(use: str) -> None:
    assert check(_config(use, off_policy=4), rollouts_per_prompt=8).name == use
    assert check(ObjectiveConfig(use=use, updates={"on_policy": 3, "off_policy": 0})).name == use


@pytest.mark.parametrize(
    ("config", "rollouts", "message"),
    [
        (_config("grpo"), 8, "off_policy is 1"),
        (_config("dr_grpo", off_policy=2), 8, "off_policy is 2"),
        (_config("grpo", off_policy=0), 1, "rollouts_per_prompt is 1"),
        (_config("vargrad"), 1, "rollouts_per_prompt is 1"),
        (_config("logz"), 1, "rollouts_per_prompt is 1"),
        (_config("regression", value_gradient="detach"), 8, "value_gradient is 'detach'"),
        (_config("grpo", off_policy=0, reference_reset_every=5), 8, "reference_reset_every is 5"),
    ],
)
def test_impossible_combinations_say_what_to_change(config: ObjectiveConfig, rollouts: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(config, rollouts)


def test_possible_combinations_pass() -> None:
    assert check(_config("grpo", off_policy=0), 8).name == "grpo"
    assert check(_config("reval", value_gradient="detach", reference_reset_every=5), 1).name == "reval"


def test_the_example_in_the_documentation_works(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = objectives.__doc__.split("# my_objectives.py\n", 1)[1].split("\n\nDivide by", 1)[0]
    lines = [line.removeprefix("    ") for line in text.splitlines()]
    assert len(lines) < 20
    (tmp_path / "my_objectives.py").write_text("\n".join(lines))
    monkeypatch.delitem(sys.modules, "my_objectives", raising=False)  # another test has one of this name
    monkeypatch.syspath_prepend(tmp_path)
    assert check(_config("my_objectives:huber")).needs_reference
