import hashlib
import json
import os
import shutil
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from reval_core.config import ModelConfig, ObjectiveConfig, OptimizerConfig
from reval_core.errors import ConfigError, PolicyError
from reval_core.identity import digest
from reval_core.learning.batch import TrainingExample
from reval_core.learning.learner import Learner
from reval_core.policies import folder as folders
from reval_core.policies.base import base_policy
from reval_core.policies.folder import (
    Manifest,
    base_policy_id,
    check_folder,
    load_model,
    load_optimizer,
    load_saved,
    load_tokenizer,
    read_manifest,
    save_policy,
    sweep,
    tokenizer_id,
    weights_checksum,
)
from reval_core.policies.tiny import build_byte_model

MANIFEST = Manifest(
    policy_id="pol_1",
    weights_checksum="",
    tokenizer_id="tok_1",
    parent_policy_id="pol_0",
    reference_policy_id=None,
    updates_done=3,
    run_id="run-1",
    iteration=2,
)


@pytest.fixture
def copy(random_folder: Path, tmp_path: Path) -> Path:
    """A model folder that a test may spoil."""
    return Path(shutil.copytree(random_folder, tmp_path / "copy"))


def save(
    folder: Path, model: nn.Module, tokenizer_folder: Path, optimizer: dict[str, torch.Tensor] | None = None
) -> Manifest:
    manifest = replace(MANIFEST, weights_checksum=weights_checksum(model))
    save_policy(folder, model, tokenizer_folder, manifest, optimizer)
    return manifest


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- folders that cannot be a policy ----------------------------------------------------------------------------------


def pickled_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def optimizer_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "optimizer.safetensors")


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "There is no model folder"),
        (no_config, "no config.json"),
        (pickled_only, r"pickled weights only \(pytorch_model.bin\), and unpickling can run code"),
        (no_weights, r"no weights \(\*\.safetensors\)"),
        (optimizer_only, r"no weights \(\*\.safetensors\)"),
        (no_tokenizer, r"no tokenizer \(tokenizer\.json\)"),
    ],
)
def test_a_folder_that_cannot_be_a_policy_is_refused(copy: Path, spoil: Callable[[Path], None], message: str) -> None:
    check_folder(copy)
    spoil(copy)
    for use in (check_folder, load_model):
        with pytest.raises(PolicyError, match=message):
            use(copy)
    with pytest.raises(PolicyError):
        base_policy(ModelConfig(path=str(copy)), copy.parent)


def test_weights_that_are_cut_off_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PolicyError, match="cannot be loaded"):
        load_model(copy)


def test_weights_that_do_not_fill_the_model_are_refused(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PolicyError, match=r"model\.norm\.weight"):
        load_model(copy)


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"intermediate_size": 25}))
    with pytest.raises(PolicyError, match="cannot be loaded"):
        load_model(copy)


