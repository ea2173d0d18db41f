import json
import shutil
import unicodedata
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer

from reval_core.policies.tiny import (
    WarmStart,
    arithmetic_tokenizer,
    build_byte_model,
    build_tiny_model,
    byte_tokenizer,
)
from reval_core.problems.arithmetic import arithmetic_problems, demonstration

THREE_STEPS = WarmStart(skill_steps=2, mode_steps=1, batch_size=4, warmup_steps=1, mode_texts=1)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, int]]]:
    """A tiny model after three updates, and the progress that was told."""
    folder, told = tmp_path_factory.mktemp("policies") / "tiny", []
    build_tiny_model(folder, seed=0, recipe=THREE_STEPS, progress=lambda done, total: told.append((done, total)))
    return folder, told


@pytest.fixture(scope="module")
def tiny_folder(built: tuple[Path, list[tuple[int, int]]]) -> Path:
    return built[0]


@pytest.fixture(scope="module")
def byte_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies") / "bytes"
    build_byte_model(folder, seed=0)
    return folder


def test_the_folder_loads_by_the_auto_classes(tiny_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert (model.config.model_type, model.config.vocab_size) == ("qwen2", len(tokenizer))
    assert model.get_input_embeddings().weight.shape == (len(tokenizer), 64)
    assert 90_000 < sum(p.numel() for p in model.parameters()) < 110_000
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id
    assert tokenizer.pad_token_id == model.config.pad_token_id
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|endoftext|>", None)
    assert tokenizer.padding_side == "left"


def test_the_folder_holds_weights_as_safetensors_and_no_code(tiny_folder: Path) -> None:
    names = {path.name for path in tiny_folder.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "auto_map" not in json.loads((tiny_folder / "config.json").read_text())


def test_generation_settings_leave_the_distribution_alone(tiny_folder: Path) -> None:
    config = AutoModelForCausalLM.from_pretrained(tiny_folder).generation_config
    assert (config.do_sample, config.temperature, config.top_k, config.top_p) == (True, 1.0, 0, 1.0)


def test_saved_arithmetic_tokenizer_round_trips_every_problem(tiny_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    texts = [p["question"] + demonstration(p["question"]) for p in arithmetic_problems("train")]
    ids = tokenizer(texts)["input_ids"]
    assert tokenizer.batch_decode(ids) == texts
    assert {len(row) for row in tokenizer([text[:7] for text in texts])["input_ids"]} == {7}
    assert max(len(row) for row in ids) == 28  # 7 of the question, 21 of the longest completion


def test_the_arithmetic_vocabulary_is_the_same_when_loaded(tiny_folder: Path) -> None:
    made, loaded = arithmetic_tokenizer(), AutoTokenizer.from_pretrained(tiny_folder)
    tokens = ["<|pad|>", "<|endoftext|>", *"0123456789+-=?;", "\\boxed{", "}"]
    for tokenizer in (made, loaded):
        assert type(tokenizer) is Qwen2Tokenizer
        assert tokenizer.get_vocab() == {token: i for i, token in enumerate(tokens)}
        assert len(tokenizer) == tokenizer.vocab_size == 19
    assert loaded.backend_tokenizer.to_str() == made.backend_tokenizer.to_str()


def test_saving_a_loaded_tokenizer_changes_nothing(tiny_folder: Path, byte_folder: Path, tmp_path: Path) -> None:
    for folder in (tiny_folder, byte_folder):
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / folder.name)
        again = (tmp_path / folder.name / "tokenizer.json").read_text()
        assert again == (folder / "tokenizer.json").read_text()


def test_special_tokens_are_one_id_and_vanish_when_skipped(tiny_folder: Path) -> None:
    for tokenizer in (arithmetic_tokenizer(), AutoTokenizer.from_pretrained(tiny_folder)):
        ids = tokenizer(r"\boxed{-3}<|endoftext|><|pad|>")["input_ids"]
        assert ids == [17, 13, 5, 18, tokenizer.eos_token_id, tokenizer.pad_token_id]
        assert tokenizer.decode(ids, skip_special_tokens=True) == r"\boxed{-3}"


@pytest.mark.parametrize(
    ("text", "kept"), [("3 + 4", "3+4"), ("three", ""), ("3+4\n", "3+4"), ("é²7", "7"), (r"\boxed {2}", "2}")]
)
def test_arithmetic_tokenizer_leaves_other_characters_out(tiny_folder: Path, text: str, kept: str) -> None:
    for tokenizer in (arithmetic_tokenizer(), AutoTokenizer.from_pretrained(tiny_folder)):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == kept


def test_the_same_seed_gives_the_same_weights(tiny_folder: Path, tmp_path: Path) -> None:
    build_tiny_model(tmp_path / "again", seed=0, recipe=THREE_STEPS)
    build_tiny_model(tmp_path / "other", seed=1, recipe=THREE_STEPS)
    first = load_file(tiny_folder / "model.safetensors")
    again = load_file(tmp_path / "again" / "model.safetensors")
    other = load_file(tmp_path / "other" / "model.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_building_leaves_the_callers_random_state_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    build_byte_model(tmp_path / "bytes", seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_lowers_the_loss_on_demonstrations(tiny_folder: Path, tmp_path: Path) -> None:
    def loss(folder: Path) -> float:
        ids = AutoTokenizer.from_pretrained(folder)(r"3+4-5=?3+4=7;7-5=2;\boxed{2}", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return float(AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids, labels=ids).loss)

    recipe = WarmStart(skill_steps=40, mode_steps=0, batch_size=16, mode_texts=1)
    build_tiny_model(tmp_path / "longer", seed=0, recipe=recipe)
    assert loss(tmp_path / "longer") < loss(tiny_folder) - 0.5


def test_progress_counts_both_phases(built: tuple[Path, list[tuple[int, int]]]) -> None:
    assert built[1] == [(1, 3), (2, 3), (3, 3)]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        build_tiny_model(tmp_path / "tiny", seed=0, recipe=THREE_STEPS, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="mine"):
        build_byte_model(tmp_path / "mine", seed=0)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_model_that_another_process_made_in_the_meantime_is_kept(tmp_path: Path, byte_folder: Path) -> None:
    def other_process(done: int, total: int) -> None:
        if done == total:
            shutil.copytree(byte_folder, tmp_path / "tiny")

    with pytest.raises(FileExistsError, match="tiny exists"):
        build_tiny_model(tmp_path / "tiny", seed=0, recipe=THREE_STEPS, progress=other_process)
    theirs = (byte_folder / "model.safetensors").read_bytes()
    assert (tmp_path / "tiny" / "model.safetensors").read_bytes() == theirs
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "  two  spaces ,\n\ttab ",
        " don't , isn 't . ?\r\n\n  ",
        "ünïcödé 漢字 🙂 \\frac{1}{2}",
        "\x00\x7f\u2028\ufeff\U0010ffff",
        "Ġ<|end|>Ċ",
    ],
)
def test_bytes_round_trip(byte_folder: Path, text: str) -> None:
    for tokenizer in (byte_tokenizer(), AutoTokenizer.from_pretrained(byte_folder)):
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == len(text.encode())
        assert tokenizer.decode(ids) == text


def test_every_character_in_normal_form_round_trips(byte_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(byte_folder)
    points = [*range(0xD800), *range(0xE000, 0x20000)]
    # a blank between them, so that no two compose
    text = " ".join(c for c in map(chr, points) if unicodedata.is_normalized("NFC", c))
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_other_texts_come_out_composed(byte_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(byte_folder)
    assert tokenizer.decode(tokenizer("e\u0301")["input_ids"]) == "\u00e9"


def test_byte_model_reads_every_byte(byte_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(byte_folder)
    assert model.config.model_type == "qwen2"
    assert model.config.vocab_size == len(byte_tokenizer()) == len(AutoTokenizer.from_pretrained(byte_folder)) == 258
    assert 80_000 < sum(p.numel() for p in model.parameters()) < 110_000
    assert model.config.max_position_embeddings == 4096
    with torch.no_grad():
        logits = model(input_ids=torch.arange(258)[None]).logits
    assert logits.shape == (1, 258, 258)
    assert bool(torch.isfinite(logits).all())
