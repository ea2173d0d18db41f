"""Policies that are adapters: their ids, folders, references, the way back to them, and the way out of the house."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from house import OBJECTIVE, OPTIMIZER, House
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from reval_core.config import LoraConfig
from reval_core.errors import LearningError, PolicyError
from reval_core.identity import digest
from reval_core.learning.adapters import adapter_tensors
from reval_core.policies.base import BasePolicy
from reval_core.policies.exporting import export_policy
from reval_core.policies.folder import ADAPTER, base_policy_id, read_manifest, weights_checksum
from reval_core.policies.folder import OPTIMIZER as STATE
from reval_core.policies.steps import learning_settings
from reval_core.store.lineage import PolicyRecord

peft = pytest.importorskip("peft")

LORA = LoraConfig(rank=3, alpha=6)
TEXT = torch.tensor([[3, 12, 4, 9, 7, 2, 5]])


@pytest.fixture
def house(house: House) -> House:
    house.lora = LORA
    return house


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(TEXT).logits


def saved(house: House, records: list[PolicyRecord], with_optimizer: bool = True) -> Path:
    """The last policy's folder, after a new process has saved it."""
    return house.policies().save(records[-1].policy_id, run_id="run-1", iteration=2, with_optimizer=with_optimizer)


def test_without_adapters_policies_are_named_as_before() -> None:
    settings = learning_settings(OBJECTIVE, OPTIMIZER, "bfloat16")
    assert digest("set", settings) == "set_6e035adfa330f79cdf5a05630b0c93a4"
    assert "lora" not in settings
    assert "use" not in settings["optimizer"]


def test_every_setting_of_an_adapter_names_another_policy(house: House) -> None:
    base = house.base.policy_id
    names = {house.step(base, base, 0).policy_id}
    for change in (None, {"rank": 4}, {"alpha": 7.0}, {"targets": ("q_proj",)}, {"seed": 1}):
        house.lora = None if change is None else LORA.model_copy(update=change)
        names.add(house.step(base, base, 0).policy_id)
    assert len(names) == 6


def test_a_policy_is_saved_as_its_adapter_and_loaded_over_the_one_base(house: House) -> None:
    policies = house.policies()
    records = house.chain(policies)
    folder = policies.save(records[-1].policy_id, run_id="run-1", iteration=2, with_optimizer=True)
    wanted = logits(policies.model(records[-1].policy_id))

    assert {path.name for path in folder.glob("*.safetensors")} == {ADAPTER, STATE}
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.base_policy_id == house.base.policy_id
    assert len(load_file(folder / STATE)) == 2 + 3 * len(load_file(folder / ADAPTER))

    again = house.policies()
    model, base = again.model(records[-1].policy_id), again.model(house.base.policy_id)
    assert torch.equal(logits(model), wanted)
    assert not torch.equal(logits(base), wanted)
    assert weights_checksum(model) == records[-1].weights_checksum
    held = {value.data_ptr() for value in base.parameters()}
    own = {value.data_ptr() for value in adapter_tensors(model).values()}
    assert {value.data_ptr() for value in model.parameters()} == held | own


def test_peft_reads_the_folder(house: House) -> None:
    records = house.chain(house.policies(), count=2)
    folder = saved(house, records)
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(house.base.folder), folder)
    assert torch.equal(logits(model), logits(house.policies().model(records[-1].policy_id)))


@pytest.mark.parametrize("saved_at", [None, 1])
def test_a_policy_that_is_lost_is_learned_again_to_the_bit(house: House, saved_at: int | None) -> None:
    policies = house.policies()
    records = house.chain(policies, count=2)
    if saved_at is not None:
        policies.save(records[saved_at].policy_id, run_id="run-1", iteration=saved_at, with_optimizer=True)
    last = house.learn(policies, house.step(records[1].policy_id, house.base.policy_id, 4))
    torch.manual_seed(1234)  # nothing random but the adapter's own seed has a part in it
    assert weights_checksum(house.policies().model(last.policy_id)) == last.weights_checksum


def test_after_a_reset_the_reference_is_the_policy_as_it_was(house: House) -> None:
    policies = house.policies()
    first = house.chain(policies, count=1)[0]
    reference = first.policy_id
    policies.save(reference, run_id="run-1", iteration=0, with_optimizer=True)
    then = policies.scores(house.names, reference, temperature=1.0, max_tokens=64)
    second = house.learn(policies, house.step(reference, reference, 2))
    assert policies.scores(house.names, reference, temperature=1.0, max_tokens=64) == then
    assert policies.scores(house.names, second.policy_id, temperature=1.0, max_tokens=64) != then
    assert policies.scores(house.names, house.base.policy_id, temperature=1.0, max_tokens=64) != then
    assert policies.as_policy(reference) is policies.model(reference)