def test_a_damaged_optimizer_state_is_refused(copy: Path) -> None:
    (copy / "optimizer.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(PolicyError, match=r"optimizer\.safetensors is damaged"):
        load_optimizer(copy)


def test_code_of_a_model_folder_is_not_run(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "code.py").write_text(f"open({str(copy / 'ran')!r}, 'w')\nclass C: pass\nclass M: pass\n")
    with pytest.raises(PolicyError):
        load_model(copy)
    assert not (copy / "ran").exists()


def test_a_damaged_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(PolicyError, match="tokenizer"):
        load_tokenizer(copy)


# -- identity ---------------------------------------------------------------------------------------------------------


def test_a_base_policy_is_its_files_wherever_and_whenever(random_folder: Path, copy: Path) -> None:
    name = base_policy_id(random_folder)
    for path in copy.iterdir():
        os.utime(path, (1, 1))
    assert base_policy_id(copy) == name
    (copy / "README.md").write_text("notes")
    (copy / "generation_config.json").write_text('{"top_p": 0.5}')  # settings that we never sample with
    (copy / "reval.json").write_text("{}")
    save_file({"x": torch.zeros(1)}, copy / "optimizer.safetensors")
    assert base_policy_id(copy) == name


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_changed_file_makes_another_base_policy(random_folder: Path, copy: Path, file: str) -> None:
    content = bytearray((copy / file).read_bytes())
    content[-1] ^= 1
    (copy / file).write_bytes(bytes(content))
    assert base_policy_id(copy) != base_policy_id(random_folder)
    changed_tokenizer = file.startswith("tokenizer")
    assert (tokenizer_id(copy) != tokenizer_id(random_folder)) == changed_tokenizer


def test_a_base_policy_is_found_by_its_path(
    random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELS", str(random_folder.parent))
    base = base_policy(ModelConfig(path="${MODELS}/random"), tmp_path)
    assert base.folder == random_folder
    assert base.policy_id == base_policy_id(random_folder)
    monkeypatch.delenv("MODELS")
    with pytest.raises(ConfigError, match="MODELS"):
        base_policy(ModelConfig(path="${MODELS}/random"), tmp_path)


@pytest.mark.parametrize("path", ["./none", "/none", "builtin:huge", "one-word", "a/b/c"])
def test_a_path_that_leads_nowhere_is_refused_without_the_network(path: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"model\.path: there is no folder"):
        base_policy(ModelConfig(path=path), tmp_path)


def test_a_built_in_model_is_made_once(tmp_path: Path) -> None:
    config = ModelConfig(path="builtin:bytes", seed=4)
    base = base_policy(config, tmp_path)
    written = (base.folder / "model.safetensors").stat().st_mtime_ns
    assert base.folder.parent == tmp_path
    assert base_policy(config, tmp_path) == base
    assert (base.folder / "model.safetensors").stat().st_mtime_ns == written
    assert base_policy(ModelConfig(path="builtin:bytes", seed=5), tmp_path).policy_id != base.policy_id


def test_a_built_in_model_that_another_process_finished_first_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beaten(folder: Path, *, seed: int) -> None:
        build_byte_model(folder, seed=seed)  # the other process
        build_byte_model(folder, seed=seed)

    monkeypatch.setattr("reval_core.policies.base.build_byte_model", beaten)
    base = base_policy(ModelConfig(path="builtin:bytes", seed=4), tmp_path)
    assert base.policy_id == base_policy_id(base.folder)
    assert [path.name for path in tmp_path.iterdir()] == [base.folder.name]


def model(*, tied: bool, seed: int = 0) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=19,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
        )
    ).eval()


@pytest.mark.parametrize("tied", [True, False])
def test_the_checksum_is_of_every_weight_and_of_nothing_else(tied: bool) -> None:
    one, same = model(tied=tied), model(tied=tied)
    name = weights_checksum(one)
    assert weights_checksum(same) == name
    assert weights_checksum(model(tied=tied, seed=1)) != name
    one.train()
    one(input_ids=torch.tensor([[1, 2]])).logits.sum().backward()
    assert weights_checksum(one) == name
    for parameter in same.parameters():
        with torch.no_grad():
            was = parameter.view(-1)[-1].clone()
            parameter.view(-1)[-1] = torch.nextafter(was, torch.tensor(9.0))
            assert weights_checksum(same) != name
            parameter.view(-1)[-1] = was
    assert weights_checksum(same) == name


def test_a_tied_head_counts_once_and_an_equal_untied_one_is_another_model() -> None:
    tied, untied = model(tied=True), model(tied=False)
    untied.load_state_dict(tied.state_dict())
    assert torch.equal(tied.lm_head.weight, untied.lm_head.weight)
    assert weights_checksum(tied) != weights_checksum(untied)


def test_the_checksum_tells_precisions_apart() -> None:
    assert weights_checksum(model(tied=True).bfloat16()) != weights_checksum(model(tied=True).bfloat16().float())


@pytest.mark.parametrize("hashers", [1, 3])
def test_the_checksum_is_the_digest_of_the_tensors_digests(hashers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T)  # not contiguous
            self.a = nn.Parameter(torch.tensor(1.5, dtype=torch.bfloat16))
            self.again = self.b
            self.register_buffer("steps", torch.tensor([7]))
            self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def sha(text: str, content: bytes) -> str:
        return hashlib.sha256(text.encode() + content).hexdigest()

    monkeypatch.setattr(folders, "HASHERS", hashers)
    assert weights_checksum(Small()) == digest(
        "wts",
        {
            "a": sha("torch.bfloat16 ()\n", bytes([0xC0, 0x3F])),  # 1.5 is 0x3fc0, the low byte first
            "b": sha("torch.float32 (2, 2)\n", struct.pack("<4f", 1, 3, 2, 4)),
            "steps": sha("torch.int64 (1,)\n", struct.pack("<q", 7)),
        },
    )


