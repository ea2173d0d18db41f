"""What cannot be used is refused with a reason and a cure, before anything is lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from small_run import Finished, changed, counts, rows, sampled, train

from reval_core.config import Config
from reval_core.errors import ConfigError, LearningError, PolicyError, ProblemError, PromptError, RevalError, StoreError
from reval_core.home import Home
from reval_core.process import ProcessIdentity
from reval_core.store import Store, runs

pytestmark = pytest.mark.usefixtures("quick")
Spoil = Callable[[Path, Path], list[str]]
"""(a folder, the base model's folder) to the overrides of a run that cannot be."""


def no_folder(folder: Path, base: Path) -> list[str]:
    return [f"model.path={folder}/nowhere"]


def no_hub_name(folder: Path, base: Path) -> list[str]:
    return ["model.path=my models/qwen 1.5b"]


def no_tokenizer(folder: Path, base: Path) -> list[str]:
    shutil.copytree(
        base, folder / "model", ignore=shutil.ignore_patterns("tokenizer*", "vocab*", "special*", "merges*")
    )
    return [f"model.path={folder}/model"]


def pickled(folder: Path, base: Path) -> list[str]:
    shutil.copytree(base, folder / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    return [f"model.path={folder}/model"]


def long_prompts(folder: Path, base: Path) -> list[str]:
    return ["rollouts.max_prompt_tokens=6"]


def small_context(folder: Path, base: Path) -> list[str]:
    return ["rollouts.max_new_tokens=122"]


def broken_line(folder: Path, base: Path) -> list[str]:
    good = json.dumps({"question": "1+1+1=?", "answer": "3"})
    (folder / "broken.jsonl").write_text(f'{good}\n{good}\n{{"question": "2+\n')
    return [f"problems.0.path={folder}/broken.jsonl"]


def no_gold(folder: Path, base: Path) -> list[str]:
    (folder / "golds.jsonl").write_text(json.dumps({"question": "1+1+1=?", "solution": "3"}))
    return [f"problems.0.path={folder}/golds.jsonl"]


def no_engine(folder: Path, base: Path) -> list[str]:
    return ["rollouts.engine.use=transfromers"]


def of_kind(folder: Path, base: Path, *overrides: str, **config: object) -> list[str]:
    """The base model's folder with another config.json; nobody gets as far as its weights."""
    shutil.copytree(base, folder / "model")
    old = json.loads((base / "config.json").read_text())
    kept = {key: old[key] for key in ("vocab_size", "eos_token_id", "pad_token_id")}
    (folder / "model" / "config.json").write_text(json.dumps(kept | config))
    return [f"model.path={folder}/model", *overrides]


TWO_LAYERS = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
GPT2: dict[str, object] = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}


def recurrent(folder: Path, base: Path) -> list[str]:
    return of_kind(folder, base, model_type="mamba", hidden_size=16, num_hidden_layers=1)


def half_convolutional(folder: Path, base: Path) -> list[str]:
    return of_kind(folder, base, model_type="lfm2", layer_types=["conv", "full_attention"], **TWO_LAYERS)


def past_the_short_frequencies(folder: Path, base: Path) -> list[str]:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    lengths = {"max_position_embeddings": 64, "original_max_position_embeddings": 8}
    return of_kind(folder, base, model_type="phi3", rope_parameters=rope, **lengths, **TWO_LAYERS)


def packed_without_a_plain_head(folder: Path, base: Path) -> list[str]:
    return of_kind(folder, base, "optimizer.packing=true", model_type="gemma2", head_dim=8, **TWO_LAYERS)


def no_gates(folder: Path, base: Path) -> list[str]:
    return of_kind(folder, base, "model.gradient_checkpointing=gates", **GPT2)


def dropout(folder: Path, base: Path) -> list[str]:
    return of_kind(folder, base, "model.gradient_checkpointing=true", **GPT2)


def unknown_kind(folder: Path, base: Path) -> list[str]:
    return of_kind(folder, base, model_type="of_the_future")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (no_folder, PolicyError, "there is no folder .*nowhere"),
        (no_hub_name, PolicyError, "'my models/qwen 1.5b' is no folder here and could not be fetched"),
        (no_tokenizer, PolicyError, "has no tokenizer .*save the model's tokenizer"),
        (pickled, PolicyError, "pickled weights only .pytorch_model.bin.*safetensors"),
        (long_prompts, PromptError, r"6 prompts are longer than rollouts.max_prompt_tokens = 6; the longest has 7"),
        (small_context, ConfigError, "7 tokens; with 122 new ones it passes the model's context of 128"),
        (broken_line, ProblemError, r"broken.jsonl, line 3: not JSON"),
        (no_gold, ProblemError, "golds.jsonl, line 1: column 'answer' is missing.*There are question, solution"),
        (recurrent, ConfigError, "MambaForCausalLM has recurrent or convolutional layers"),
        (half_convolutional, ConfigError, "Lfm2ForCausalLM has recurrent or convolutional layers"),
        (past_the_short_frequencies, ConfigError, "passes the model's context of 8"),
        (packed_without_a_plain_head, ConfigError, "Gemma2ForCausalLM cannot be packed"),
        (no_gates, ConfigError, "'gates', and layers of GPT2LMHeadModel have no such MLPs"),
        (dropout, LearningError, "drops out with probability 0.1; with gradient_checkpointing"),
        (unknown_kind, PolicyError, "of_the_future"),
        (no_engine, ConfigError, "[Uu]nknown .*engine 'transfromers'.*Did you mean 'transformers'"),
    ],
)
def test_it_is_refused_and_nothing_is_lost(
    spoil: Spoil, error: type[RevalError], message: str,
    small: Config, base_folder: Path, copied: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before = counts(copied)
    config = changed(small, *spoil(tmp_path, base_folder))
    with sampled(monkeypatch) as seen, pytest.raises(error, match=message):
        train(config, copied)
    assert seen == []
    assert counts(copied) == before
    assert rows(copied, "SELECT * FROM attempts WHERE status = 'running'") == []


def test_a_base_model_that_was_changed_is_refused(small: Config, base_folder: Path, home: Home, tmp_path: Path) -> None:
    shutil.copytree(base_folder, tmp_path / "model")
    config = changed(small, "run.iterations=0", f"model.path={tmp_path}/model")
    train(config, home)
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings | {"rope_theta": 5.0}))
    with pytest.raises(ConfigError, match=r"is now pol_\w+, but run small-\w+ began with pol_\w+\. Put the old model"):
        train(config, home)


