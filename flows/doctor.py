"""`reval doctor`: looks at everything a run stands on, and names the cure of each thing that is wrong.

    reval doctor            # a table; exit code 1 when something fails
    reval doctor --json     # the same for programs

Every check only looks: nothing is repaired or migrated, and nobody's lock is waited for longer than a second. Libraries
are imported inside the checks, so that a broken installation of one is a line of the table and not a traceback; Prefect
and MLflow are slow to import and are not imported at all. Environment variables are shown as "set" or "not set".
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import sqlite3
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.probes import address, constraint_lines, differing, keepers, named_process, silence
from reval_core.errors import RevalError, StoreError, StoreLocked
from reval_core.home import Home

if TYPE_CHECKING:
    import duckdb

Status = Literal["ok", "warning", "failure"]

SOURCE = Path(__file__).resolve().parents[1]
"""The checkout; for an installed wheel a folder without pyproject.toml and constraints."""
OLDEST_PYTHON = (3, 11)
PINNED = ("math-verify==0.9.0", "antlr4-python3-runtime==4.13.2")
"""Verdicts depend on these to the letter; pyproject.toml pins the same."""
LOW_DISK_GB, FULL_DISK_GB = 5.0, 1.0
LOCK_WAIT_S = 1.0
NEEDS_NO_PROCESS = (r"\frac{1}{2}", "0.5")
NEEDS_A_PROCESS = (r"\frac{1}{3}", r"\int_0^1 x^2\,dx")
SECRETS = ("HF_TOKEN", "PREFECT_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
VARIABLES = ("REVAL_HOME", "REVAL_DATA", "PREFECT_API_URL", "MLFLOW_TRACKING_URI", "CUDA_VISIBLE_DEVICES", *SECRETS)
CREATED = "`reval train` creates it; if runs were made before, set REVAL_HOME to their root."

_INSTALLATION = (ImportError, SyntaxError, AttributeError, TypeError, AssertionError)
_CRASHES = (*_INSTALLATION, RevalError, OSError, RuntimeError, ValueError, LookupError, sqlite3.Error)


@dataclass(frozen=True)
class Check:
    """What was looked at, how it stands, and in one sentence what to do about it (empty when it is ok)."""

    name: str
    status: Status
    found: str
    cure: str = ""


def diagnose(home: Home) -> list[Check]:
    """Every check, in the order in which things depend on each other; takes some seconds and creates nothing.

    Args:
        home: the root to look at; it need not exist.
    """
    return [replace(check, found=_without_secrets(check.found)) for name in CHECKS for check in _guarded(name, home)]


def exit_code(checks: Iterable[Check]) -> int:
    """1 when any check failed, else 0; warnings do not count."""
    return int(any(check.status == "failure" for check in checks))


def to_json(checks: Sequence[Check]) -> str:
    """A list of objects with the fields of `Check`."""
    return json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False)


def render(checks: Sequence[Check], console: Console) -> None:
    """Print a table of marks, findings and, for what is not ok, cures."""
    plain = console.options.ascii_only
    marks = {"ok": "ok" if plain else "✓", "warning": "!", "failure": "x" if plain else "✗"}
    styles = {"ok": "green", "warning": "yellow", "failure": "bold red"}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        finding = Text(check.found)
        if check.status != "ok":
            finding.append(f"\n{'->' if plain else '→'} {check.cure}", style="bold")
        table.add_row(Text(marks[check.status], style=styles[check.status]), Text(check.name), finding)
    console.print(table)
    counts = Counter(check.status for check in checks if check.status != "ok")
    said = [f"{count} {status}{'s' * (count > 1)}" for status, count in sorted(counts.items())]
    console.print(Text("\n" + (", ".join(said) or "Everything is in order.")))


def _guarded(name: str, home: Home) -> list[Check]:
    """The checks of one function; its own crash is a finding too."""
    try:
        return CHECKS[name](home)
    except _CRASHES as error:
        found = f"this check could not be made: {type(error).__name__}: {error}"
        return [Check(name, "failure", found, "Mend what the message names, or install ReVal afresh if it names code.")]


def _without_secrets(text: str) -> str:
    """The text of someone else's error may quote anything."""
    for value in (os.environ.get(name, "") for name in SECRETS):
        if len(value) >= 6:
            text = text.replace(value, "***")
    return text


