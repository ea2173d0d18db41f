"""Two ranks learn what one process learns: gradients, losses, weights, and states that either goes on from."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cases_of_ranks import UPDATES, gradients, policy, report_of, scored, several_updates, weights
from safetensors.torch import load_file, save_file
from small import small_examples, small_model
from torch import Tensor
from transformers import Qwen2ForCausalLM

from reval_core.errors import LearningError
from reval_core.learning.batch import micro_batches, passes
from reval_core.learning.example_file import read_examples, write_examples
from reval_core.learning.learner import Learner
from reval_core.learning.shards import STATE, names, read_into, whole_tensors, write_shards

PROGRAM = Path(__file__).with_name("cases_of_ranks.py")
LIMIT = {"float64": 1e-10, "float32": 1e-5}


def two_processes(program: Path, *arguments: object) -> None:
    """As torchrun would start them, which takes some seconds more."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(program), *map(str, arguments)]
    ranks = [
        subprocess.Popen(
            command,
            env={**os.environ, **place, "RANK": rank, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=300)
        assert rank.returncode == 0, errors[-4000:]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks wrote of the core cases; the last of it after they went on from a state of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    learner, _ = several_updates(None)
    (folder / "of one").mkdir()
    save_file(learner.state_tensors(), folder / "of one" / "optimizer.safetensors")
    two_processes(PROGRAM, folder, "core")
    return folder


@pytest.fixture(scope="module")
def reports(two_ranks: Path) -> dict[str, dict]:
    return reports_in(two_ranks)


def reports_in(folder: Path) -> dict[str, dict]:
    first, second = ((folder / f"rank-{rank}.json").read_text() for rank in (0, 1))
    assert first == second  # to the bit, on every rank
    return json.loads(first)


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Norm of the difference over the norm."""
    assert found.keys() == expected.keys()
    flat = [torch.cat([some[name].flatten() for name in sorted(some)]) for some in (found, expected)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def compare_gradients(folder: Path, reports: dict[str, dict], which: str) -> int:
    cases = 0
    for name, gradient, report in gradients(None, which):
        dtype = name.split()[2]
        assert difference(load_file(folder / f"{name}.safetensors"), gradient) <= LIMIT[dtype], name
        for what, value in report.items():
            np.testing.assert_allclose(reports[name][what], value, rtol=1e-4, atol=1e-4, err_msg=f"{what} of {name}")
        cases += 1
    return cases


def compare_updates(folder: Path, reports: dict[str, list[dict]], which: str) -> int:
    """How many settings were compared, each over several updates."""
    for name, settings in UPDATES[which].items():
        learner, alone = several_updates(None, **settings)
        found, near = load_file(folder / f"updates {name}.safetensors"), 1e-2 if name == "bfloat16" else 1e-4
        assert difference(found, weights(learner)) <= near / 10
        assert difference(found, weights_before(**settings)) > near
        for one, two in zip(alone, reports[f"updates {name}"], strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=near)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=near)
    return len(UPDATES[which])


@pytest.mark.long
@pytest.mark.slow
def test_gradients_and_losses_are_those_of_one_process(two_ranks: Path, reports: dict[str, dict]) -> None:
    assert compare_gradients(two_ranks, reports, "core") == 12


@pytest.mark.long
@pytest.mark.slow
def test_weights_after_several_updates_are_those_of_one_process(
    two_ranks: Path, reports: dict[str, list[dict]]
) -> None:
    assert compare_updates(two_ranks, reports, "core") == 2


@pytest.mark.long
def test_so_they_are_for_every_objective_packed_and_padded(tmp_path: Path) -> None:
    two_processes(PROGRAM, tmp_path, "rest")
    reports = reports_in(tmp_path)
    assert compare_gradients(tmp_path, reports, "rest") == 44
    assert compare_updates(tmp_path, reports, "rest") == 2


def weights_before(**settings: object) -> dict[str, Tensor]:
    model = policy(tie_word_embeddings=bool(settings.get("tied")))
    return {name: value.detach() for name, value in model.named_parameters()}


@pytest.mark.long
@pytest.mark.slow
def test_one_process_goes_on_from_what_two_ranks_wrote(two_ranks: Path) -> None:
    folder = two_ranks / "float32 checkpoint"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)}
    # in Hugging Face layout
    model = small_model(seed=5)
    model.config.save_pretrained(folder)
    model = Qwen2ForCausalLM.from_pretrained(folder)
    loaded = {name: value.detach() for name, value in model.named_parameters()}
    assert difference(loaded, load_file(two_ranks / "updates float32.safetensors")) == 0

    alone, _ = several_updates(None)
    learner = Learner(model, alone.objective_config, alone.optimizer_config)
    learner.load_state_tensors(whole_tensors(folder / "optimizer", STATE))
    assert learner.updates_done == 5
    for index in (5, 6):
        report_of(learner, index)
        report_of(alone, index)
    assert difference(weights(learner), weights(alone)) <= 1e-5


@pytest.mark.long
@pytest.mark.slow
def test_two_ranks_go_on_from_what_one_process_wrote(reports: dict[str, list[dict]]) -> None:
    learner, _ = several_updates(None)
    for index, two in zip((5, 6), reports["goes on"], strict=True):
        one = report_of(learner, index)
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_every_rank_has_as_many_passes_and_nearly_equal_work(ranks: int, packed: bool) -> None:
    examples = scored()
    for max_tokens in (1, 12, 30, 64, 1000):
        found = passes(examples, max_tokens, ranks, packed=packed)
        fewest = -(-len(micro_batches(examples, max_tokens, packed=packed)) // ranks)
        assert [len(of_ranks) for of_ranks in found] == [ranks] * fewest
        flat = [index for of_ranks in found for indices in of_ranks for index in indices]
        assert sorted(flat) == list(range(12))
    tokens = [sum(len(examples[index]) for index in indices) for indices in passes(examples, 1000, 2, packed=True)[0]]
    assert max(tokens) - min(tokens) <= 2
    assert passes(examples[:1], 1000, 2) == [[[0], []]]


def test_files_that_are_missing_or_of_another_model_are_refused(tmp_path: Path) -> None:
    tensors = {f"t{index}": torch.arange(4.0) + index for index in range(3)}
    write_shards(tmp_path, "some", tensors)
    assert sorted(names(tmp_path)) == sorted(tensors)
    assert difference(whole_tensors(tmp_path, "some"), tensors) == 0
    with pytest.raises(LearningError, match="cannot be read"):
        read_into(tmp_path, {"t3": torch.zeros(4)})
    with pytest.raises(LearningError, match="cannot be read"):
        read_into(tmp_path, {"t0": torch.zeros(5)})
    file = next(tmp_path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(LearningError, match="damaged"):
        names(tmp_path)
    with pytest.raises(LearningError, match="damaged"):
        whole_tensors(tmp_path, "some")
    with pytest.raises(LearningError, match="no safetensors"):
        names(tmp_path / "none")


def test_examples_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    given = [*scored(), *small_examples()[:2]]  # with and without scores
    write_examples(path, given)
    found = read_examples(path)
    assert len(found) == len(given)
    for one, two in zip(found, given, strict=True):
        for name, value in vars(two).items():
            assert np.array_equal(getattr(one, name), value), name
        assert one.prompt_ids.dtype == one.response_ids.dtype == np.int32
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(LearningError, match="cannot be read"):
        read_examples(path)
