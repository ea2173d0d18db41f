"""The documentation holds: names exist, links lead somewhere, tables are up to date, examples work."""

import ast
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest

from reval_core.config import EngineConfig, ObjectiveConfig
from reval_core.config_files import known_keys
from reval_core.config_replay import ReplayConfig
from reval_core.evaluation.metrics import summarise
from reval_core.health import HealthConfig
from reval_core.learning.objectives import check
from reval_core.problems.problem import Problem, ask
from reval_core.rollouts import SampleRequest, SamplingSettings, make_engine
from reval_core.store import Store, replay
from reval_core.store import statements as sql
from reval_core.store.draws import Window, generator
from reval_core.verification import Grader
from tasks.health import MEASURED
from tasks.track import NOT_METRICS

ROOT = Path(__file__).parents[1]
PAGES = (
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
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


def program(name: str) -> ModuleType:
    """A program beside the pages, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_tables_are_those_of_the_fields() -> None:
    generator, written = program("make_configuration"), text_of("docs/configuration.md")
    assert written == generator.page(written), "refresh it: python docs/make_configuration.py"
    assert set(generator.UNITS) <= set(known_keys())
    sections = {key.rsplit(".", 1)[0] for key in known_keys() if "." in key}
    for key in set(known_keys()) - sections:
        assert f"| `{key}` |" in written
    inside = re.findall(r"^\| `evaluation\.files\.\w+` \|.*", written, re.MULTILINE)
    assert [row for row in inside if "| no |" not in row] == []  # evaluation.files as a whole is no part of identity
    assert inside


@pytest.mark.parametrize("page", ["schema.md", "commands.md"])
def test_the_reference_is_that_of_the_code(page: str) -> None:
    assert text_of(f"docs/{page}") == program("make_reference").PAGES[page](), (
        "refresh it: python docs/make_reference.py"
    )


def test_every_table_and_column_says_what_it_is() -> None:
    rows = re.findall(r"^\| `\w+` \|.*", text_of("docs/schema.md"), re.MULTILINE)
    assert len(rows) > 300
    assert [row for row in rows if row.endswith("|  |")] == []


def logged_metrics(store: Store) -> set[str]:
    """Names under which a round is logged to MLflow, those of the health rules, and those of evaluations."""
    with store.read() as connection:
        told = sql.table(connection, "health", "figures", run_id="none", first=0, last=0).schema
    numbers = {column.name for column in told if pa.types.is_integer(column.type) or pa.types.is_floating(column.type)}
    beside = {"all_wrong_share", "engine_mismatch"}  # health.measured adds them
    right = [[True, False]]
    estimated = {name.replace("@2", "_at_k") for name in summarise(right, [["1", "2"]], 2)} | {"right_by_right_steps"}
    return (numbers - NOT_METRICS) | beside | set(HealthConfig().rules()) | estimated


def test_the_page_of_metrics_has_every_logged_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "reval.duckdb")
    store.prepare()
    logged = logged_metrics(store)
    assert logged >= {"loss", "accuracy", "residual_spread", "seconds_learn", "free_disk_gb", "maj_at_k", *MEASURED}
    explained = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text_of("docs/metrics.md"), re.MULTILINE)
    assert logged - {name.strip("`") for cell in explained for name in cell.split(", ")} == set()


def test_the_line_of_a_round_is_explained() -> None:
    (shown,) = re.findall(r"^iteration +[0-9].*", text_of("docs/metrics.md"), re.MULTILINE)
    words = re.findall(r"[a-z/]{3,}", shown)
    assert words == ["iteration", "accuracy", "residual", "staleness", "rounds/min"]
    assert [word for word in words if f"\n| {word} |" not in text_of("docs/metrics.md")] == []


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program that builds the site, on a repository of three files."""
    make_site = program("make_site")
    (tmp_path / "docs" / "more").mkdir(parents=True)
    (tmp_path / "docs" / "index.md").write_text("# One\n\n[b](more/b.md#two), `$x`, $x_1$", encoding="utf-8")
    (tmp_path / "docs" / "more" / "b.md").write_text(
        "[guide](../../CONTRIBUTING.md), [the file](../../mkdocs.yml)\n```\n[no](link.md)\n```\n", encoding="utf-8"
    )
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        (tmp_path / name).write_text("[one](docs/index.md)", encoding="utf-8")
    nav = "nav: [index.md, {More: [more/b.md]}, contributing.md, changelog.md]"
    (tmp_path / "mkdocs.yml").write_text(nav, encoding="utf-8")
    monkeypatch.setattr(make_site, "ROOT", tmp_path)
    monkeypatch.setattr(make_site, "LAID_OUT", tmp_path / "laid out")
    return make_site


def test_a_link_out_of_the_pages_becomes_a_path_in_words(site: ModuleType) -> None:
    site.lay_out(site.sources())
    text = (site.LAID_OUT / "more" / "b.md").read_text(encoding="utf-8")
    assert text.startswith("[guide](../contributing.md), the file (`mkdocs.yml`)\n")
    assert "[no](link.md)" in text
    assert (site.LAID_OUT / "contributing.md").read_text(encoding="utf-8") == "[one](index.md)"


def test_formulas_outside_of_code_become_mathml(site: ModuleType) -> None:
    site.lay_out(site.sources())
    text = (site.LAID_OUT / "index.md").read_text(encoding="utf-8")
    assert "`$x`, <span><math" in text
    assert "<msub>" in text


def test_a_page_without_a_place_and_a_link_to_nothing_are_errors(site: ModuleType) -> None:
    (site.ROOT / "docs" / "lost.md").write_text("[x](gone.md)", encoding="utf-8")
    with pytest.raises(site.BrokenSite) as refused:
        site.lay_out(site.sources())
    assert str(refused.value).splitlines() == [
        "mkdocs.yml: nav has no entry for lost.md",
        "docs/lost.md: gone.md leads nowhere",
    ]


def test_rendered_links_are_followed(site: ModuleType, tmp_path: Path) -> None:
    html = '<h1 id="a"></h1><a href="b.html#there"></a><a href="b.html#gone"></a><a href="c.html"></a><a href="#a"></a>'
    (tmp_path / "index.html").write_text(html + '<script src="https://elsewhere.org/x.js"></script>', encoding="utf-8")
    (tmp_path / "b.html").write_text(
        '<p id="there"><a href="https://elsewhere.org">is a link</a></p>', encoding="utf-8"
    )
    assert list(site.follow(tmp_path)) == [
        "index.html: b.html#gone leads to no heading",
        "index.html: c.html leads to no file",
        "index.html: would fetch https://elsewhere.org/x.js from elsewhere",
    ]


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


def test_the_draw_of_the_guide_works(own_modules: Path) -> None:
    how = ReplayConfig(draw="my_draws:newest", draw_args={"rounds": 2})
    replay.probe(how)
    window = Window(np.array([3, 4, 5]), np.array([2, 2, 2]))
    drawn = replay.strategy(how)(window, 3, generator(0, 5, 1), iteration=5, rounds=2)
    assert len(set(drawn.places.tolist())) == 3
    assert min(drawn.places) >= 2
    assert drawn.weights.tolist() == [1.0, 1.0, 1.0]


def test_the_query_of_the_guide_works(tmp_path: Path) -> None:
    store = Store(tmp_path / "reval.duckdb")
    store.prepare()
    (query,) = examples("sql")
    assert store.query(query.strip(), run=None).column_names == ["iteration", "response_tokens_mean"]