# The machine and what is installed --------------------------------------------------------------------------------


def _python(_: Home) -> list[Check]:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] < OLDEST_PYTHON:
        return [Check("Python", "failure", found, "Install Python 3.11 or newer and ReVal into it.")]
    if sys.platform != "linux":
        return [Check("Python", "failure", f"{found} on {sys.platform}", "Use Linux: training needs its processes.")]
    return [Check("Python", "ok", found)]


def _dependencies(_: Home) -> list[Check]:
    pyproject = SOURCE / "pyproject.toml"
    if pyproject.is_file():
        wanted = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        wanted = importlib.metadata.requires("reval") or []
    unmet = differing(wanted, missing=True)
    if unmet:
        cure = "Install what is wanted: `pip install --upgrade -e .` in the checkout, or the wheel again."
        return [Check("dependencies", "failure", "; ".join(unmet), cure)]
    return [Check("dependencies", "ok", "every requirement is met")]


def _constraints(_: Home) -> list[Check]:
    """Compare with the file in ``constraints/`` that fits: the one from which the fewest packages differ."""
    unmet = {file: differing(constraint_lines(file), missing=False) for file in (SOURCE / "constraints").glob("*.txt")}
    if not unmet:
        found = f"no constraints file in {SOURCE}, so the installed versions cannot be compared with tested ones"
        cure = "An installed wheel has none, which is fine; in a checkout restore constraints/cpu.txt."
        return [Check("versions", "warning", found, cure)]
    file = min(sorted(unmet), key=lambda file: len(unmet[file]))
    name = f"constraints/{file.name}"
    if unmet[file]:
        found = f"{len(unmet[file])} differ from {name}: {'; '.join(unmet[file])}"
        cure = f"For the tested versions run `pip install -c {name} -e .` in the checkout."
        return [Check("versions", "warning", found, cure)]
    return [Check("versions", "ok", f"as in {name}")]


