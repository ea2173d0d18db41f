"""A stage that would not fit the disk is refused before it starts: with a made-up disk, and on a real small one."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import flows.train
import tasks.report
from reval_core.config import Config, LoraConfig
from reval_core.config_files import parse_config
from reval_core.errors import StoreError
from reval_core.home import Home
from reval_core.problems.arithmetic import arithmetic_problems
from reval_core.rollouts.transformers_engine import TransformersEngine
from reval_core.store import Store, space
from tasks import disk
from tasks.progress import Progress

MEGABYTE = 1_000_000


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> list[Path]:
    """A disk with so many bytes free; gives the folders that were asked about."""
    asked: list[Path] = []

    def usage(path: Path) -> Any:
        asked.append(path)
        return SimpleNamespace(total=10**12, used=0, free=count)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return asked


def run(root: Path, **rounds: dict[str, int]) -> Any:
    """A run whose rounds sampled so many trajectories and tokens."""
    history = {(int(number[1:]), "generate", ""): output for number, output in rounds.items()}
    return SimpleNamespace(home=Home(root), history=history | {(0, "learn", ""): {"policy_id": "p"}})


# -- how much is needed -----------------------------------------------------------------------------------------------


def test_the_first_round_is_taken_to_be_as_long_as_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 2 * 100 * (1000 + 8 * 5000)  # 8.2 MB, twice: DuckDB writes before it gives back
    free(monkeypatch, needed)
    disk.check_responses(run(tmp_path), 100, 5000)
    free(monkeypatch, needed - 1)
    with pytest.raises(StoreError) as refused:
        disk.check_responses(run(tmp_path), 100, 5000)
    assert str(refused.value) == (
        f"100 responses of about 5,000 tokens would need about 8.2 MB, and the disk of {tmp_path} has 8.2 MB free: it "
        "was not begun. Free some space (`reval prune` removes what your `retention` rules do not keep, `reval store "
        "archive` and then `reval store vacuum` shrink the database), then start again; nothing is lost."
    )


def test_later_rounds_are_taken_to_be_as_long_as_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run(tmp_path, r0={"trajectories": 10, "tokens": 1000}, r1={"trajectories": 30, "tokens": 7000})
    needed = 2 * 100 * (1000 + 8 * 200)
    free(monkeypatch, needed)
    disk.check_responses(before, 100, 5000)
    free(monkeypatch, needed - 1)
    with pytest.raises(StoreError, match="100 responses of about 200 tokens"):
        disk.check_responses(before, 100, 5000)
    disk.check_responses(before, 100, 50)  # an evaluation that allows less is not taken to be longer


def test_a_checkpoint_needs_weights_and_two_moments_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    base.mkdir()
    tensors = {"a": torch.zeros(10, 20, dtype=torch.bfloat16), "b": torch.zeros(5), "c": torch.tensor(1.0)}
    save_file(tensors, base / "model-00001-of-00002.safetensors")
    save_file({"d": torch.zeros(3, 4)}, base / "model-00002-of-00002.safetensors")
    save_file({"e": torch.zeros(1000)}, base / "optimizer.safetensors")
    save_file({"a": torch.zeros(1000)}, base / "consolidated.safetensors")  # the same again, as on some hubs
    assert disk.parameters(base) == 200 + 5 + 1 + 12
    whole = SimpleNamespace(model=SimpleNamespace(lora=None))
    here: Any = SimpleNamespace(
        iteration=9, run=SimpleNamespace(home=Home(tmp_path), base=SimpleNamespace(folder=base), config=whole)
    )
    free(monkeypatch, 218 * 12)
    disk.check_policy(here, with_optimizer=True)
    asked = free(monkeypatch, 218 * 12 - 1)
    with pytest.raises(StoreError, match=r"A checkpoint of round 9 would need about 2\.62 kB, .* 2\.62 kB free"):
        disk.check_policy(here, with_optimizer=True)
    assert asked == [tmp_path]  # the folder of policies is not there yet
    free(monkeypatch, 218 * 4)
    disk.check_policy(here, with_optimizer=False)


def test_a_checkpoint_of_adapters_needs_no_more_than_they_have(
    random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SimpleNamespace(model=SimpleNamespace(lora=LoraConfig(rank=3, targets=("k_proj", "down_proj"))))
    base = SimpleNamespace(folder=random_folder)
    here: Any = SimpleNamespace(iteration=9, run=SimpleNamespace(home=Home(tmp_path), base=base, config=config))
    numbers = 2 * 3 * ((16 + 8) + (24 + 16))  # layers x rank x (inputs + outputs)
    free(monkeypatch, numbers * 12)
    disk.check_policy(here, with_optimizer=True)
    free(monkeypatch, numbers * 12 - 1)
    with pytest.raises(StoreError, match=r"A checkpoint of round 9 would need about 4\.61 kB"):
        disk.check_policy(here, with_optimizer=True)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_234_567, "1.23 MB"), (84e9, "84 GB"), (2.5e12, "2.5 TB")],
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert space.size(count) == text


# -- on a real disk ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def config(random_folder: Path, tmp_path: Path) -> Config:
    """One round of two responses, on problems that the random model reads."""
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps(problem) + "\n" for problem in arithmetic_problems("train")[:2]))
    return parse_config(
        {
            "run": {"iterations": 1},
            "model": {"path": str(random_folder), "threads": 1, "device": "cpu"},
            "prompt": {"template": "none"},
            "problems": [{"path": str(problems)}],
            "rollouts": {
                "prompts_per_iteration": 2,
                "rollouts_per_prompt": 1,
                "max_prompt_tokens": 16,
                "max_new_tokens": 4,
            },
            "replay": {"capacity": None},
            "evaluation": {"before": False, "after": False},
            "tracking": {"system_metrics": False},
        }
    )


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run without MLflow and plots."""

    class Nothing:
        def __enter__(self) -> None: ...
        def __exit__(self, *told: object) -> None: ...

    monkeypatch.setattr(flows.train, "tracking", lambda run: Nothing())
    monkeypatch.setattr(flows.train, "track", lambda run, tracker: None)
    monkeypatch.setattr(flows.train, "log_models", lambda run, tracker: None)
    monkeypatch.setattr(flows.train, "log_files", lambda tracker, files, folder: None)
    monkeypatch.setattr(tasks.report, "draw", lambda run: {})
    monkeypatch.setattr(tasks.report, "FIGURES", ())
    return lambda config, home: flows.train.train.fn(config, home, Progress(quiet=True))


