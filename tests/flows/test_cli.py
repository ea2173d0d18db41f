"""The command line as a person uses it: SQL in every format, runs, report, and readable errors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import Finished, Reval

from reval_core.home import Home


@pytest.fixture
def config_file(finished: Finished, tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(finished.config.to_yaml(), encoding="utf-8")
    return path


def test_a_dry_run_and_prompts_start_nothing(reval: Reval, finished: Finished, config_file: Path) -> None:
    code, text, _ = reval("train", str(config_file), "--dry-run")
    assert code == 0
    assert f"run {finished.outcome.run_id}" in text
    code, text, _ = reval("train", str(config_file), "--show-prompt", "2")
    assert code == 0
    assert text.count("=?") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "nosuch.yaml"), "no configuration file"),
        (("train", "CONFIG", "--set", "objective.bta=1"), "did you mean 'objective.beta'?"),
        (("train", "CONFIG", "--set", "objective.beta"), "key.path=value"),
        (("train", "CONFIG", "--dry-run", "--from", "nosuch@2"), "no run nosuch"),
        (("evaluate", "pol_ffff"), "names 0 policies"),
        (("train", "CONFIG", "--dry-run", "--json"), "--json is for the outcome of a run"),
    ],
)
def test_errors_are_one_message_without_a_traceback(
    reval: Reval, config_file: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, _, error = reval(*(str(config_file) if word == "CONFIG" else word for word in arguments))
    assert code == 1
    assert words in error
    assert "Traceback" not in error


def test_what_the_system_refuses_is_told_in_a_line(reval: Reval, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(number: int) -> tuple[int, str, str]:
        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number), "/data/services.lock")

        monkeypatch.setattr("flows.listing.list_runs", fail)
        return reval("runs")

    code, _, error = refused(errno.EROFS)
    assert code == 1
    assert error.startswith("Error: /data/services.lock: Read-only file system. See that this user may write there")
    with pytest.raises(OSError, match="Bad file descriptor"):  # a fault of ours
        refused(errno.EBADF)


def test_before_the_command_stands_what_is_shown(
    reval: Reval, copied: Home, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVAL_HOME", str(copied.root))
    code, _, error = reval("--debug", "train", str(config_file), "--set", "objective.beta=-1")
    assert code == 1
    assert error.startswith("Traceback")
    assert "objective.beta" in error.rpartition("Error:")[2]
    code, _, error = reval("train", str(config_file), "--set", "objective.beta=-1")
    assert "Traceback" not in error

    line = "database"
    assert line in reval("train", str(config_file))[1]
    quiet = reval("--quiet", "train", str(config_file))[1]
    assert line in quiet
    assert "root " not in quiet


def test_an_unknown_option_is_a_usage_error(reval: Reval) -> None:
    code, _, error = reval("train", "x.yaml", "--forse", "generate@1")
    assert code == 2
    assert "--force" in error


def test_the_shell_completes_commands() -> None:
    """In a process of its own: the name of the program that is completed for is that of the main module."""
    program = "import sys; sys.argv = ['reval']; from flows.cli import main; main()"
    asked = {"_REVAL_COMPLETE": "complete_bash", "COMP_WORDS": "reval exp", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | asked, capture_output=True, text=True)
    assert (done.returncode, set(done.stdout.split())) == (0, {"export", "export-policy"})