def _devices(_: Home) -> list[Check]:
    import torch

    threads = f"{torch.get_num_threads()} threads of torch {torch.__version__}, {os.cpu_count()} logical cores"
    checks = [Check("CPU", "ok", threads)]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(number)
            checks.append(Check(f"GPU {number}", "ok", f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB"))
    elif shutil.which("nvidia-smi"):
        found = f"an NVIDIA driver is installed, but torch {torch.__version__} finds no GPU that it can use"
        cure = "Install the torch build for the driver's CUDA version, or ignore this to train on the CPU."
        checks.append(Check("GPU", "warning", found, cure))
    else:
        checks.append(Check("GPU", "ok", "none; the CPU is used"))
    return checks


# The root and the store -------------------------------------------------------------------------------------------


def _disk(home: Home) -> list[Check]:
    free = shutil.disk_usage(_existing(home.root)).free / 1e9
    found = f"{free:.1f} GB free under {home.root}"
    if free < LOW_DISK_GB:
        cure = "Free disk space, or move the root to a larger disk and set REVAL_HOME to it."
        return [Check("disk", "failure" if free < FULL_DISK_GB else "warning", found, cure)]
    return [Check("disk", "ok", found)]


def _root(home: Home) -> list[Check]:
    folder = _existing(home.root)
    try:
        if folder == home.root:
            # really written: permission bits say yes to the superuser and on some network disks
            tempfile.TemporaryFile(dir=folder).close()
        elif not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"it does not exist, and {folder} is no folder that this user can write")
    except OSError as error:
        cure = "Give this user the right to write there, or set REVAL_HOME to another folder."
        return [Check("root", "failure", f"{home.root} cannot be written: {error}", cure)]
    if folder != home.root:
        return [Check("root", "warning", f"{home.root} does not exist yet", CREATED)]
    return [Check("root", "ok", f"{home.root} can be written")]


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _store(home: Home) -> list[Check]:
    import duckdb

    from reval_core.store import migrations
    from reval_core.store.connection import Connections

    if not home.database.exists():
        return [Check("store", "warning", f"no database at {home.database} yet", CREATED)]
    try:
        with Connections(home.database, lock_wait_s=LOCK_WAIT_S).read() as connection:
            schema = _schema(connection)
            readable = schema.status != "failure" and migrations.schema_version(connection) > 0
            work = [_leases(connection), _attempts(connection)] if readable else []
    except StoreLocked as error:
        named = re.search(r"PID (\d+)", str(error.__cause__))
        holder = named_process(int(named[1])) if named else "another program"
        cure = "Wait until its transaction is over, or close that program; nothing is lost."
        return [Check("database lock", "failure", f"{home.database} is held by {holder}", cure)]
    except (StoreError, duckdb.Error) as error:
        cure = "See that it can be read; else install the DuckDB that wrote it, or put back a copy of the file."
        return [Check("store", "failure", str(error), cure)]
    return [schema, *work, _lock(home)]


def _schema(connection: duckdb.DuckDBPyConnection) -> Check:
    import duckdb

    from reval_core.store import migrations

    version, shipped = migrations.schema_version(connection), max(migrations.available())
    found = f"opens with DuckDB {duckdb.__version__}; schema version {version}, this ReVal ships {shipped}"
    if version == 0:
        cure = "The next `reval train` makes the tables; see that REVAL_HOME is right and the file no other program's."
        return Check("store", "warning", f"{found}: nothing is in it yet", cure)
    if version > shipped:
        return Check("store", "failure", found, "Install the newer ReVal that wrote it; this one does not touch it.")
    try:
        stale = migrations.needs_migration(connection)
    except StoreError as error:
        return Check("store", "failure", str(error), "Use the ReVal version that created this database.")
    if stale:
        what = "its views are not those of this version" if version == shipped else "migrations are due"
        return Check("store", "warning", f"{found}; {what}", "The next `reval train` brings it up to date.")
    return Check("store", "ok", found)


def _leases(connection: duckdb.DuckDBPyConnection) -> Check:
    """Leases of processes that ended without giving them back do no harm; those of another host may."""
    from reval_core.process import ProcessIdentity

    sql = "SELECT pid, host, process_started, count(*) FROM store.leases WHERE pid <> 0 GROUP BY ALL ORDER BY host, pid"
    said: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for pid, host, started, count in connection.execute(sql).fetchall():
        said[ProcessIdentity(pid, host, started).is_alive()].append(f"{count} of process {pid} on {host}")
    parts = [f"held: {', '.join(said[True])}"] if said[True] else []
    if said[False]:
        parts.append(f"left by ended processes: {', '.join(said[False])} (harmless: the next start takes them over)")
    if said[None]:
        parts.append(f"of another host, not to be seen from here: {', '.join(said[None])}")
        cure = "Make sure that nothing works on this root on that host: a start here takes its leases over."
        return Check("leases", "warning", "; ".join(parts), cure)
    return Check("leases", "ok", "; ".join(parts) or "none held")


def _attempts(connection: duckdb.DuckDBPyConnection) -> Check:
    from reval_core.process import ProcessIdentity

    sql = "SELECT run_id, attempt, pid, host, process_started FROM store.attempts WHERE status = 'running' ORDER BY ALL"
    said: dict[bool, list[str]] = {True: [], False: []}
    for run_id, attempt, pid, host, started in connection.execute(sql).fetchall():
        gone = ProcessIdentity(pid, host, started).is_alive() is False
        said[gone].append(f"{run_id} attempt {attempt} (process {pid} on {host})")
    parts = [f"at work: {', '.join(said[False])}"] if said[False] else []
    if said[True]:
        parts.append(f"recorded as running, but the process is gone: {', '.join(said[True])}")
        cure = "Give the same `reval train` command again: it goes on where the run stopped and records the crash."
        return Check("attempts", "warning", "; ".join(parts), cure)
    return Check("attempts", "ok", "; ".join(parts) or "none at work")


def _lock(home: Home) -> Check:
    """A program that keeps the file open only to read does not stop this program, but it stops every commit."""
    holders = keepers(home.database)
    if not holders:
        return Check("database lock", "ok", "nobody keeps the database open")
    found = f"{home.database} is kept open by {', '.join(sorted(holders))}; until it is closed no run can commit"
    return Check("database lock", "warning", found, "Close it there; to read while a run writes, use `reval sql`.")


def _spool(home: Home) -> list[Check]:
    from reval_core.store import spool

    waiting = spool.kept(home.root / "spool")
    if waiting:
        found = f"{len(waiting)} parts that could not be committed wait in {home.root / 'spool'}"
        return [Check("spool", "warning", found, "Keep the folder: the next `reval train` takes them in.")]
    return [Check("spool", "ok", "no parts wait")]


# The services and the verifier ------------------------------------------------------------------------------------


def _prefect(home: Home) -> list[Check]:
    from tasks.served import served_at

    version = importlib.metadata.version("prefect")
    if importlib.util.find_spec("prefect") is None:
        return [Check("Prefect", "failure", f"{version} is recorded, but its code is missing", "Install it again.")]
    served = served_at(home)
    url = os.environ.get("PREFECT_API_URL") or (served.api if served else None)
    if not url:
        found = f"{version}; each run starts its own server: neither PREFECT_API_URL nor `reval serve` has one"
        return [Check("Prefect", "ok", found)]
    cure = "Start the server, set PREFECT_API_URL to its API (it ends in /api), or unset it to need none."
    return [_server("Prefect", f"{version}; the API at {address(url)}", url, cure)]


def _mlflow(home: Home) -> list[Check]:
    version = importlib.metadata.version("mlflow")
    uri = os.environ.get("MLFLOW_TRACKING_URI") or home.mlflow_uri
    if uri.startswith("sqlite:///"):
        return [_mlflow_file(version, Path(uri.removeprefix("sqlite:///").split("?")[0]))]
    if not uri.startswith(("http://", "https://")):
        return [Check("MLflow", "ok", f"{version}; tracks to {address(uri)}, which is not tried here")]
    cure = "Start the tracking server, or unset MLFLOW_TRACKING_URI to track to a file under the root."
    return [_server("MLflow", f"{version}; the server at {address(uri)}", uri, cure)]


def _server(name: str, what: str, url: str, cure: str) -> Check:
    why = silence(url, "/health")
    return Check(name, "failure", f"{what} {why}", cure) if why else Check(name, "ok", f"{what} answers")


def _mlflow_file(version: str, path: Path) -> Check:
    found = f"{version}; tracks to {path}"
    if not path.exists():
        return Check("MLflow", "ok", f"{found}, which the first run creates")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=LOCK_WAIT_S)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        cure = "Put back a copy of the file, or move it away so that a new one is made."
        return Check("MLflow", "failure", f"{found}, which does not open: {error}", cure)
    return Check("MLflow", "ok", f"{found}, which opens")