def changed(config: Config, **rollouts: int) -> Config:
    raw = config.model_dump(mode="json")
    raw["rollouts"] |= rollouts
    return parse_config(raw)


def test_a_round_that_does_not_fit_is_refused_before_a_token_is_sampled(
    small_disk: Path, config: Config, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(small_disk / "root")
    sampled: list[int] = []
    sample = TransformersEngine.sample

    def counted(self: TransformersEngine, requests: Any, settings: Any) -> Any:
        sampled.append(len(requests))
        return sample(self, requests, settings)

    monkeypatch.setattr(TransformersEngine, "sample", counted)
    with pytest.raises(StoreError, match=r"60,000 responses of about 4 tokens would need about 124 MB, and the disk"):
        train(changed(config, rollouts_per_prompt=30_000), home)
    assert sampled == []
    assert Store(home.database).query_live("SELECT 1 FROM stages").num_rows == 0
    assert train(config, home).rounds == 1
    assert sampled == [2]


def test_a_checkpoint_that_does_not_fit_is_refused_and_made_once_there_is_room(
    small_disk: Path, config: Config, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(small_disk / "root")
    ballast = small_disk / "ballast"
    check = disk.check_policy

    def on_a_full_disk(here: Any, *, with_optimizer: bool) -> None:
        room = shutil.disk_usage(small_disk).free
        ballast.write_bytes(b"x" * (room - 30_000))  # the model of 5,000 parameters needs 12 bytes of each
        check(here, with_optimizer=with_optimizer)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "check_policy", on_a_full_disk)
        with pytest.raises(StoreError, match=r"A checkpoint of round 0 would need about .* kB, and the disk of"):
            train(config, home)
    assert not home.policies.exists() or list(home.policies.iterdir()) == []
    ballast.unlink()
    done = train(config, home)
    assert done.executed[0] == "checkpoint@0"
    assert done.checkpoint is not None