def test_the_base_is_the_reference_as_whole_weights_score_it(house: House) -> None:
    settings: dict[str, Any] = {"temperature": 1.0, "max_tokens": 64}
    adapters = house.policies()
    found = adapters.scores(house.names, house.base.policy_id, **settings)
    house.lora = None
    assert house.policies().scores(house.names, house.base.policy_id, **settings) == found
    assert torch.equal(logits(adapters.as_policy(house.base.policy_id)), logits(adapters.model(house.base.policy_id)))


def test_an_adapter_over_another_base_is_refused(house: House, tmp_path: Path) -> None:
    records = house.chain(house.policies(), count=1)
    saved(house, records)
    other = Path(shutil.copytree(house.base.folder, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    another = BasePolicy(other, base_policy_id(other), house.base.tokenizer_id)
    with pytest.raises(PolicyError, match=f"an adapter over {house.base.policy_id}, and the base here is pol_"):
        house.policies(base=another).model(records[0].policy_id)
    with pytest.raises(PolicyError, match=r"Set model\.path to its base"):
        export_policy(house.root / "policies" / records[0].policy_id, other, tmp_path / "plain")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("plain")]


def test_an_adapter_that_was_changed_or_is_damaged_is_refused(house: House) -> None:
    records = house.chain(house.policies(), count=1)
    folder = saved(house, records)
    tensors = load_file(folder / ADAPTER)
    save_file({name: value + 1e-3 for name, value in tensors.items()}, folder / ADAPTER)
    with pytest.raises(PolicyError, match="were changed: checksum"):
        house.policies().model(records[0].policy_id)
    (folder / ADAPTER).write_bytes(b"no tensors")
    with pytest.raises(PolicyError, match="is damaged"):
        house.policies().model(records[0].policy_id)


@pytest.mark.parametrize("mine", [None, LORA.model_copy(update={"alpha": 7.0})])
def test_policies_of_other_settings_do_not_mix(house: House, mine: LoraConfig | None) -> None:
    records = house.chain(house.policies(), count=1)
    with pytest.raises(LearningError, match=r"model\.lora"):
        house.policies(lora=mine).save(records[0].policy_id, run_id=None, iteration=0, with_optimizer=True)


def test_an_exported_policy_is_a_plain_model(house: House, tmp_path: Path) -> None:
    records = house.chain(house.policies())
    folder, dest = saved(house, records), tmp_path / "out" / "plain"
    export_policy(folder, house.base.folder, dest)
    model = AutoModelForCausalLM.from_pretrained(dest)
    wanted = logits(house.policies().model(records[-1].policy_id))
    torch.testing.assert_close(logits(model), wanted, atol=1e-5, rtol=1e-5)
    assert not (wanted - logits(house.policies().model(house.base.policy_id))).abs().max() < 1e-3
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert AutoTokenizer.from_pretrained(dest).get_vocab() == AutoTokenizer.from_pretrained(folder).get_vocab()
    assert json.loads((dest / "config.json").read_text())["model_type"] == "qwen2"
    with pytest.raises(PolicyError, match="is there already"):
        export_policy(folder, house.base.folder, dest)


def test_whole_weights_are_exported_without_what_is_ours(house: House, tmp_path: Path) -> None:
    house.lora = None
    records = house.chain(house.policies(), count=1)
    folder = saved(house, records)
    beside = tmp_path / "plain.tmp"  # somebody else's
    beside.mkdir()
    export_policy(folder, house.base.folder, tmp_path / "plain")
    assert {path.name for path in tmp_path.iterdir()} >= {"plain", "plain.tmp"}
    weights = [*folder.glob("*.safetensors"), *(tmp_path / "plain").glob("*.safetensors")]
    assert len(weights) == 3  # the policy's, its optimizer's, the export's
    assert {path.stat().st_mode for path in weights} == {(folder / "reval.json").stat().st_mode}  # others may read them
    assert {path.name for path in folder.iterdir()} - {path.name for path in (tmp_path / "plain").iterdir()} == {
        "reval.json",
        STATE,
    }
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert torch.equal(logits(model), logits(house.policies().model(records[0].policy_id)))


def test_half_precision_holds_a_rounded_base_and_float32_adapters(house: House) -> None:
    policies = house.policies(compute_dtype="bfloat16")
    step = house.step(house.base.policy_id, house.base.policy_id, 0)
    house.learn(policies, replace(step, settings={**step.settings, "compute_dtype": "bfloat16"}))
    base = policies.model(house.base.policy_id)
    assert {value.dtype for value in base.parameters()} == {torch.bfloat16}
    pair = policies.scores(house.names, house.base.policy_id, temperature=1.0, max_tokens=64)
    house.lora = None
    whole = house.policies(compute_dtype="bfloat16")
    assert whole.scores(house.names, house.base.policy_id, temperature=1.0, max_tokens=64) == pair
    assert all(np.isfinite(value) for scores in pair.values() for value in scores)
