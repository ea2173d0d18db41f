"""`reval doctor`: each thing that can be wrong is found, named, and given a cure; secrets are never shown."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
from rich.console import Console

from flows import doctor, probes
from flows.doctor import Check, diagnose, exit_code, render, to_json
from flows.tries import in_fresh_processes
from reval_core.errors import RevalError
from reval_core.home import Home
from reval_core.process import ProcessIdentity
from reval_core.store import Store, runs, stages
from reval_core.upkeep import LimitsConfig
from tasks.served import Served, announce

ENDED = ProcessIdentity(os.getpid(), socket.gethostname(), process_started=1.0)
"""This process's number, but of a process that started in 1970."""
ELSEWHERE = ProcessIdentity(7, "another-host", process_started=1.0)
CANARY = "hf_canary_4711_do_not_show"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in doctor.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(doctor, "LOCK_WAIT_S", 0.1)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A root with a database of this version and nothing in it."""
    home = Home(tmp_path / "root")
    Store(home.database).prepare()
    return home


def only(checks: list[Check], name: str) -> Check:
    (check,) = [check for check in checks if check.name == name]
    return check


@contextmanager
def open_elsewhere(path: Path, *, read_only: bool) -> Iterator[int]:
    """Another process that keeps the database open; its process id."""
    code = (
        f"import duckdb; c = duckdb.connect({str(path)!r}, read_only={read_only}); print('open', flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    try:
        yield process.pid
    finally:
        process.communicate("\n")


@contextmanager
def server(code: int) -> Iterator[str]:
    """An HTTP server that answers every request with one status; its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


# The whole --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_healthy_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50e9))
    before = sorted(path.name for path in home.root.iterdir())
    checks = diagnose(home)
    wrong = [check for check in checks if check.status != "ok" and check.name not in ("versions", "GPU")]
    assert wrong == []
    assert exit_code(checks) == 0
    assert {"store", "leases", "attempts", "database lock", "spool", "Prefect", "MLflow", "verifier"} <= {
        check.name for check in checks
    }
    assert duckdb.__version__ in only(checks, "store").found
    assert importlib.metadata.version("prefect") in only(checks, "Prefect").found
    assert sorted(path.name for path in home.root.iterdir()) == before


