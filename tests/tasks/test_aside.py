"""The process beside a run: what it is told, what it gives back, and what becomes of it when it fails."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reval_core.config import Config
from reval_core.config_files import parse_config
from reval_core.errors import ConfigError, RevalError
from reval_core.home import Home
from tasks import aside
from tasks.aside import Aside, evaluator_config
from tasks.preflight import check_settings

ECHO = (
    "import sys; print(sys.stdin.readline()[:0] + 'loading'); [print(line, end='', flush=True) for line in sys.stdin]"
)
FAILS = "import sys; sys.stdin.readline(); sys.stdin.readline(); sys.exit('no such GPU')"


def config(**evaluation: object) -> Config:
    tree = {
        "run": {"name": "small", "iterations": 4},
        "problems": [{"path": "builtin:arithmetic/train"}],
        "model": {"device": "cpu"},
        "prompt": {"template": "none"},
        "evaluation": {"benchmarks": ["arithmetic"], "every": 1, "device": "cpu:1", **evaluation},
    }
    return parse_config(tree)


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Aside]:
    monkeypatch.setattr(aside, "PROGRAM", ("-c", request.param))
    made = Aside(config(), Home(tmp_path), tmp_path / "logs" / "said.log")
    yield made
    made.close()


@pytest.mark.parametrize("process", [ECHO], indirect=True)
def test_each_policy_is_asked_for_once_and_told_when_it_is_done(process: Aside) -> None:
    assert list(process.finished(wait=True)) == []  # nothing was asked for, so nothing was started
    process.ask(-1, "pol_a")
    process.ask(1, "pol_b")
    process.ask(1, "pol_b")
    assert list(process.finished(wait=True)) == [(-1, "pol_a"), (1, "pol_b")]
    assert list(process.finished()) == []
    process.ask(1, "pol_b")  # again, after it was taken in: as a fork at the same round would
    assert list(process.finished(wait=True)) == [(1, "pol_b")]


@pytest.mark.parametrize("process", [FAILS], indirect=True)
def test_a_process_that_fails_fails_the_run_with_its_words(process: Aside) -> None:
    process.ask(0, "pol_a")
    with pytest.raises(RevalError, match=r"on cpu:1 ended with exit code 1\. no such GPU"):
        list(process.finished(wait=True))


def test_it_works_under_the_runs_settings_on_the_other_device() -> None:
    own, given = parse_config(evaluator_config(config())), config()
    assert (own.model.device, own.evaluation.device, own.run.iterations) == ("cpu:1", None, 0)
    assert own.run.name == "small-evaluations"
    assert own.identity() == given.identity()
    assert json.dumps(evaluator_config(given))


def test_the_runs_own_device_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.device is 'cpu', on which the run itself works"):
        check_settings(config(device="cpu"))
    check_settings(config())
