"""The quickstart with vLLM in process, from the command line to the report."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from reval_core.policies.tiny import arithmetic_tokenizer
from reval_core.store import Store

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.vllm


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A random model with the quickstart's tokenizer: heads of 32, where the built-in one has heads of 16, for which
    vLLM has no kernel on a CPU."""
    folder, tokenizer = tmp_path / "base", arithmetic_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(tokenizer),
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                max_position_embeddings=tokenizer.model_max_length,
                initializer_range=0.1,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_quickstart_runs_on_vllm(base: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is None and not os.environ.get("REVAL_REQUIRE_VLLM"):
        pytest.skip("vLLM is not installed here: make vllm")
    home = tmp_path / "root"
    settings = {
        "model.path": str(base),
        "rollouts.engine.use": "vllm",
        "rollouts.engine.args.enforce_eager": "true",
        "run.iterations": "2",
        "rollouts.prompts_per_iteration": "8",
        "evaluation.limit": "4",
        "evaluation.temperature": "0.7",
        "evaluation.top_p": "0.9",
    }
    command = [sys.executable, "-c", "from flows.cli import main; main()", "train", "configs/quickstart.yaml"]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"REVAL_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    store = Store(home / "reval.duckdb")
    (found,) = store.query(
        "SELECT count(*) AS rounds, count(DISTINCT engine) AS engines, min(engine) AS engine, "
        "(SELECT count(*) FROM trajectories) AS trajectories FROM store.batches WHERE purpose = 'training'"
    ).to_pylist()
    assert (found["rounds"], found["engines"]) == (2, 1)
    assert found["engine"].startswith("vllm-0.")
    assert found["engine"].endswith("/float32")
    logged = "".join(path.read_text() for path in home.rglob("attempt-*.jsonl"))
    assert logged.count("has the weights of pol_") == 2 + 2 * 2  # rounds, and two benchmarks before and after
    mismatch = store.query(
        "SELECT max(abs(t.behaviour_logprob - (m.log_ratio + s.logprob)) / t.response_tokens) AS worst "
        "FROM store.update_trajectories AS m JOIN store.trajectories AS t USING (trajectory_id) "
        "JOIN store.reference_scores AS s USING (trajectory_id) JOIN store.policies AS p ON p.policy_id = m.policy_id "
        "AND s.reference_policy_id = p.reference_policy_id JOIN store.batches AS b ON b.batch_id = t.batch_id "
        "AND b.policy_id = p.parent_policy_id WHERE m.update_index = 0"
    ).to_pylist()
    assert mismatch[0]["worst"] < 1e-4, json.dumps(mismatch)
