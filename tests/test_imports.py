"""The directions of the rooms, read from the source: who may import whom, and what no product code does."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for room in ("reval_core", "tasks", "flows") for path in (ROOT / room).rglob("*.py"))
ROOMS = sorted(path.parent.name for path in (ROOT / "reval_core").glob("*/__init__.py"))
BOTTOM = ("config", "errors", "identity", "registry")


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
    assert {"learning", "policies", "problems", "rollouts", "store", "verification"} <= set(ROOMS)
    assert len(MODULES) > 50
    assert reached(ROOT / "reval_core" / "identity.py", "hashlib") == ["hashlib"]
    assert reached(ROOT / "reval_core" / "policies" / "materialise.py", "reval_core.learning")


@pytest.mark.parametrize("path", within("reval_core"), ids=named)
def test_the_library_knows_neither_services_nor_tasks(path: Path) -> None:
    assert reached(path, "prefect", "mlflow", "tasks", "flows") == []


@pytest.mark.parametrize("path", within("tasks"), ids=named)
def test_tasks_know_no_flow(path: Path) -> None:
    assert reached(path, "flows") == []


@pytest.mark.parametrize("path", within("reval_core", "learning"), ids=named)
def test_learning_knows_nothing_of_rollouts(path: Path) -> None:
    assert reached(path, "reval_core.rollouts", "reval_core.policies", "reval_core.store") == []


@pytest.mark.parametrize("path", within("reval_core", "rollouts"), ids=named)
def test_rollouts_know_nothing_of_learning(path: Path) -> None:
    assert reached(path, "reval_core.learning", "reval_core.policies", "reval_core.store") == []


@pytest.mark.parametrize("name", BOTTOM)
def test_the_bottom_imports_no_room(name: str) -> None:
    rooms = [f"reval_core.{room}" for room in ROOMS]
    assert reached(ROOT / "reval_core" / f"{name}.py", *rooms) == []
    above = {"config": ("errors", "identity"), "registry": ("errors",)}.get(name, ())
    others = [f"reval_core.{other}" for other in BOTTOM if other != name and other not in above]
    assert reached(ROOT / "reval_core" / f"{name}.py", *others) == []


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