# -- save and load ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_policy_comes_back_bit_for_bit(tmp_path: Path, random_folder: Path, tied: bool) -> None:
    saved = model(tied=tied)
    manifest = save(tmp_path / "deep" / "pol_1", saved, random_folder)
    loaded, found = load_saved(tmp_path / "deep" / "pol_1", "pol_1", device="cpu")
    assert found == manifest
    assert weights_checksum(loaded) == manifest.weights_checksum
    assert not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert (loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight) == tied
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    assert torch.equal(loaded(input_ids=ids).logits, saved(input_ids=ids).logits)


def test_the_tokenizers_files_are_copied_byte_for_byte(tmp_path: Path, random_folder: Path) -> None:
    save(tmp_path / "pol_1", load_model(random_folder), random_folder)
    assert tokenizer_id(tmp_path / "pol_1") == tokenizer_id(random_folder)
    assert load_tokenizer(tmp_path / "pol_1").encode("3+4-5=?") == load_tokenizer(random_folder).encode("3+4-5=?")
    assert {"config.json", "model.safetensors", "tokenizer.json", "reval.json"} <= files(tmp_path / "pol_1")
    assert load_optimizer(tmp_path / "pol_1") is None


def test_a_folder_of_another_policy_is_refused(tmp_path: Path, random_folder: Path) -> None:
    save(tmp_path / "pol_2", load_model(random_folder), random_folder)
    with pytest.raises(PolicyError, match="should hold pol_2 but says pol_1"):
        load_saved(tmp_path / "pol_2", "pol_2", device="cpu")
    with pytest.raises(PolicyError, match="says no manifest"):
        load_saved(random_folder, "pol_2", device="cpu")


def test_changed_weights_are_refused(tmp_path: Path, random_folder: Path) -> None:
    folder = tmp_path / "pol_1"
    save(folder, load_model(random_folder), random_folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] += 1e-6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PolicyError, match="were changed: checksum wts_"):
        load_saved(folder, "pol_1", device="cpu")


