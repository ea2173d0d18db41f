"""Settings that do not go together are refused before anything is made."""

from typing import Any

import pytest

from reval_core.config import Config
from reval_core.config_files import apply_override, parse_config
from reval_core.errors import ConfigError
from tasks.preflight import check_settings


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
        (["evaluation.limits={amc32: 5}"], "Unknown benchmark 'amc32'.*Did you mean 'amc23'"),
        (["evaluation.policies={minervas: {relative_tolerance: 0.1}}"], "Unknown benchmark 'minervas'"),
    ],
)
def test_it_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(config(*overrides))


def test_names_of_ones_own_and_paths_are_benchmarks() -> None:
    own = "evaluation.files={mine: {path: mine.jsonl}}"
    check_settings(config(own, "evaluation.limits={mine: 5, data/other.jsonl: 5, amc@hub: 5}"))