def _verifier(_: Home) -> list[Check]:
    from reval_core.verification import Verifier

    unmet = differing(PINNED, missing=True)
    if unmet:
        cure = f"Install the pinned versions, others give other verdicts: `pip install {' '.join(PINNED)}`."
        return [Check("verifier", "failure", "; ".join(unmet), cure)]
    with Verifier(workers=1, timeout_s=5.0) as verifier:
        simple = verifier.grade(*NEEDS_NO_PROCESS)
        started = verifier.pool.started
        symbolic = verifier.grade(*NEEDS_A_PROCESS)
    if not simple.correct or started or not symbolic.correct:
        found = f"a simple grade: {simple.status}; a symbolic one: {symbolic.status} ({symbolic.details})"
        return [Check("verifier", "failure", found, "Free memory (a worker takes up to 2 GB) and try again.")]
    return [Check("verifier", "ok", f"{', '.join(PINNED)}; a simple and a symbolic grade work")]


def _environment(_: Home) -> list[Check]:
    said = ", ".join(f"{name} {'set' if os.environ.get(name) else 'not set'}" for name in VARIABLES)
    return [Check("environment", "ok", said)]


CHECKS: dict[str, Callable[[Home], list[Check]]] = {
    "Python": _python,
    "dependencies": _dependencies,
    "versions": _constraints,
    "devices": _devices,
    "disk": _disk,
    "root": _root,
    "store": _store,
    "spool": _spool,
    "Prefect": _prefect,
    "MLflow": _mlflow,
    "verifier": _verifier,
    "environment": _environment,
}
"""What `diagnose` calls, in order; the name stands in the table when the check itself crashes."""