def test_prefect_and_mlflow_are_not_imported() -> None:
    names = "_dependencies", "_constraints", "_prefect", "_mlflow", "_store"
    code = (
        "import sys; from pathlib import Path; from flows import doctor; from reval_core.home import Home\n"
        f"for name in {names}: getattr(doctor, name)(Home(Path('nowhere')))\n"
        "print([name for name in ('prefect', 'mlflow', 'torch') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(doctor.SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_home_is_a_warning_and_is_not_created(tmp_path: Path) -> None:
    home = Home(tmp_path / "not" / "yet")
    (root,), (store,) = doctor._root(home), doctor._store(home)
    assert (root.status, store.status) == ("warning", "warning")
    assert "`reval train` creates it" in root.cure
    assert "`reval train` creates it" in store.cure
    assert doctor._disk(home)[0].found.endswith(f"under {home.root}")
    assert doctor._spool(home)[0].status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_crash_of_a_check_is_a_failure_with_its_text(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_: Home) -> list[Check]:
        raise ImportError(f"libcudart.so.13 is missing, asked with {CANARY}")

    monkeypatch.setattr(doctor, "CHECKS", {"devices": crash, "environment": doctor._environment})
    monkeypatch.setenv("HF_TOKEN", CANARY)
    failed, after = diagnose(home)
    assert (failed.name, failed.status) == ("devices", "failure")
    assert "ImportError: libcudart.so.13 is missing, asked with ***" in failed.found
    assert failed.cure
    assert after.name == "environment"


# The machine and what is installed --------------------------------------------------------------------------------


def test_old_python_fails(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._python(home)[0].status == "ok"
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    (check,) = doctor._python(home)
    assert check.status == "failure"
    assert "3.11" in check.cure


def test_another_system_than_linux_fails(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    (check,) = doctor._python(home)
    assert check.status == "failure"
    assert "Linux" in check.cure
    with pytest.raises(RevalError, match="ReVal trains on Linux"):
        in_fresh_processes(home, LimitsConfig())


def test_wrong_versions_are_listed(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy, rich = importlib.metadata.version("numpy"), importlib.metadata.version("rich")
    folder = tmp_path / "constraints"
    folder.mkdir()
    (folder / "cpu.txt").write_text(
        f"# tested together\n--index-url https://example.org\nnumpy==0.0.1  # old\nrich=={rich}\nno-such-package==1\n"
    )
    monkeypatch.setattr(doctor, "SOURCE", tmp_path)
    (check,) = doctor._constraints(home)
    assert check.status == "warning"
    assert check.found == f"1 differ from constraints/cpu.txt: numpy {numpy}, wanted ==0.0.1"
    assert "-c constraints/cpu.txt" in check.cure

    (folder / "gpu.txt").write_text(f"numpy=={numpy} ; python_version >= '3'\ntorch==0.1 ; python_version < '3'\n")
    (check,) = doctor._constraints(home)
    assert (check.status, check.found) == ("ok", "as in constraints/gpu.txt")


def test_no_constraints_is_a_warning(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SOURCE", tmp_path)
    assert doctor._constraints(home)[0].status == "warning"


def test_unmet_requirements_fail(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._dependencies(home)[0].status == "ok"
    wanted = '["numpy>=999", "rich>=1", "no-such-package>=2", "no-such-extra>=1; extra == \'gpu\'"]'
    (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = {wanted}\n")
    monkeypatch.setattr(doctor, "SOURCE", tmp_path)
    (check,) = doctor._dependencies(home)
    assert check.status == "failure"
    numpy = importlib.metadata.version("numpy")
    assert check.found == f"numpy {numpy}, wanted >=999; no-such-package is not installed, wanted >=2"


def test_pins_are_those_of_the_project() -> None:
    project = tomllib.loads((doctor.SOURCE / "pyproject.toml").read_text())["project"]
    assert set(doctor.PINNED) <= set(project["dependencies"])


def test_another_antlr_fails(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "4.9.3" if "antlr" in name else version(name))
    (check,) = doctor._verifier(home)
    assert (check.status, check.found) == ("failure", "antlr4-python3-runtime 4.9.3, wanted ==4.13.2")
    assert "antlr4-python3-runtime==4.13.2" in check.cure


@pytest.mark.slow
def test_a_simple_grade_that_starts_a_process_fails(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NEEDS_NO_PROCESS", doctor.NEEDS_A_PROCESS)
    assert doctor._verifier(home)[0].status == "failure"


def test_a_wrong_verdict_fails(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NEEDS_A_PROCESS", ("2", "3"))
    (check,) = doctor._verifier(home)
    assert check.status == "failure"
    assert "a symbolic one: incorrect" in check.found


def test_every_gpu_is_listed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda n: SimpleNamespace(name=f"card {n}", total_memory=(n + 1) * 2**30)
    )
    cpu, first, second = doctor._devices(home)
    assert f"{torch.get_num_threads()} threads" in cpu.found
    assert (first.name, first.found) == ("GPU 0", "card 0, 1.0 GiB")
    assert (second.name, second.found) == ("GPU 1", "card 1, 2.0 GiB")


def test_a_driver_without_a_usable_gpu_is_a_warning(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert only(doctor._devices(home), "GPU").status == "warning"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert only(doctor._devices(home), "GPU").status == "ok"


# The root and the store -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free_gb", "status"), [(5.1, "ok"), (4.9, "warning"), (1.1, "warning"), (0.9, "failure")])
def test_low_disk(home: Home, monkeypatch: pytest.MonkeyPatch, free_gb: float, status: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_gb * 1e9))
    (check,) = doctor._disk(home)
    assert check.status == status
    assert check.found.startswith(f"{free_gb} GB free")
    assert bool(check.cure) == (status != "ok")


def test_a_root_that_cannot_be_written_fails(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    assert doctor._root(Home(file))[0].status == "failure"
    assert doctor._root(Home(file / "below"))[0].status == "failure"

    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    (check,) = doctor._root(home)
    assert check.status == "failure"
    assert "Read-only file system" in check.found


def test_a_newer_schema_fails(home: Home) -> None:
    with Store(home.database).write() as connection:
        connection.execute("INSERT INTO store.schema_migrations VALUES (999, '999_later', 'x', now()::TIMESTAMP)")
    check = only(doctor._store(home), "store")
    assert check.status == "failure"
    assert "schema version 999" in check.found
    assert "newer ReVal" in check.cure


def test_an_edited_migration_fails(home: Home) -> None:
    with Store(home.database).write() as connection:
        connection.execute("UPDATE store.schema_migrations SET checksum = 'other' WHERE version = 1")
    check = only(doctor._store(home), "store")
    assert check.status == "failure"
    assert "another text" in check.found


def test_views_of_another_version_are_a_warning(home: Home) -> None:
    with Store(home.database).write() as connection:
        connection.execute("UPDATE store.schema_migrations SET checksum = 'other' WHERE version = 0")
    assert only(doctor._store(home), "store").status == "warning"
    Store(home.database).prepare()
    assert only(doctor._store(home), "store").status == "ok"


def test_an_empty_database_is_a_warning(tmp_path: Path) -> None:
    home = Home(tmp_path)
    duckdb.connect(home.database).close()
    checks = doctor._store(home)
    assert only(checks, "store").status == "warning"
    assert "schema version 0" in only(checks, "store").found


def test_a_file_that_is_no_database_fails(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.database.write_bytes(b"not a database" * 1000)
    (check,) = doctor._store(home)
    assert check.status == "failure"
    assert str(home.database) in check.found


@pytest.mark.slow
def test_a_locked_database_names_the_process(home: Home) -> None:
    with open_elsewhere(home.database, read_only=False) as pid:
        (check,) = doctor._store(home)
    assert (check.name, check.status) == ("database lock", "failure")
    assert re.search(rf"held by process {pid} \(\S*python\S*\)$", check.found)
    assert check.cure
    assert only(doctor._store(home), "database lock").status == "ok"


@pytest.mark.slow
def test_a_reader_that_blocks_commits_is_named(home: Home) -> None:
    with open_elsewhere(home.database, read_only=True) as pid:
        check = only(doctor._store(home), "database lock")
    assert check.status == "warning"
    assert f"process {pid} (" in check.found


def test_a_program_that_has_it_open_for_moments_is_no_keeper(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PAUSES_S", (0.0, 0.0, 0.0))
    looks = iter([{"process 1 (python)"}, {"process 1 (python)"}, set()])
    monkeypatch.setattr(probes, "_others_with", lambda _: next(looks))
    assert probes.keepers(home.database) == set()


def test_leases_of_living_and_ended_processes(home: Home) -> None:
    store, me = Store(home.database), ProcessIdentity.mine()
    assert only(doctor._store(home), "leases").found == "none held"
    with store.write() as connection:
        for key, process in [("a", me), ("b", me), ("c", ENDED)]:
            stages.take_lease(connection, key, process)
        stages.end_lease(connection, stages.take_lease(connection, "given back", me))
    check = only(doctor._store(home), "leases")
    host = socket.gethostname()
    assert check.status == "ok"
    assert f"held: 2 of process {me.pid} on {host};" in check.found
    assert f"ended processes: 1 of process {ENDED.pid} on {host} (harmless: the next start takes them" in check.found

    with store.write() as connection:
        stages.take_lease(connection, "d", ELSEWHERE)
    check = only(doctor._store(home), "leases")
    assert check.status == "warning"
    assert "1 of process 7 on another-host" in check.found


def test_running_attempts_whose_process_is_gone(home: Home) -> None:
    store = Store(home.database)
    with store.write() as connection:
        for run_id, process in [("lives-1", ProcessIdentity.mine()), ("gone-2", ENDED)]:
            runs.start_attempt(
                connection, run_id, process, git_commit=None, versions={}, device="cpu", flow_run_id=None
            )
    check = only(doctor._store(home), "attempts")
    assert check.status == "warning"
    assert "at work: lives-1 attempt 1" in check.found
    assert "the process is gone: gone-2 attempt 1" in check.found
    with store.write() as connection:
        runs.end_attempt(connection, "gone-2", 1, "failed")
    assert only(doctor._store(home), "attempts").status == "ok"


def test_waiting_parts_are_counted(home: Home) -> None:
    spool = Store(home.database).spool
    spool.mkdir()
    for name in ("a.arrow", "b.arrow", "half.tmp"):
        (spool / name).touch()
    (check,) = doctor._spool(home)
    assert check.status == "warning"
    assert check.found.startswith("2 parts")


# Services ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "status"), [(200, "ok"), (401, "ok"), (404, "failure"), (500, "failure")])
def test_prefect_server(home: Home, monkeypatch: pytest.MonkeyPatch, code: int, status: str) -> None:
    with server(code) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        (check,) = doctor._prefect(home)
    assert check.status == status
    assert f"{url}/api" in check.found
    assert ("HTTP" in check.found) == (status == "failure")


def test_the_server_of_reval_serve_is_found_by_the_root(home: Home) -> None:
    (check,) = doctor._prefect(home)
    assert check.status == "ok" and "neither PREFECT_API_URL nor `reval serve` has one" in check.found
    with server(200) as url:
        announce(home, Served(f"{url}/api", url, None, ProcessIdentity.mine()))
        (check,) = doctor._prefect(home)
    assert check.status == "ok" and f"the API at {url}/api" in check.found


def test_servers_that_do_not_answer(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "ANSWER_WITHIN_S", 0.2)
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{closed_port()}/api")
    (prefect,) = doctor._prefect(home)
    assert prefect.status == "failure"
    assert "refused" in prefect.found
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        (mlflow,) = doctor._mlflow(home)
    assert mlflow.status == "failure"
    assert "unset MLFLOW_TRACKING_URI" in mlflow.cure


def test_mlflow_file(home: Home) -> None:
    assert "the first run creates" in doctor._mlflow(home)[0].found
    path = home.root / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE runs (id)")
    connection.close()
    (check,) = doctor._mlflow(home)
    assert check.status == "ok"
    assert check.found.endswith(f"{path}, which opens")
    path.write_bytes(b"not a database" * 1000)
    (check,) = doctor._mlflow(home)
    assert check.status == "failure"
    assert "not a database" in check.found


# Secrets and what is shown ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", [CANARY, f"a/{CANARY}?b#{CANARY}@{CANARY}"])
def test_no_secret_is_shown(home: Home, monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    for name in doctor.SECRETS:
        monkeypatch.setenv(name, CANARY)
    url = f"://me:{password}@127.0.0.1:{closed_port()}/api?token={CANARY}"
    monkeypatch.setenv("PREFECT_API_URL", f"http{url}")
    quick = {name: check for name, check in doctor.CHECKS.items() if name not in ("devices", "verifier")}
    monkeypatch.setattr(doctor, "CHECKS", quick)
    for scheme in ("http", "postgresql"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}{url}")
        checks = diagnose(home)
        console = Console(file=StringIO(), record=True, width=200)
        render(checks, console)
        assert "canary" not in to_json(checks) + console.export_text()
        assert f"{scheme}://127.0.0.1" in only(checks, "MLflow").found
    assert "HF_TOKEN set, PREFECT_API_KEY set" in only(checks, "environment").found
    assert "REVAL_HOME not set" in only(checks, "environment").found


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:secret@host:4200/api/", "http://host:4200/api"),
        ("https://host/api#secret", "https://host/api"),
        ("postgresql+psycopg2://host/db?password=secret", "postgresql+psycopg2://host/db"),
        ("databricks", "databricks"),
        ("file:///data/mlruns", "file:///data/mlruns"),
    ],
)
def test_what_is_shown_of_an_address(url: str, shown: str) -> None:
    assert probes.address(url) == shown


CHECKS = [
    Check("Python", "ok", "3.11.7"),
    Check("disk", "warning", "4.0 GB free under /a/[b]", "Free disk space."),
    Check("store", "failure", "zu alt – or not", "Install the newer ReVal."),
]


def test_json_gives_the_same_checks_back() -> None:
    assert [Check(**fields) for fields in json.loads(to_json(CHECKS))] == CHECKS


def test_exit_codes() -> None:
    assert exit_code([]) == 0
    assert exit_code(CHECKS[:2]) == 0
    assert exit_code(CHECKS) == 1


def test_rendering_shows_cures_of_what_is_not_ok() -> None:
    console = Console(file=StringIO(), record=True, width=80)
    render(CHECKS, console)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert [line.split()[-1] for line in lines if line] == [
        "3.11.7",
        "/a/[b]",
        "space.",
        "not",
        "ReVal.",
        "warning",
    ]
    assert lines[-1] == "1 failure, 1 warning"
    console = Console(file=StringIO(), record=True, width=80)
    render(CHECKS[:1], console)
    assert console.export_text().rstrip().endswith("Everything is in order.")