@pytest.mark.parametrize("text", ["{", "[]", '{"policy_id": "pol_1"}', '{"more": 1}', "\xff\xfe"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "reval.json").write_text(text, encoding="latin-1")
    with pytest.raises(PolicyError, match="is damaged"):
        read_manifest(tmp_path)


def test_a_folder_of_others_has_no_manifest(random_folder: Path) -> None:
    assert read_manifest(random_folder) is None


@pytest.mark.parametrize("before", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize("step", ["save_file", "_make_durable"])
def test_a_crash_while_saving_leaves_no_half_folder(
    tmp_path: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch, before: bool, step: str
) -> None:
    folder = tmp_path / "policies" / "pol_1"
    if before:
        save(folder, load_model(random_folder), random_folder)

    def crash(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(folders, step, crash)
    with pytest.raises(OSError, match="no space left"):
        save(folder, load_model(random_folder), random_folder, {"x": torch.zeros(1)})
    assert files(folder.parent) == ({"pol_1"} if before else set())
    if before:
        load_saved(folder, "pol_1", device="cpu")
        assert load_optimizer(folder) is None


def test_a_folder_is_never_half_removed_while_it_is_replaced(
    tmp_path: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pol_1"
    save(folder, load_model(random_folder), random_folder)
    removed: list[str] = []
    remove = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda path, **kw: (removed.append(Path(path).name), remove(path, **kw)))
    save(folder, load_model(random_folder), random_folder, {"x": torch.zeros(1)})
    assert "pol_1" not in removed
    assert files(tmp_path) == {"pol_1"}
    assert load_optimizer(folder) is not None


# -- optimizer state --------------------------------------------------------------------------------------------------


def test_learning_goes_on_from_a_saved_optimizer_bit_for_bit(tmp_path: Path, random_folder: Path) -> None:
    examples = [
        TrainingExample(
            trajectory_id=f"trj_{index}",
            group_id="g",
            prompt_ids=np.array([3, 4], np.int32),
            response_ids=np.array([5 + index, 1], np.int32),
            reward=float(index % 2),
            ref_logprob=-4.0,
            ref_root_value=1.0,
        )
        for index in range(4)
    ]

    def learner(module: nn.Module) -> Learner:
        return Learner(module, ObjectiveConfig(beta=0.5), OptimizerConfig(lr=1e-2, warmup_updates=5))

    one = learner(load_model(random_folder))
    one.update(examples)
    save(tmp_path / "pol_1", one.model, random_folder, one.state_tensors())
    two = learner(load_saved(tmp_path / "pol_1", "pol_1", device="cpu")[0])
    state = load_optimizer(tmp_path / "pol_1")
    assert state is not None
    assert all(torch.equal(value, one.state_tensors()[name]) for name, value in state.items())
    two.load_state_tensors(state)
    one.update(examples)
    two.update(examples)
    assert weights_checksum(one.model) == weights_checksum(two.model)
    without = learner(load_saved(tmp_path / "pol_1", "pol_1", device="cpu")[0])
    without.update(examples)
    assert weights_checksum(without.model) != weights_checksum(two.model)


# -- what a killed save leaves ----------------------------------------------------------------------------------------


def leave(folder: Path, *names: str) -> None:
    """Folders that each hold their own name."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "mark").write_text(name)


def test_what_a_killed_save_left_is_put_away(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    leave(policies, "pol_a.tmp", "pol_b.old", "pol_c", "pol_c.old", "pol_c.tmp", "pol_d", "notes.old")
    sweep(policies)
    assert files(policies) == {"pol_b", "pol_c", "pol_d", "notes.old"}
    assert (policies / "pol_b" / "mark").read_text() == "pol_b.old"
    assert (policies / "pol_c" / "mark").read_text() == "pol_c"
    assert files(tmp_path) == {"policies", "policies.lock"}
    sweep(tmp_path / "nothing_here")
    assert files(tmp_path) == {"policies", "policies.lock"}


@pytest.mark.parametrize("killed_at", ["saving", "first rename", "second rename"])
def test_a_process_that_is_killed_while_it_replaces_a_policy_leaves_it_whole(
    tmp_path: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    """Whatever the number of the next process: in containers it is often the same."""
    folder, rename = tmp_path / "pol_1", Path.rename
    save(folder, load_model(random_folder), random_folder)

    def kill(*_: object) -> None:
        monkeypatch.setattr(folders, "_put_away", lambda left: None)  # the dead clear nothing up
        raise KeyboardInterrupt

    def renamed(path: Path, target: Path) -> Path:
        if path.name == {"first rename": "pol_1", "second rename": "pol_1.tmp"}.get(killed_at):
            kill()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renamed)
    if killed_at == "saving":
        monkeypatch.setattr(folders, "_make_durable", kill)
    with pytest.raises(KeyboardInterrupt):
        save(folder, load_model(random_folder), random_folder, {"x": torch.zeros(1)})
    assert files(tmp_path) == {"pol_1.old" if killed_at == "second rename" else "pol_1", "pol_1.tmp"}
    monkeypatch.undo()
    sweep(tmp_path)
    assert files(tmp_path) == {"pol_1"}
    load_saved(folder, "pol_1", device="cpu")
    assert load_optimizer(folder) is None


@pytest.mark.parametrize("step", ["_make_durable", "_sync"])
def test_the_only_whole_copy_outlives_a_save_that_fails(
    tmp_path: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder = tmp_path / "pol_1"
    save(folder, load_model(random_folder), random_folder)
    folder.rename(tmp_path / "pol_1.old")  # a killed save left it so, and nobody swept

    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(folder, load_model(random_folder), random_folder, {"x": torch.zeros(1)})
    assert files(tmp_path) == {"pol_1"}
    load_saved(folder, "pol_1", device="cpu")


def test_an_interrupt_between_the_two_renames_brings_the_old_folder_back(
    tmp_path: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "pol_1", Path.rename
    save(folder, load_model(random_folder), random_folder)

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "pol_1.tmp":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(folder, load_model(random_folder), random_folder, {"x": torch.zeros(1)})
    assert files(tmp_path) == {"pol_1"}
    assert load_optimizer(folder) is None


def test_nothing_is_swept_from_under_a_process_that_saves(
    tmp_path: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, make_durable = tmp_path / "pol_1", folders._make_durable
    sweeping = threading.Thread(target=sweep, args=(tmp_path,))

    def meanwhile(aside: Path) -> None:
        sweeping.start()
        sweeping.join(0.2)
        assert sweeping.is_alive()  # it waits
        make_durable(aside)

    monkeypatch.setattr(folders, "_make_durable", meanwhile)
    save(folder, load_model(random_folder), random_folder)
    sweeping.join()
    assert files(tmp_path) == {"pol_1"}
    load_saved(folder, "pol_1", device="cpu")
