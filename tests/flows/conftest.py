"""A base model, problems, and one finished run, made once; tests that write get a copy of its root."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served_site import Site, serving
from small_run import CANARY, Finished, Reval, changed, train, tree, value, without_mlflow, without_plots

from flows.cli import main
from reval_core.config import Config
from reval_core.config_files import parse_config
from reval_core.home import Home
from reval_core.policies.tiny import WarmStart, build_tiny_model
from reval_core.problems.arithmetic import arithmetic_problems
from reval_core.process import ProcessIdentity
from tasks.services import configure


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after so short a warm start that it is right now and then."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    recipe = WarmStart(skill_steps=160, mode_steps=1, batch_size=32, warmup_steps=10, mode_texts=1)
    build_tiny_model(folder, seed=0, recipe=recipe)
    return folder


@pytest.fixture(scope="session")
def problem_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six problems, so that three rounds are two epochs."""
    path = tmp_path_factory.mktemp("problems") / "six.jsonl"
    chosen = arithmetic_problems("train")[:: 3744 // 6][:6]
    path.write_text("".join(json.dumps(problem) + "\n" for problem in chosen), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def benchmark_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three problems that training has not."""
    path = tmp_path_factory.mktemp("problems") / "three.jsonl"
    path.write_text("".join(json.dumps(problem) + "\n" for problem in arithmetic_problems("heldout")[:3]))
    return path


@pytest.fixture(scope="session")
def small(base_folder: Path, problem_file: Path) -> Config:
    """The small run's configuration."""
    return parse_config(tree(base_folder, problem_file))


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prefect and MLflow as `configure` sets them up, and a secret; taken back at the end."""
    before = dict(os.environ)
    os.environ["HF_TOKEN"] = CANARY
    configure(Home(tmp_path_factory.mktemp("services")))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def finished(
    small: Config, benchmark_file: Path, environment: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Finished]:
    """One whole run: everything that a user's run does, evaluated before and after. Tests read it and write nothing."""
    home = Home(tmp_path_factory.mktemp("finished"))
    evaluated = changed(
        small, "evaluation.before=true", "evaluation.after=true", f"evaluation.benchmarks=['{benchmark_file}']"
    )
    run = Finished(evaluated, home, train(evaluated, home))
    yield run
    attempts = value(home, "SELECT count(*) FROM attempts")
    assert attempts == 1, "a test ran something in the finished run's root: it has to take the fixture `copied`"


@pytest.fixture
def home(tmp_path: Path, environment: None) -> Home:
    """An empty root."""
    return Home(tmp_path / "root")


@pytest.fixture
def copied(finished: Finished, home: Home) -> Home:
    """A root with the finished run in it, to write into."""
    shutil.copytree(finished.home.root, home.root)
    return home


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs without MLflow and plots."""
    with without_mlflow(monkeypatch), without_plots(monkeypatch):
        yield


@pytest.fixture
def stranger() -> Iterator[ProcessIdentity]:
    """Another process that lives."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield ProcessIdentity.of(process.pid)
        process.kill()


@pytest.fixture
def reval(finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Reval:
    """Calls ``reval`` with arguments on the finished run's root; gives exit code, output and errors."""
    monkeypatch.setenv("REVAL_HOME", str(finished.home.root))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["reval", *arguments])
        code = 0
        try:
            main()
        except SystemExit as leave:
            code = int(leave.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def site(
    small: Config, benchmark_file: Path, problem_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Everything that `reval serve` brings up, with ReVal's own deployments on the small run's configuration."""
    with serving(small, benchmark_file, problem_file, tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Playwright's browser without a screen; what asks for it is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests in a browser put their screenshots: the folder that REVAL_SCREENSHOTS names, else one of pytest's."""
    folder = Path(os.environ.get("REVAL_SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
