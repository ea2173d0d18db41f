"""A whole run whose policies are adapters: references before and after a reset, a kill, and the policy for others."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_run import Finished, Reval, changed, crash_at, lineage, rows, train, value, without_mlflow, without_plots
from transformers import AutoModelForCausalLM

from reval_core.config import Config
from reval_core.errors import ConfigError, PolicyError
from reval_core.home import Home
from reval_core.policies.folder import ADAPTER

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def config(small: Config) -> Config:
    return changed(
        small,
        "run.iterations=3",
        "model.lora={rank: 4, alpha: 8}",
        "objective.reference_reset_every=2",
        "optimizer.packing=true",
    )


@pytest.fixture(scope="module")
def learned(config: Config, environment: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Three rounds: the third one's reference is the policy after the second."""
    home = Home(tmp_path_factory.mktemp("adapters"))
    with pytest.MonkeyPatch.context() as patch, without_mlflow(patch), without_plots(patch):
        return Finished(config, home, train(config, home))


def test_only_adapters_are_saved_and_the_reference_after_a_reset_is_one(learned: Finished) -> None:
    home, policies = learned.home, [row[1] for row in lineage(learned.home, learned.outcome.run_id)]
    base = value(home, "SELECT base_policy_id FROM runs")
    references = rows(home, "SELECT iteration, reference_policy_id AS id FROM rounds ORDER BY iteration")
    assert [row["id"] for row in references] == [base, base, policies[1]]
    folders = sorted(home.policies.glob("pol_*"))
    assert {folder.name for folder in folders} == {policies[1], policies[2]}
    for folder in folders:
        assert json.loads((folder / "reval.json").read_text())["base_policy_id"] == base
        assert not (folder / "model.safetensors").exists()
    assert len({row[2] for row in lineage(home, learned.outcome.run_id)}) == 3


def test_a_killed_run_comes_to_the_same_bits(
    learned: Finished, config: Config, home: Home, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    with crash_at(monkeypatch, "generate", 1, "after"):  # the policy after round 0 is in no folder
        train(config, home)
    done = train(config, home)
    assert lineage(home, done.run_id) == lineage(learned.home, learned.outcome.run_id)


def test_a_policy_is_exported_as_a_plain_model(
    learned: Finished, reval: Reval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVAL_HOME", str(learned.home.root))
    code, _, _ = reval("export-policy", learned.outcome.policy_id[:12], str(tmp_path / "plain"))
    assert code == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    base = AutoModelForCausalLM.from_pretrained(learned.config.model.path)
    adapter = load_file(learned.home.policies / learned.outcome.policy_id / ADAPTER)
    name = "model.layers.0.mlp.down_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    wanted = base.get_submodule(name).weight + 2 * b @ a
    assert (model.get_submodule(name).weight - wanted).abs().max() < 1e-6


def test_what_was_never_saved_is_not_exported(
    learned: Finished, reval: Reval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVAL_HOME", str(learned.home.root))
    first = lineage(learned.home, learned.outcome.run_id)[0][1]
    code, _, errors = reval("export-policy", first, str(tmp_path / "plain"))
    assert code == 1
    assert "was not saved" in errors
    assert not (tmp_path / "plain").exists()


def test_wrong_targets_are_refused_before_anything_is_made(config: Config, home: Home, quick: None) -> None:
    with pytest.raises(ConfigError, match="no linear layers 'query_key_value'"):
        train(changed(config, "model.lora.targets=[query_key_value]"), home)
    assert not rows(home, "SELECT * FROM store.runs")


def test_adapters_and_whole_weights_are_two_runs(learned: Finished, config: Config) -> None:
    whole = changed(config, "model.lora=null")
    assert whole.config_id != config.config_id
    assert "lora" not in whole.identity()["model"]


def test_a_folder_with_an_adapter_is_no_base_model(
    learned: Finished, small: Config, home: Home, tmp_path: Path, quick: None
) -> None:
    folder = Path(shutil.copytree(learned.home.policies / learned.outcome.policy_id, tmp_path / "adapter"))
    with pytest.raises(PolicyError, match=r"holds an adapter without its base\. `reval export-policy`"):
        train(changed(small, f"model.path={folder}"), home)
