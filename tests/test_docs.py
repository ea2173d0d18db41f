"""The documentation holds: names exist, links lead somewhere, tables are up to date, examples work."""

import ast
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from reval_core.config import EngineConfig, ObjectiveConfig
from reval_core.config_files import known_keys
from reval_core.learning.objectives import check
from reval_core.problems.problem import Problem, ask
from reval_core.rollouts import SampleRequest, SamplingSettings, make_engine
from reval_core.store import Store
from reval_core.verification import Grader

ROOT = Path(__file__).parents[1]
PAGES = (*sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")), "CONTRIBUTING.md", "CHANGELOG.md")
SUFFIXES = ("py", "sql", "md", "yaml", "toml")
OTHER_FILES = ("json", "jsonl", "safetensors", "duckdb")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def code_names(page: str) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def defines(path: Path, name: str) -> bool:
    """Whether a Python file defines a dotted name, or a file of statements a block."""
    if path.suffix == ".sql":
        return f"-- name: {name}\n" in path.read_text(encoding="utf-8")
    node: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    for part in name.split("."):
        found = next((child for child in getattr(node, "body", []) if part in _bound(child)), None)
        if found is None:
            return False
        node = found
    return True


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


@cache
def tables() -> set[str]:
    """Tables, views and macros by their qualified names."""
    sql = "\n".join(p.read_text(encoding="utf-8") for p in sorted((ROOT / "sql").glob("[mv]*/*.sql")))
    return set(re.findall(r"CREATE (?:OR REPLACE )?(?:TABLE|VIEW|MACRO) ([\w.]+)", sql))


def module_has(name: str) -> bool:
    """Whether ``a.b.c`` is a module of ours, or a name that the module ``a.b`` defines."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:cut])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.is_file():
            return cut == len(parts) or defines(file, ".".join(parts[cut:]))
    return False


def missing(name: str) -> str | None:
    """What is wrong with a name in backticks; None when it exists or is no name of ours."""
    path, _, symbol = name.partition("::")
    if re.fullmatch(rf"[\w./-]+/[\w.-]+\.({'|'.join(SUFFIXES)})", path):
        if not (ROOT / path).is_file():
            return f"{path} is no file"
        return None if not symbol or defines(ROOT / path, symbol) else f"{path} has no {symbol}"
    if symbol:
        return f"{name} is not written as folder/file::name"
    if re.fullmatch(r"[\w/]+/", path):
        return None if (ROOT / path).is_dir() or (ROOT / "sql" / path).is_dir() else f"{path} is no folder"
    if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", name) and name.rsplit(".")[-1] not in OTHER_FILES:
        known = (
            (ROOT / name).is_file()
            or name in known_keys()
            or name in tables()
            or name.startswith("batch.")
            or module_has(name)
        )
        return None if known else f"{name} is no field of the configuration, table or name of ours"
    return None


def test_the_check_of_names_finds_what_is_wrong() -> None:
    assert missing("tasks/generate.py::sample_batch") is None
    assert missing("tasks/run.py::Here.generation") is None
    assert missing("reval_core.identity.digest") is None
    assert missing("store.stages") is None
    assert missing("store.flush_seconds") is None
    for wrong in (
        "tasks/generate.py::resample",
        "tasks/generation.py",
        "reval_core.identity.hash",
        "store.stage",
        "tusks/",
        "sql/statements/replay.sql::windows",
    ):
        assert missing(wrong) is not None, wrong


@pytest.mark.parametrize("page", PAGES)
def test_code_in_a_line_does_not_run_over_its_end(page: str) -> None:
    assert [line for line in prose(page).splitlines() if line.count("`") % 2] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_name_exists(page: str) -> None:
    assert [problem for name in code_names(page) if (problem := missing(name))] == []


def test_the_architecture_names_much() -> None:
    assert sum("::" in name for name in code_names("docs/architecture.md")) > 80


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_the_repository_leads_somewhere(page: str) -> None:
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in t]
    assert [t for t in targets if not (ROOT / page).parent.joinpath(t.partition("#")[0]).exists()] == []


def make_configuration() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_configuration", ROOT / "docs" / "make_configuration.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_tables_are_those_of_the_fields() -> None:
    generator, written = make_configuration(), text_of("docs/configuration.md")
    assert written == generator.page(written), "refresh it: python docs/make_configuration.py"
    assert set(generator.UNITS) <= set(known_keys())
    sections = {key.rsplit(".", 1)[0] for key in known_keys() if "." in key}
    for key in set(known_keys()) - sections:
        assert f"| `{key}` |" in written


def examples(language: str) -> list[str]:
    """Code blocks of CONTRIBUTING.md."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of("CONTRIBUTING.md"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Python examples as modules on the path, in this process and in the workers."""
    for block in examples("python"):
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(block, encoding="utf-8")
        # other guides name their modules alike
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_the_objective_of_the_guide_works(own_modules: Path) -> None:
    objective = check(ObjectiveConfig(use="my_objectives:squashed"))
    assert objective.name == "squashed"
    assert objective.needs_reference


def test_the_reward_of_the_guide_works(own_modules: Path) -> None:
    problem = Problem(ask("2+2=?"), gold="4")
    with Grader("my_rewards:brevity", {"most": 10}, workers=1, timeout_s=30.0) as grader:
        verdicts = grader.grade_batch([(problem, "4"), (problem, "five"), (problem, "It is 4, of course")])
    assert [verdict.reward for verdict in verdicts] == [pytest.approx(0.9), 0.0, 0.0]


def test_the_engine_of_the_guide_works(own_modules: Path) -> None:
    engine = make_engine(EngineConfig(use="my_engines:Silent"), compute_dtype="float32", pad_id=0)
    request = SampleRequest("p", 0, seed=1, prompt_ids=(5,))
    engine.load("pol_0", None)
    (sample,) = engine.sample([request], SamplingSettings(4, 1.0, 1.0, 0, stop_ids=(7,)))
    engine.close()
    assert sample.token_ids == (7,)
    assert sample.request is request


def test_the_query_of_the_guide_works(tmp_path: Path) -> None:
    store = Store(tmp_path / "reval.duckdb")
    store.prepare()
    (query,) = examples("sql")
    assert store.query(query.strip(), run=None).column_names == ["iteration", "response_tokens_mean"]
