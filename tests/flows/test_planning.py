"""Before a run: what it would do and need, which prompts it would send, and which forks are refused."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from small_run import BATCH, ROUNDS, Finished, changed, train
from transformers import AutoModelForCausalLM

from flows import base_model, costs, opening, planning
from flows.base_model import ModelSize, folder_size, load_tokenizer_only, model_size
from flows.lookup import Tally, tallies
from reval_core.config import Config, ModelConfig
from reval_core.config_files import load_config, parse_config
from reval_core.errors import ConfigError, PolicyError, ProblemError, StoreError
from reval_core.home import Home
from reval_core.learning.scoring import score
from reval_core.policies.folder import load_tokenizer
from reval_core.policies.tiny import build_byte_model
from tasks.fork import Fork, run_id_of
from tasks.inputs import read_inputs

ROOT = Path(__file__).resolve().parents[2]
DONE = {
    **dict.fromkeys(("generate", "verify", "score", "persist", "learn"), Tally(ROUNDS)),
    "checkpoint": Tally(2),
    "evaluate": Tally(2),
    "report": Tally(1),
}
"""The plan of the finished small run."""


def shown(config: Config, home: Home, fork: Fork | None = None) -> str:
    """What a dry run prints."""
    console = Console(file=io.StringIO(), width=200)
    planning.show_plan(config, home, fork, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def plan(config: Config, home: Home, fork: Fork | None = None) -> dict[str, Tally]:
    return tallies(config, home, fork, read_inputs(config))


# -- the plan of stages -------------------------------------------------------------------------------------------


def test_a_dry_run_shows_configuration_plan_and_needs(finished: Finished) -> None:
    text = shown(changed(finished.config, f"run.iterations={ROUNDS + 3}"), finished.home)
    resolved, _, rest = text.partition("\nrun small")
    assert run_id_of(parse_config(yaml.safe_load(resolved))) == finished.outcome.run_id
    assert finished.outcome.run_id in "small" + rest
    (line,) = (line for line in rest.splitlines() if line.strip().startswith("learn "))
    assert [part.strip() for part in line.split("│")] == ["learn", str(ROUNDS), "3", "0"]
    for word in ("problems", "trajectories", "store", "device", "parameters", "saved policies", "KV cache"):
        assert f"\n{word}" in rest or f"\n  {word}" in rest


def test_the_limit_of_a_benchmark_counts_in_the_plan(finished: Finished) -> None:
    own = "evaluation={benchmarks: [arithmetic], after: true, limit: 9, limits: {arithmetic: 3}}"
    assert ", and 3 in benchmarks" in shown(changed(finished.config, own), finished.home)


def test_a_finished_run_has_nothing_to_do(finished: Finished) -> None:
    assert plan(finished.config, finished.home) == DONE


@pytest.mark.long
def test_a_finished_run_is_told_from_the_store(finished: Finished, copied: Home, tmp_path: Path) -> None:
    assert opening.is_learned(finished.config, copied)
    assert planning.nothing_to_do(finished.config, copied)
    assert not opening.is_learned(changed(finished.config, "run.iterations=9"), copied)
    assert not planning.nothing_to_do(changed(finished.config, "evaluation.samples_per_problem=3"), copied)
    path = tmp_path / "finished.yaml"
    path.write_text(finished.config.to_yaml())
    command = [sys.executable, "-c", "from flows.cli import main; main()", "train", str(path)]
    kept = {name: told for name, told in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    there = {**kept, "REVAL_HOME": str(copied.root), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=there, capture_output=True, text=True, timeout=300)
    assert "no stage was executed" in done.stdout, done.stdout + done.stderr
    assert not (copied.prefect / "prefect.db").exists()  # its server was not needed


def test_an_empty_root_has_everything_to_do(finished: Finished, home: Home) -> None:
    assert plan(finished.config, home) == {name: Tally(to_do=tally.done) for name, tally in DONE.items()}
    assert not home.root.exists()


@pytest.mark.parametrize(
    ("overrides", "differs"),
    [
        (["evaluation.samples_per_problem=4"], {"evaluate": Tally(0, 2), "report": Tally(0, 1)}),
        (["checkpoint.every=1"], {"checkpoint": Tally(2, 0)}),  # past rounds are not saved afterwards
        (
            ["run.iterations=6"],
            {
                **dict.fromkeys(("generate", "verify", "score", "persist", "learn"), Tally(ROUNDS, 2)),
                "checkpoint": Tally(2, 1),
                "evaluate": Tally(1, 1),
                "report": Tally(0, 1),
            },
        ),
        (
            ["run.name=renamed"],
            {
                **dict.fromkeys(("generate", "verify", "score"), Tally(1, 0, 3)),
                "persist": Tally(0, ROUNDS),
                "learn": Tally(0, 0, ROUNDS),
                "checkpoint": Tally(0, 0, 2),
                "evaluate": Tally(1, 0, 1),
                "report": Tally(0, 0, 1),
            },
        ),
        (
            ["run.seed=1"],
            {
                **dict.fromkeys(("generate", "verify", "score", "persist", "learn"), Tally(0, ROUNDS)),
                "checkpoint": Tally(0, 2),
                "evaluate": Tally(1, 1),
                "report": Tally(0, 1),
            },
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("quick")
def test_the_run_then_does_what_the_plan_says(
    finished: Finished, copied: Home, overrides: list[str], differs: dict[str, Tally]
) -> None:
    config = changed(finished.config, *overrides)
    expected = plan(config, copied)
    assert expected == DONE | differs
    held(expected, train(config, copied).executed)


def held(expected: dict[str, Tally], executed: tuple[str, ...]) -> None:
    """What was to do was done, and nothing but that and what was open."""
    ran = Counter(name.partition("@")[0] for name in executed)
    assert set(ran) <= set(expected)
    for name, tally in expected.items():
        assert tally.to_do <= ran[name] <= tally.to_do + tally.undecided, name


@pytest.mark.usefixtures("quick")
def test_the_plan_of_a_fork(finished: Finished, copied: Home) -> None:
    config = changed(finished.config, "objective.beta=0.2")
    fork = planning.fork(config, copied, start_from=f"{finished.outcome.run_id}@2", force=None)
    expected = plan(config, copied, fork)
    # round 2 samples from the shared policy, so its responses are there; what is learned from them is the fork's own
    assert expected["generate"] == Tally(3, 0, 1)
    assert expected["persist"] == Tally(2, 2)
    assert expected["learn"] == Tally(2, 0, 2)
    assert "rescore" in expected
    held(expected, train(config, copied, fork).executed)
    assert {name: tally.to_do + tally.undecided for name, tally in plan(config, copied, fork).items()} == dict.fromkeys(
        expected, 0
    )


def test_a_forced_round_is_to_do_with_all_that_follows(finished: Finished) -> None:
    fork = planning.fork(finished.config, finished.home, start_from=None, force="generate@2")
    found = plan(finished.config, finished.home, fork)
    assert (found["generate"], found["learn"]) == (Tally(2, 2), Tally(2, 2))


def test_looking_writes_nothing(finished: Finished) -> None:
    before = finished.home.database.read_bytes()
    shown(changed(finished.config, "run.name=looking", "evaluation.samples_per_problem=3"), finished.home)
    assert finished.home.database.read_bytes() == before


def test_a_broken_problem_file_fails_the_dry_run(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"question": "1+1+1=?", "answer": "3"}\n{"question": \n')
    with pytest.raises(ProblemError, match="line 2"):
        shown(changed(finished.config, f"problems.0.path={tmp_path / 'bad.jsonl'}"), finished.home)


# -- what it needs ------------------------------------------------------------------------------------------------


def test_the_store_is_estimated_within_a_factor_of_three(finished: Finished) -> None:
    inputs = read_inputs(finished.config)
    counted = costs.rows(finished.config, inputs)
    assert (counted.responses, counted.evaluated) == (ROUNDS * BATCH, 2 * 3 * 2)
    size = finished.home.database.stat().st_size
    assert size / 3 < costs.store_bytes(finished.config, counted) < 3 * size


def test_the_quickstarts_store_is_estimated_within_a_factor_of_three(finished: Finished) -> None:
    config = load_config(ROOT / "configs" / "quickstart.yaml")
    counted = costs.rows(config, read_inputs(config))
    assert (counted.responses, counted.evaluated) == (7680, 7 * 2 * 256 * 4)
    assert 32e6 / 3 < costs.store_bytes(config, counted) < 3 * 32e6  # a finished one has 32 MB


def test_saved_policies_are_counted_with_the_evaluated_ones(finished: Finished) -> None:
    whole, evaluated = costs.saved_rounds(finished.config)
    assert (whole, evaluated) == ({1, 3}, set())
    assert len(list(finished.home.policies.iterdir())) == 2
    quickstart = load_config(ROOT / "configs" / "quickstart.yaml")
    assert costs.saved_rounds(quickstart) == ({9, 19, 29}, {4, 14, 24})


def test_a_folders_size_is_that_of_its_model(base_folder: Path) -> None:
    size = folder_size(base_folder)
    model = AutoModelForCausalLM.from_pretrained(base_folder)
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (size.layers, size.hidden, size.intermediate, size.kv_width, size.vocabulary) == (2, 64, 192, 32, 19)
    assert model_size(ModelConfig(path="builtin:tiny")).parameters == size.parameters


def test_a_hub_models_size_is_read_from_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_byte_model(tmp_path / "model", seed=0)
    asked: list[Any] = []

    def cached(*arguments: Any, **named: Any) -> str:
        asked.append((arguments, named))
        return str(tmp_path / "model" / "config.json")

    monkeypatch.setattr(base_model, "try_to_load_from_cache", cached)
    size = model_size(ModelConfig(path="somebody/model", revision="abc"))
    assert asked == [(("somebody/model", "config.json"), {"revision": "abc"})]
    assert size.parameters == folder_size(tmp_path / "model").parameters
    assert "config.json" in size.source


@pytest.fixture
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: Any, **named: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(base_model, "try_to_load_from_cache", lambda *arguments, **named: None)
    monkeypatch.setattr(base_model, "get_hf_file_metadata", unreachable)


@pytest.mark.usefixtures("_no_hub")
@pytest.mark.parametrize(
    ("path", "parameters"),
    [("Qwen/Qwen2.5-Math-7B", 7e9), ("a/R1-Distill-Qwen-1.5B", 1.5e9), ("a/SmolLM2-135M-Instruct", 135e6)],
)
def test_without_the_hub_the_name_tells_the_size_and_says_so(path: str, parameters: float) -> None:
    size = model_size(ModelConfig(path=path))
    assert size.parameters == parameters
    assert "name" in size.source
    # the guessed shape has about as many parameters in its layers
    assert 12 * size.layers * size.hidden**2 == pytest.approx(parameters, rel=0.35)


@pytest.mark.usefixtures("_no_hub")
@pytest.mark.parametrize("path", ["somebody/model", "a/Mixtral-8x7B-v0.1", "./nowhere"])
def test_a_size_that_nothing_tells_is_no_number(path: str) -> None:
    with pytest.raises(PolicyError):
        model_size(ModelConfig(path=path))


@pytest.mark.usefixtures("_no_hub")
@pytest.mark.parametrize(("name", "parameters"), [("deepseek-r1-distill-qwen-1.5b", 1.5e9), ("qwen2.5-math-7b", 7e9)])
def test_published_settings_load_and_dry_run_without_hub_or_data(
    home: Home, name: str, parameters: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REVAL_DATA", raising=False)
    text = shown(load_config(ROOT / "configs" / f"{name}.yaml"), home)
    assert "export REVAL_DATA" in text
    assert "665,600 (1024 a round)" in text
    assert f"{parameters:,.0f}, from the name" in text
    assert f"{16 * parameters / 1e9:.3g} GB" in text  # weights, gradient, two moments
    assert "memory while learning" in text


@pytest.mark.parametrize("checkpointing", [False, "gates", "mlp", True])
def test_memory_adds_up_by_hand(checkpointing: bool | str, small: Config) -> None:
    size = ModelSize(1000, layers=10, hidden=8, intermediate=32, kv_width=4, vocabulary=2**20, source="")
    config = changed(
        small,
        "model.dtype=bfloat16",
        f"model.gradient_checkpointing={checkpointing}",
        "optimizer.max_tokens_per_micro_batch=130",  # three sequences of 40
    )
    narrow = 22 * 8 + 2 * 2 * 4
    kept = {False: narrow + 8 * 32, "gates": narrow + 4 * 32, "mlp": narrow, True: 2 * 8}
    activations = 120 * (9 * kept[checkpointing] + kept[False] if checkpointing else 10 * kept[False])
    needs = {need.name: need.size for need in costs.learning_memory(config, size)}
    assert needs == {
        "learner": 16_000,
        "reference": 2_000,
        "bfloat16 copies": 2_000,
        "activations": activations,
        "logits": 4 * 4 * 72 * 2**20,  # 3 x 24 positions of a response, fewer than the 128 of a chunk
    }
    grpo = changed(config, "objective.use=grpo", "objective.updates.off_policy=0")
    assert {need.name for need in costs.learning_memory(grpo, size)} == needs.keys() - {"reference"}
    host = changed(config, "model.reference=host")
    assert {need.name for need in costs.learning_memory(host, size)} == needs.keys() - {"reference"}
    needs = {need.name: need.size for need in costs.generating_memory(config, size)}
    assert needs == {"learner": 12_000, "reference": 2_000, "KV cache": 2 * 4 * 10 * 4 * BATCH * 40}
    assert costs.beside(config) == ""


def test_an_engine_with_memory_of_its_own_is_told_and_not_counted(small: Config) -> None:
    size = ModelSize(1_000, layers=10, hidden=8, intermediate=32, kv_width=4, vocabulary=2**20, source="")
    vllm = changed(small, "rollouts.engine.use=vllm", "rollouts.engine.vllm.memory=0.3")
    assert "KV cache" not in {need.name for need in costs.generating_memory(vllm, size)}
    assert costs.beside(vllm) == ", beside vLLM's 0.3 of the GPU (rollouts.engine.vllm.memory)"
    own = changed(small, "rollouts.engine.use=my_engines:Silent")
    assert costs.beside(own) == ", beside what the engine 'my_engines:Silent' takes"


def test_memory_of_adapters_and_lean_optimizers_adds_up_by_hand(small: Config) -> None:
    size = ModelSize(100_000, layers=10, hidden=8, intermediate=32, kv_width=4, vocabulary=2**20, source="")
    whole = changed(small, "model.dtype=bfloat16")
    config = changed(whole, "model.lora={rank: 2, targets: [q_proj, v_proj, down_proj]}")
    learned = 10 * 2 * ((8 + 8) + (8 + 4) + (8 + 32))
    assert costs.learned_parameters(config, size) == learned

    def sizes(config: Config, needs: Any = costs.learning_memory) -> dict[str, int]:
        return {need.name: need.size for need in needs(config, size)}

    def parts(config: Config) -> dict[str, int]:
        return {name: value for name, value in sizes(config).items() if name not in ("activations", "logits")}

    copies = {"bfloat16 copies": 2 * learned}
    assert parts(config) == {"base": 200_000, "learner": 16 * learned, **copies}
    reset = changed(config, "objective.reference_reset_every=2")
    assert parts(reset) == {"base": 200_000, "learner": 16 * learned, "reference": 4 * learned, **copies}
    assert sizes(config, costs.generating_memory) == {
        "base": 200_000,
        "learner": 12 * learned,
        "KV cache": 2 * 2 * 10 * 4 * BATCH * 40,
    }
    for use, learning, generating in (("adamw_8bit", 10, 6), ("adamw_paged", 8, 4)):
        lean = changed(whole, f"optimizer.use={use}")
        assert sizes(lean)["learner"] == learning * 100_000
        assert sizes(lean, costs.generating_memory)["learner"] == generating * 100_000


def test_memory_of_ranks_adds_up_by_hand(small: Config) -> None:
    layer = 8 * (2 * 8 + 2 * 4 + 3 * 32)
    size = ModelSize(20_000, layers=10, hidden=8, intermediate=32, kv_width=4, vocabulary=2**20, source="")
    config = changed(small, "model.dtype=bfloat16", "learning.ranks=2")
    needs = {need.name: need.size for need in costs.learning_memory(config, size)}
    assert needs["learner"] == 16 * 10_000  # a half
    assert needs["gathered"] == 2 * 2 * (20_000 - 10 * layer + 2 * layer)
    assert "bfloat16 copies" not in needs
    needs = {need.name: need.size for need in costs.generating_memory(config, size)}
    assert needs["learner"] == 12 * 10_000
    assert needs["policy"] == 4 * 20_000


def test_the_formula_of_activations_is_what_a_forward_pass_keeps(base_folder: Path) -> None:
    model, size = AutoModelForCausalLM.from_pretrained(base_folder), folder_size(base_folder)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(size.vocabulary, (32, 40))
    response = torch.ones_like(ids)
    response[:, :16] = 0
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        score(model, ids, torch.ones_like(ids), response)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert ids.numel() * size.layers * costs.layer_bytes(size, "float32") == pytest.approx(measured, rel=0.25)


# -- prompts ------------------------------------------------------------------------------------------------------


def prompts(config: Config, home: Home, count: int) -> str:
    console = Console(file=io.StringIO(), width=200)
    planning.show_prompts(config, home, count, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_prompts_are_shown_with_ids_and_stop_set(finished: Finished) -> None:
    text = prompts(finished.config, finished.home, 2)
    assert "responses end with: '<|endoftext|>' (1)" in text
    assert text.count("=?") == 2
    assert text.count("ids [") == 2


def test_the_prompts_of_a_builtin_model_need_no_model(finished: Finished, home: Home) -> None:
    text = prompts(changed(finished.config, "model.path=builtin:tiny"), home, 2)
    assert text == prompts(finished.config, finished.home, 2)  # the same tokenizer, out of a folder
    assert not home.models.exists()


def test_the_prompts_of_a_hub_model_need_its_tokenizer_files_only(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def snapshot(path: str, **named: Any) -> str:
        asked.update(named, path=path)
        return str(base_folder)

    monkeypatch.setattr(base_model, "snapshot_download", snapshot)
    monkeypatch.setenv("MY_TOKEN", "hf_secret")
    tokenizer = load_tokenizer_only(ModelConfig(path="somebody/model", revision="abc", token_env="MY_TOKEN"))
    assert tokenizer.get_vocab() == load_tokenizer(base_folder).get_vocab()
    assert (asked["path"], asked["revision"], asked["token"]) == ("somebody/model", "abc", "hf_secret")
    taken = [name for name in HUB_FILES if any(fnmatch(name, pattern) for pattern in asked["allow_patterns"])]
    assert taken == HUB_FILES[:6]


HUB_FILES = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "model.safetensors",
    "model-00001-of-00004.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "modeling_own.py",
    "README.md",
]


# -- forks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_from", "force", "error", "words"),
    [
        ("nosuch@2", None, StoreError, "no run nosuch"),
        ("nosuch", None, ConfigError, "RUN@ROUND"),
        (None, "learn@2", ConfigError, "generate@ROUND"),
        ("nosuch@2", "generate@1", ConfigError, "Name the same round"),
    ],
)
def test_a_place_that_is_none_is_refused(
    finished: Finished, start_from: str | None, force: str | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        planning.fork(finished.config, finished.home, start_from=start_from, force=force)
