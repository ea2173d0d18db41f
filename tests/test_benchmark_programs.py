"""The programs that measure rollouts and whole iterations run to their end at a tiny size."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.long


def measured(program: str, data: Path, tmp_path: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What a program printed, and what it wrote."""
    result = tmp_path / "result.json"
    command = [sys.executable, f"benchmarks/{program}", "--shape", "tiny", "--prompts", "2", "--json", str(result)]
    environment = os.environ | {"REVAL_DATA": str(data), "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(result.read_text())


def test_rollouts(reval_data: Path, tmp_path: Path) -> None:
    more = ("--longest", "24", "--engines", "transformers", "none", "--part", "8", "--updated", "4")
    printed, found = measured("rollouts.py", reval_data, tmp_path, *more)
    (row,) = found["rows"]
    assert row["responses"] == 8  # of 16
    assert row["tokens"] <= 8 * 24
    assert row["round_seconds"] == pytest.approx(2 * row["seconds"])
    assert row["shares"] == sorted(row["shares"], reverse=True)
    assert len(row["shares"]) == 4
    assert found["skipped"] == {"none": "not in this version: left out"}
    assert "| none | not in this version: left out |" in printed


@pytest.mark.parametrize(
    "without",
    [(), ("--without-prefect",), pytest.param(("--engine", "vllm", "--without-prefect"), marks=pytest.mark.vllm)],
)
def test_an_iteration(without: tuple[str, ...], reval_data: Path, tmp_path: Path) -> None:
    if "vllm" in without and importlib.util.find_spec("vllm") is None and not os.environ.get("REVAL_REQUIRE_VLLM"):
        pytest.skip("vLLM is not installed here: make vllm")
    few = ("--longest", "16", "--set", "problems.0.limit=200", *without)
    printed, found = measured("iteration.py", reval_data, tmp_path, *few)
    assert ("stood in for" in printed) == bool(without)
    assert {"generate", "verify", "score", "persist", "learn"} < found["timeline"].keys()
    store = found["store"]
    assert (store["trajectories"], store["replay_entries"], store["updates"]) == (16, 16, 2)
    assert store["tokens_generated"] <= 16 * 16
    assert store["truncated_share"] == pytest.approx(1.0, abs=0.2)
    assert found["full"]["iteration"] > sum(found["timeline"][name]["seconds"] for name in ("generate", "learn"))
