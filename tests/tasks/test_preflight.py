"""Settings that do not go together are refused before anything is made."""

import sys
from typing import Any

import pytest

from reval_core.config import Config
from reval_core.config_files import apply_override, parse_config
from reval_core.errors import ConfigError
from tasks.preflight import check_packages, check_settings


def config(*overrides: str) -> Config:
    tree: dict[str, Any] = {"problems": [{"path": "builtin:arithmetic/train"}], "model": {"device": "cpu"}}
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["objective.use=grpo", "objective.updates.off_policy=0", "offline.trajectories=window:a"],
            "'grpo' learns from the fresh batch only, and stored trajectories are none",
        ),
        (
            ["objective.use=dr_grpo", "objective.updates.off_policy=0", "rollouts.temperature=0.6"],
            "temperature is 0.6 and objective.policy_temperature 1, but 'dr_grpo' takes .* samples of the policy",
        ),
        (["reward.policy={tolerance: 1}"], r"Unknown grading options \['tolerance'\]"),
        (["evaluation.policies={minerva: {tolerance: 1}}"], r"Unknown grading options \['tolerance'\]"),
        (["rollouts.engine.args={beams: 2}"], "rollouts.engine.args do not fit the engine 'transformers': .*beams"),
        (["replay.draw=recency", "replay.draw_args={half_life: .nan}"], "half_life must be above 0 rounds, got nan"),
        (["evaluation.limits={amc32: 5}"], "Unknown benchmark 'amc32'.*Did you mean 'amc23'"),
        (["evaluation.policies={minervas: {relative_tolerance: 0.1}}"], "Unknown benchmark 'minervas'"),
    ],
)
def test_it_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(config(*overrides))


def test_a_policy_that_is_deployed_at_another_temperature_is_sampled_there() -> None:
    grpo = ["objective.use=grpo", "objective.updates.off_policy=0"]
    check_settings(config(*grpo, "rollouts.temperature=0.6", "objective.policy_temperature=0.6"))
    check_settings(config("rollouts.temperature=0.6"))  # other objectives learn from any samples


def test_names_of_ones_own_and_paths_are_benchmarks() -> None:
    own = "evaluation.files={mine: {path: mine.jsonl}}"
    check_settings(config(own, "evaluation.limits={mine: 5, data/other.jsonl: 5, amc@hub: 5}"))


def test_a_package_that_is_missing_is_asked_for_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    check_settings(config("model.kernels=liger"))  # as a dry run does, which may be made elsewhere
    with pytest.raises(ConfigError, match=r"liger-kernel is not installed. pip install -e '.\[gpu\]'"):
        check_packages(config("model.kernels=liger"))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match="peft"):
        check_packages(config("model.lora={rank: 4}"))
