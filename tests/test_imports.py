"""The directions of the rooms, read from the source: who may import whom, and what no product code does."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for room in ("reval_core", "tasks", "flows") for path in (ROOT / room).rglob("*.py"))
BOTTOM = {
    "errors": (),
    "exclusive": (),
    "identity": (),
    "process": (),
    "redaction": (),
    "visible": (),
    "yaml_text": (),
    "home": ("errors",),
    "registry": ("errors",),
    "environment": ("errors", "identity"),
    "section": (),
    "cards": ("yaml_text",),
    "health": ("section",),
    "upkeep": ("home", "redaction", "section"),
    "config_replay": ("section",),
    "config_engine": ("section",),
    "config_evaluation": ("section",),
    "config": (
        "config_engine",
        "config_evaluation",
        "config_replay",
        "health",
        "home",
        "identity",
        "section",
        "upkeep",
        "yaml_text",
    ),
    "config_files": ("config", "errors", "yaml_text"),
}
"""Modules of reval_core that belong to no room, and which of their kind each may import."""
ROOMS = {
    "verification": (),
    "problems": ("verification",),
    "rollouts": (),
    "learning": (),
    "store": ("problems",),
    "policies": ("learning", "problems", "store"),
    "evaluation": (),
    "experiments": (),
    "reporting": (),
    "browsing": ("learning", "policies", "problems", "reporting", "store", "verification"),
}
"""Rooms of reval_core, and which others each may import beside the bottom. Learning and rollouts meet in tasks."""


def named(path: Path) -> str:
    """Dotted name of a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a module imports, wherever in it, `from a import b` as `a.b`."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = named(path).split(".") if path.name == "__init__.py" else named(path).split(".")[:-1]
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return found


def reached(path: Path, *packages: str) -> list[str]:
    """Which imports of a module lie in one of the packages."""
    return sorted(name for name in imports(path) if any(f"{name}.".startswith(f"{package}.") for package in packages))


def within(*parts: str) -> list[Path]:
    return [path for path in MODULES if path.is_relative_to(ROOT.joinpath(*parts))]


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call))


def test_the_rooms_are_read() -> None:
    assert len(MODULES) > 50
    assert reached(ROOT / "reval_core" / "identity.py", "hashlib") == ["hashlib"]
    assert reached(ROOT / "reval_core" / "policies" / "materialise.py", "reval_core.learning")


def part_of_the_library(name: str) -> str:
    """Room or bottom module of a dotted name in reval_core."""
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("path", within("reval_core"), ids=named)
def test_the_library_knows_neither_services_nor_tasks(path: Path) -> None:
    assert reached(path, "prefect", "mlflow", "tasks", "flows") == []


@pytest.mark.parametrize("path", within("tasks"), ids=named)
def test_tasks_know_no_flow(path: Path) -> None:
    assert reached(path, "flows") == []


@pytest.mark.parametrize("path", within("flows"), ids=named)
def test_flows_take_the_decorator_flow_from_prefect_and_nothing_else(path: Path) -> None:
    assert set(reached(path, "prefect", "mlflow")) <= {"prefect.flow"}


@pytest.mark.parametrize("path", within("reval_core"), ids=named)
def test_a_room_imports_what_the_table_allows(path: Path) -> None:
    here = part_of_the_library(named(path))
    allowed = {here, "", "__version__"} | set(BOTTOM[here] if here in BOTTOM else (*BOTTOM, *ROOMS.get(here, ())))
    assert here in {"", *BOTTOM, *ROOMS}, f"{here} is not in the table"
    assert [name for name in reached(path, "reval_core") if part_of_the_library(name) not in allowed] == []


def test_the_table_has_no_circle() -> None:
    for table in (BOTTOM, ROOMS):
        assert set(table) >= {name for names in table.values() for name in names}
        done: list[str] = []
        while len(done) < len(table):
            ready = [name for name in table if name not in done and set(table[name]) <= set(done)]
            assert ready, f"{set(table) - set(done)} import each other"
            done += ready


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_nothing_is_unpickled_and_no_text_is_run_as_code(path: Path) -> None:
    assert reached(path, "pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal") == []
    for call in calls(path):
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        assert name not in ("eval", "exec", "compile", "__import__"), f"line {call.lineno}"
        called = ast.unparse(call.func)
        assert called not in ("torch.load", "torch.save", "yaml.load", "yaml.unsafe_load"), f"line {call.lineno}"
        for keyword in call.keywords:
            if keyword.arg in ("trust_remote_code", "allow_pickle"):
                assert ast.unparse(keyword.value) == "False", f"line {call.lineno}"
            assert not (keyword.arg == "shell" and ast.unparse(keyword.value) == "True"), f"line {call.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_is_about_one_idea(path: Path) -> None:
    limit = 200 if path.name == "objective.py" else 420
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines < limit
