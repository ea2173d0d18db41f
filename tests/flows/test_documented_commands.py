"""Every `reval ...` line of README and docs: parsed by the real command line, its SQL run, its training dry-run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from small_run import ROUNDS, Finished

from flows.cli import USAGE_ERROR, app, main
from reval_core.home import Home

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md"))))
ROOT_COMMAND = typer.main.get_command(app)
COMMANDS = ROOT_COMMAND.commands  # type: ignore[attr-defined]
OF_NO_COMMAND = {option for param in ROOT_COMMAND.params for option in param.opts}
LINE = re.compile(r"^\s*(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?reval (.*)$")


def commands(page: str) -> list[tuple[str, ...]]:
    """Arguments of every reval line in code blocks and between backticks, in order, each once."""
    text = (ROOT / page).read_text(encoding="utf-8")
    block = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    shell = "\n".join(body for language, body in block.findall(text) if language in ("", "bash", "text"))
    lines = shell.replace("\\\n", " ").splitlines() + re.findall(r"`([^`\n]+)`", block.sub("", text))
    found = [tuple(shlex.split(line[1], comments=True)) for line in map(LINE.match, lines) if line]
    return list(dict.fromkeys(found))


def all_commands() -> list[tuple[str, ...]]:
    return list(dict.fromkeys(arguments for page in PAGES for arguments in commands(page)))


def parsed(name: str, *arguments: str) -> dict[str, object]:
    """What the real command line makes of the arguments."""
    return dict(COMMANDS[name].make_context(name, list(arguments)).params)


def test_the_pages_have_commands() -> None:
    names = {arguments[0] for arguments in all_commands()}
    assert names >= {"train", "evaluate", "sql", "runs", "doctor"}
    assert len(commands("README.md")) > 10
    assert ("evaluate", "POLICY", "--benchmarks", "aime24,math500", "-k", "16") in commands("README.md")


@pytest.mark.parametrize("arguments", all_commands(), ids=" ".join)
def test_the_command_line_takes_it(arguments: tuple[str, ...]) -> None:
    name, *rest = arguments
    assert name in COMMANDS or arguments in {(option,) for option in OF_NO_COMMAND}
    if rest or name in ("sql", "runs", "report", "doctor"):  # a command's bare name in prose is no call
        parsed(name, *rest)


def test_an_option_of_another_command_is_not_taken() -> None:
    with pytest.raises(USAGE_ERROR):
        parsed("train", "configs/quickstart.yaml", "--csv")


@pytest.mark.parametrize("page", PAGES)
def test_an_option_that_is_named_alone_is_some_commands(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    groups = [getattr(command, "commands", {}) for command in COMMANDS.values()]
    known_commands = [*COMMANDS.values(), *(command for group in groups for command in group.values())]
    known = {option for command in known_commands for param in command.params for option in param.opts}
    known |= {"--help", "--backend-store-uri"} | OF_NO_COMMAND  # the second is MLflow's
    assert set(re.findall(r"`(--[a-z0-9-]+)[^`\n]*`", text)) <= known


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Home, folder: Path, *arguments: str
) -> str:
    """Output of ``reval`` on a root, in a folder, since some write a file; it has to end well."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("REVAL_HOME", str(home.root))
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr(sys, "argv", ["reval", *arguments])
    code: int | str | None = 0
    try:
        main()
    except SystemExit as leave:
        code = leave.code
    printed = capsys.readouterr()
    assert not code, printed.err
    return printed.out


QUERIES = [arguments for arguments in all_commands() if arguments[0] == "sql" and len(arguments) > 1]


@pytest.mark.parametrize("arguments", QUERIES, ids=" ".join)
def test_its_sql_runs_on_a_finished_store(
    arguments: tuple[str, ...],
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = [
        re.sub(r"quickstart-[0-9a-f]{8}", finished.outcome.run_id, argument)
        .replace("'quickstart'", "'small'")
        .replace("(0, 29)", f"(0, {ROUNDS - 1})")
        for argument in arguments
    ]
    assert "0 rows" not in run(monkeypatch, capsys, finished.home, tmp_path, *ours).splitlines()


def test_the_shown_table_has_the_columns_of_its_query(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"```bash\nreval sql (\".*\")\n```\n\n```text\n(.*)\n", readme)
    assert shown
    for query, header in shown:
        (text,) = shlex.split(query)
        output = run(monkeypatch, capsys, finished.home, tmp_path, "sql", text, "--csv")
        assert output.splitlines()[0].replace('"', "").split(",") == [name.strip() for name in header.split("┃")]


TRAININGS = [arguments for arguments in all_commands() if arguments[0] == "train" and len(arguments) > 1]
TUTORIAL = "sums.yaml"
"""The configuration that a reader of docs/tutorial.md writes."""
EXAMPLES_RUN = re.compile(r"\b(quickstart-[0-9a-f]{8}|RUN)@\d+$")


def write_the_tutorials_files(folder: Path) -> None:
    """The problem file, by the program that makes it, and the configuration."""
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (config,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (line,) = re.findall(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
    assert (folder / "sums.jsonl").read_text(encoding="utf-8").startswith(line)
    (folder / TUTORIAL).write_text(config, encoding="utf-8")


@pytest.mark.parametrize("arguments", TRAININGS, ids=" ".join)
def test_its_training_dry_runs(
    arguments: tuple[str, ...],
    finished: Finished,
    copied: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where a run of the example is named, or the example's run itself is forced, the small run stands for it."""
    _, config, *rest = arguments
    config = "configs/quickstart.yaml" if config in ("CONFIG", "FILE") else config
    if config == TUTORIAL:
        write_the_tutorials_files(copied.root)
        config = str(copied.root / TUTORIAL)
    if "--from" in rest or "--force" in rest:
        config = str(tmp_path / "small.yaml")
        Path(config).write_text(finished.config.to_yaml(), encoding="utf-8")
        places = [EXAMPLES_RUN.sub(f"{finished.outcome.run_id}@2", argument) for argument in rest]
        rest = [re.sub(r"^generate@\d+$", "generate@2", argument) for argument in places]
    monkeypatch.syspath_prepend(str(ROOT / "examples"))  # as the line with the example reward has it
    output = run(monkeypatch, capsys, copied, copied.root, "train", str(ROOT / config), *rest, "--dry-run")
    assert "\nrun " in output or "ids [" in output
