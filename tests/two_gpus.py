"""One of two ranks on two GPUs, for tests/test_cuda.py: an update in bfloat16, packed, and in float32, padded.

python -m torch.distributed.run --nproc-per-node 2 tests/two_gpus.py FOLDER
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from transformers import Qwen2Config, Qwen2ForCausalLM

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.learning.activations import checkpoint_activations
from reval_core.learning.batch import TrainingExample
from reval_core.learning.learner import Learner
from reval_core.learning.sharding import ShardedLearner, shard

CASES = {
    "float32": {"compute_dtype": "float32", "packing": False, "recomputed": False},
    "bfloat16": {"compute_dtype": "bfloat16", "packing": True, "recomputed": "mlp"},
    "layers recomputed": {"compute_dtype": "bfloat16", "packing": True, "recomputed": True},
}
UPDATES = 3


def random_model() -> nn.Module:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32_000,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
    )
    return Qwen2ForCausalLM(config).to("cuda").eval()


def some_examples() -> list[TrainingExample]:
    rng = np.random.default_rng(0)
    made = []
    for index in range(13):
        prompt, response = (rng.integers(2, 32_000, size).astype(np.int32) for size in rng.integers(8, 600, 2))
        value = float(np.log(32_000))
        made.append(
            TrainingExample(
                trajectory_id=str(index),
                group_id=str(index // 4),
                prompt_ids=prompt,
                response_ids=response,
                reward=float(index % 2),
                ref_logprob=-value * len(response),
                ref_root_value=value,
            )
        )
    return made


def learner_of(name: str, *, ranks: bool) -> Learner:
    case = dict(CASES[name])
    model, recomputed = random_model(), case.pop("recomputed")
    checkpoint_activations(model, recomputed)
    optimizer = OptimizerConfig(lr=1e-4, max_tokens_per_micro_batch=2048, packing=bool(case["packing"]))
    objective, dtype = ObjectiveConfig(beta=0.01), str(case["compute_dtype"])
    if not ranks:
        return Learner(model, objective, optimizer, compute_dtype=dtype)
    mesh = init_device_mesh("cuda", (dist.get_world_size(),))
    return ShardedLearner(shard(model, mesh, dtype), objective, optimizer, compute_dtype=dtype)


def learned(learner: Learner) -> list[dict[str, object]]:
    found = []
    for _ in range(UPDATES):
        report = learner.update(some_examples())
        found.append({"loss": report.loss, "grad_norm": report.grad_norm, "residual": report.residual.tolist()})
    return found


def main(folder: Path) -> None:
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl")
    reports = {}
    for name in CASES:
        learner = learner_of(name, ranks=True)
        reports[name] = learned(learner)
        assert isinstance(learner, ShardedLearner)
        learner.write_weights(folder / name)
        learner.write_state(folder / name / "optimizer")
        learner.read_state(folder / name / "optimizer")
        whole = {key: value.full_tensor() for key, value in learner.model.named_parameters()}
        if dist.get_rank() == 0:
            save_file(whole, folder / f"{name}.safetensors")
    (folder / f"rank-{dist.get_rank()}.json").write_text(json.dumps(reports))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
