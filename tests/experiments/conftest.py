"""An experiment's file with everything that one may have."""

from pathlib import Path
from typing import Any

import pytest
import yaml

BASE: dict[str, Any] = {
    "problems": [{"path": "builtin:arithmetic/train"}],
    "evaluation": {"benchmarks": ["arithmetic"], "samples_per_problem": 2, "every": 1},
}
TREE: dict[str, Any] = {
    "name": "trial",
    "base": "base.yaml",
    "set": {"run.iterations": 3, "optimizer.lr": 1e-4},
    "arms": {
        "grpo": {
            "set": {"objective.use": "grpo", "objective.updates": {"on_policy": 4, "off_policy": 0}},
            "tune": {"optimizer.lr": [1e-4, 3e-4]},
        },
        "reval": {"set": {"optimizer.lr": 2e-4}},
    },
    "seeds": [0, 1],
    "tuning_seeds": [7],
    "metric": {"benchmark": "arithmetic", "name": "avg@2"},
    "thresholds": [0.5],
    "baseline": "grpo",
}


@pytest.fixture
def tree() -> dict[str, Any]:
    """The raw experiment, to change."""
    copy: dict[str, Any] = yaml.safe_load(yaml.safe_dump(TREE))
    return copy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the base configuration."""
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE), encoding="utf-8")
    return tmp_path
