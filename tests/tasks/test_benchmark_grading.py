"""By what benchmarks are graded: mathematics by the run's policy, the benchmark's own options, and the user's."""

from __future__ import annotations

import pytest

from reval_core.config_files import parse_config
from reval_core.problems.benchmarks import BENCHMARKS
from reval_core.verification import GradingPolicy, grading_policy
from tasks.grading import benchmark_rewards

CONFIG = {
    "run": {"name": "graded"},
    "problems": [{"path": "builtin:arithmetic/train"}],
    "model": {"path": "builtin:tiny"},
    "reward": {"use": "my_rewards:brevity", "transform": "raw", "policy": {"ordered_lists": True}},
    "evaluation": {
        "benchmarks": ["math500", "minerva", "olympiadbench"],
        "extraction": "lenient",
        "policies": {"olympiadbench": {"relative_tolerance": 0.001}},
    },
}


def test_each_benchmark_has_its_own_options_over_the_run_s() -> None:
    rewards = benchmark_rewards(parse_config(CONFIG))
    assert {reward.use for reward in rewards.values()} == {"math"}
    assert {reward.extraction for reward in rewards.values()} == {"lenient"}
    assert rewards["math500"].policy == {"ordered_lists": True}
    assert rewards["minerva"].policy == {"ordered_lists": True, "relative_tolerance": 0.01}
    assert rewards["olympiadbench"].policy == {"ordered_lists": True, "relative_tolerance": 0.001}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_options_of_registered_benchmarks_are_options(name: str) -> None:
    assert isinstance(grading_policy(BENCHMARKS[name].policy), GradingPolicy)
