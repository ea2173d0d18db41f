"""`reval export` and `reval import` as a person uses them, and what a run makes of what came in."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
import torch
from safetensors.torch import load_file
from small_run import BATCH, ROUNDS, Finished, Reval, changed, lineage, rows, sampled, train, value
from transformers import AutoModelForCausalLM

from reval_core.config import Config
from reval_core.home import Home
from reval_core.policies.folder import tokenizer_id

SAID = [
    {"question": "1+1=?", "gold": "2", "completion": r"1+1=2;\boxed{2}", "model": "other", "label": True},
    {"question": "1+2=?", "gold": "3", "completion": r"\boxed{4}", "model": "other", "label": False},
    {"question": "1+2=?", "gold": "3", "completion": "", "model": "other", "truncated": True},
]


@pytest.fixture
def said(tmp_path: Path) -> Path:
    path = tmp_path / "said.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in SAID), encoding="utf-8")
    return path


@pytest.fixture
def into(reval: Reval, home: Home, monkeypatch: pytest.MonkeyPatch) -> Reval:
    """`reval` on an empty root."""
    monkeypatch.setenv("REVAL_HOME", str(home.root))
    return reval


def test_an_export_says_what_it_wrote_and_how_to_read_it(reval: Reval, finished: Finished, tmp_path: Path) -> None:
    dest = tmp_path / "it's out"
    code, text, _ = reval("export", str(dest), "--run", finished.outcome.run_id[:7])
    assert code == 0
    assert f"{ROUNDS * BATCH} responses written to {dest}: {ROUNDS} files" in text
    query = text.splitlines()[-1].removeprefix("read it: ")
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT iteration, avg(correct::INTEGER) FROM ({query}) GROUP BY 1 ORDER BY 1"
        ).fetchall()
    run = finished.outcome.run_id
    expected = rows(finished.home, "SELECT iteration, accuracy FROM rounds WHERE run_id = $r ORDER BY 1", r=run)
    assert found == [(row["iteration"], row["accuracy"]) for row in expected]


def test_the_hub_layout_is_loaded_as_the_command_says(reval: Reval, finished: Finished, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dest = tmp_path / "set"
    code, text, _ = reval("export", str(dest), "--format", "hf", "--purpose", "all", "--where", "correct")
    assert code == 0
    assert text.splitlines()[-1] == f'read it: datasets.load_dataset("{dest}", split="train")'
    found = datasets.load_dataset(str(dest), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.num_rows == value(finished.home, "SELECT count(*) FROM trajectories WHERE correct")
    assert set(found["purpose"]) == {"training", "evaluation"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "csv"), "--format 'csv' is none of parquet, hf"),
        (("--purpose", "test"), "--purpose 'test' is none of training, evaluation, imported, all"),
        (("--run", "nosuch"), "There is no run nosuch"),
        (("--where", "corect"), 'Candidate bindings: "correct"'),
        (("--purpose", "imported"), "No response is selected (imported)"),
    ],
)
def test_what_cannot_be_exported_is_one_message(
    reval: Reval, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, _, error = reval("export", str(tmp_path / "out"), *arguments)
    assert code == 1
    assert words in error
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_run_of_the_same_settings_takes_what_came_in_for_its_own(
    into: Reval,
    small: Config,
    finished: Finished,
    home: Home,
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REVAL_HOME", str(finished.home.root))
    assert into("export", str(tmp_path / "out"))[0] == 0
    monkeypatch.setenv("REVAL_HOME", str(home.root))
    code, text, _ = into("import", str(tmp_path / "out"))
    assert code == 0
    total = ROUNDS * BATCH
    assert f"{tmp_path / 'out'} ({ROUNDS} files): {total} rows read, {total} new, 0 known, 0 refused" in text
    named = "SELECT count(*) FROM trajectories WHERE run_name = $name AND run_id = $run"
    run = {"name": finished.config.run.name, "run": finished.outcome.run_id}
    assert value(home, named, **run) == total  # the run itself did not come along
    with sampled(monkeypatch) as seen:
        outcome = train(changed(small, "evaluation.after=false"), home)
    assert seen == []
    assert lineage(home, outcome.run_id) == lineage(finished.home, finished.outcome.run_id)


def test_completions_need_a_tokenizer_and_the_message_says_why(into: Reval, home: Home, said: Path) -> None:
    code, _, error = into("import", str(said))
    assert code == 1
    assert f"{said} holds completions of another system as text, and what is learned from are tokens" in error
    assert "--tokenizer builtin:bytes is enough" in error
    assert not home.database.exists()


def test_completions_come_in_with_counts_by_reason(into: Reval, home: Home, said: Path) -> None:
    code, text, _ = into("import", str(said), "--tokenizer", "builtin:bytes")
    assert code == 0
    assert f"{said}: 3 rows read, 2 new, 0 known, 1 refused; 2 labels kept as verdicts" in text
    assert "  refused: 1 without a token, as said.jsonl, line 3: an empty completion that was cut" in text
    _, text, _ = into("import", str(said), "--tokenizer", "builtin:bytes")
    assert "3 rows read, 0 new, 2 known, 1 refused" in text
    found = rows(home, "SELECT question, correct FROM trajectories WHERE purpose = 'imported' ORDER BY question")
    assert [tuple(row.values()) for row in found] == [("1+1=?", True), ("1+2=?", False)]


def test_a_file_of_which_nothing_is_usable_fails_the_command(into: Reval, said: Path) -> None:
    code, text, _ = into("import", str(said), "--tokenizer", "builtin:bytes", "--fields", "completion=response")
    assert code == 1
    assert "3 rows read, 0 new, 0 known, 3 refused" in text
    assert "3 without a completion, as said.jsonl, line 1: column 'response' is missing" in text


def test_the_tokenizer_of_a_stored_policy_is_that_of_its_lineage(
    into: Reval, copied: Home, finished: Finished, base_folder: Path, said: Path, tmp_path: Path
) -> None:
    folderless = value(copied, "SELECT min(policy_id) FROM policies WHERE kind = 'learned' AND folder IS NULL")
    for number, name in enumerate((folderless, str(base_folder))):
        path = tmp_path / f"said{number}.jsonl"
        path.write_bytes(said.read_bytes())
        code, _, error = into("import", str(path), "--tokenizer", name)
        assert (code, error) == (0, "")
    found = rows(copied, "SELECT DISTINCT tokenizer_id FROM store.batches")
    assert found == [{"tokenizer_id": tokenizer_id(base_folder)}]  # of the run's batches and the imported ones


def test_prompts_are_rendered_as_the_configuration_says(into: Reval, home: Home, said: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("problems: [{path: builtin:arithmetic/train}]\nprompt: {template: none, suffix: ' Box it.'}\n")
    assert into("import", str(said), "--tokenizer", "builtin:bytes", "--config", str(config))[0] == 0
    assert value(home, "SELECT min(text) FROM store.prompts") == "1+1=? Box it."


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuch.jsonl", "there is none at"),
        ("said.csv", "said.csv is no such file"),
        ("broken.parquet", "is not a readable Parquet file"),
    ],
)
def test_what_cannot_be_imported_is_one_message(into: Reval, said: Path, name: str, words: str) -> None:
    for other in ("said.csv", "broken.parquet"):
        (said.parent / other).write_text("a,b\n")
    code, _, error = into("import", str(said.parent / name), "--tokenizer", "builtin:bytes")
    assert code == 1
    assert words in error


def test_neither_command_loads_torch_before_it_is_needed() -> None:
    program = "import sys, flows.exchange; assert not {'torch', 'prefect', 'mlflow'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0


def test_an_exported_policy_tells_where_it_comes_from_and_loads(
    finished: Finished, reval: Reval, tmp_path: Path
) -> None:
    policy = finished.outcome.policy_id
    code, _, _ = reval("export-policy", policy[:12], str(tmp_path / "tuned"))
    assert code == 0
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    assert f"| Policy | `{policy}` |" in card
    assert f"`{finished.outcome.run_id}`" in card
    assert "after 4 generation rounds" in card
    assert "three.jsonl" in card
    weights = load_file(finished.home.policies / policy / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
