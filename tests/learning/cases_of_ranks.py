"""What several ranks and one process are to agree on. This program is one rank; the test runs the same alone.

python -m torch.distributed.run --nproc-per-node 2 tests/learning/cases_of_ranks.py FOLDER core|rest
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from small import small_examples, small_model
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.learning.batch import TrainingExample
from reval_core.learning.learner import Learner
from reval_core.learning.objectives import REGISTERED
from reval_core.learning.reference import reference_scores
from reval_core.learning.sharding import ShardedLearner, shard

DTYPES = {"float64": torch.float64, "float32": torch.float32}
Examples = list[TrainingExample]


def policy(dtype: torch.dtype = torch.float32, **settings: object) -> nn.Module:
    """Away from the reference, which is the model of seed 0."""
    model, other = small_model(dtype, **settings), small_model(dtype, seed=1, **settings)
    with torch.no_grad():
        for parameter, towards in zip(model.parameters(), other.parameters(), strict=True):
            parameter.lerp_(towards, 0.1)
    return model


def scored(dtype: torch.dtype = torch.float32) -> Examples:
    examples = small_examples()
    logprob, value = reference_scores(small_model(dtype), examples, max_tokens=10_000)
    made = [
        replace(example, ref_logprob=float(logprob[index]), ref_root_value=float(value[index]))
        for index, example in enumerate(examples)
    ]
    made[3] = replace(made[3], weight=0.25)
    return made


def learner_of(model: nn.Module, mesh: DeviceMesh | None, use: str = "reval", **settings: object) -> Learner:
    dtype = str(settings.pop("compute_dtype", "float32"))
    optimizer = OptimizerConfig(**{"lr": 1e-3, "max_tokens_per_micro_batch": 30, **settings})
    made = ObjectiveConfig(use=use, beta=0.1)
    if mesh is None:
        return Learner(model, made, optimizer, compute_dtype=dtype)
    return ShardedLearner(shard(model, mesh, dtype), made, optimizer, compute_dtype=dtype)


def whole(values: dict[str, Tensor | None]) -> dict[str, Tensor]:
    found = {name: value.detach() for name, value in values.items() if value is not None}
    return {name: (v.full_tensor() if isinstance(v, DTensor) else v).clone() for name, v in found.items()}


def weights(learner: Learner) -> dict[str, Tensor]:
    return whole(dict(learner.model.named_parameters()))


CORE = {("reval", False), ("vargrad", False), ("grpo", True)}
"""Objective and packing of the cases of the ordinary tests."""


def gradients(mesh: DeviceMesh | None, which: str) -> Iterator[tuple[str, dict[str, Tensor], dict[str, object]]]:
    """Each case's name, gradient before clipping, and report."""
    splits = {"all": slice(12), "three": slice(1, 4), "one": slice(5, 6)}
    for use, objective in REGISTERED.items():
        for packing in (False, True):
            for dtype_name, dtype in DTYPES.items():
                for split, part in splits.items():
                    if ((use, packing) in CORE) != (which == "core"):
                        continue
                    if dtype_name == "float32" and split != "all":
                        continue
                    if split != "all" and "group" in objective.needs:
                        part = slice(2 if split == "one" else 1, 4)  # some of one group
                    examples = scored(dtype)[part]
                    learner = learner_of(policy(dtype), mesh, use, packing=packing)
                    learner.begin_round(examples)
                    found = learner.accumulate(examples)
                    name = f"{use} {'packed' if packing else 'padded'} {dtype_name} {split}"
                    report = {
                        "loss": found.loss,
                        "residual": found.residual.tolist(),
                        "log_ratio": found.log_ratio.tolist(),
                        "root_gap": found.root_gap.tolist(),
                    }
                    yield name, whole({name: p.grad for name, p in learner.model.named_parameters()}), report


def several_updates(mesh: DeviceMesh | None, **settings: object) -> tuple[Learner, list[dict[str, object]]]:
    """A learner after five updates, and their reports."""
    tied = bool(settings.pop("tied", False))
    learner = learner_of(policy(tie_word_embeddings=tied), mesh, **settings)
    return learner, [report_of(learner, index) for index in range(5)]


def report_of(learner: Learner, index: int) -> dict[str, object]:
    report = learner.update(scored()[index % 3 :: 2])
    return {"loss": report.loss, "grad_norm": report.grad_norm, "residual": report.residual.tolist()}


UPDATES = {
    "core": {"float32": {}, "bfloat16": {"compute_dtype": "bfloat16", "packing": True}},
    "rest": {"tied": {"tied": True}, "clipped": {"clip_norm": 0.01}},
}


def main(folder: Path, which: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh, rank = init_device_mesh("cpu", (dist.get_world_size(),)), dist.get_rank()
    reports: dict[str, object] = {}
    for name, gradient, report in gradients(mesh, which):
        reports[name] = report
        if rank == 0:
            save_file(gradient, folder / f"{name}.safetensors")
    for name, settings in UPDATES[which].items():
        learner, reports[f"updates {name}"] = several_updates(mesh, **settings)
        after = weights(learner)
        assert isinstance(learner, ShardedLearner)
        learner.write_weights(folder / f"{name} checkpoint")
        learner.write_state(folder / f"{name} checkpoint" / "optimizer")
        if rank == 0:
            save_file(after, folder / f"updates {name}.safetensors")
    if which == "core":
        go_on(mesh, folder, reports)
    (folder / f"rank-{rank}.json").write_text(json.dumps(reports))
    dist.destroy_process_group()


def go_on(mesh: DeviceMesh, folder: Path, reports: dict[str, object]) -> None:
    """From a state that one process wrote."""
    learner, _ = several_updates(mesh)
    assert isinstance(learner, ShardedLearner)
    learner.read_state(folder / "of one")
    reports["goes on"] = [report_of(learner, index) for index in (5, 6)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