def test_a_newer_database_is_left_alone(small: Config, copied: Home) -> None:
    with Store(copied.database).write() as connection:
        connection.execute("INSERT INTO store.schema_migrations VALUES (99, '099_later', 'x', now()::TIMESTAMP)")
    before = copied.database.read_bytes()
    with pytest.raises(StoreError, match=r"schema version 99, this ReVal knows versions up to \d+. Install the newer"):
        train(small, copied)
    assert copied.database.read_bytes() == before


def test_two_processes_do_not_work_on_one_run(
    finished: Finished, copied: Home, stranger: ProcessIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(copied.database).write() as connection:
        number = runs.start_attempt(
            connection, finished.outcome.run_id, stranger, git_commit=None, versions={}, device="cpu", flow_run_id=None
        )
    longer = changed(finished.config, "run.iterations=5")
    with (
        sampled(monkeypatch) as seen,
        pytest.raises(StoreError, match=f"worked on by process {stranger.pid} .attempt 2"),
    ):
        train(longer, copied)
    assert seen == []
    statuses = "SELECT attempt, status FROM attempts ORDER BY attempt"
    assert [tuple(row.values()) for row in rows(copied, statuses)] == [(1, "completed"), (number, "running")]

    psutil.Process(stranger.pid).kill()  # not waited for: a zombie does not count as living
    psutil.wait_procs([psutil.Process(stranger.pid)], timeout=0.1)
    train(finished.config, copied)
    told = [row["status"] for row in rows(copied, "SELECT status FROM attempts ORDER BY attempt")]
    assert told == ["completed", "crashed", "completed"]
    # nobody knows when it ended; the next start is not that moment
    assert rows(copied, "SELECT ended_at FROM attempts WHERE status = 'crashed'") == [{"ended_at": None}]
