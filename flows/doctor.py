"""`reval doctor`: looks at everything a run stands on, and names the cure of each thing that is wrong.

    reval doctor            # a table; exit code 1 when something fails
    reval doctor --json     # the same for programs

Every check only looks: nothing is repaired, migrated or started for longer than one grade takes. Libraries are imported
inside the checks, so that a broken installation of one of them is a line of the table and not a traceback; Prefect and
MLflow are slow to import and are not imported at all. Of environment variables only "set" or "not set" is shown.
"""

from __future__ import annotations

import http.client
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
import threading
import tomllib
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reval_core.errors import RevalError, StoreError, StoreLocked
from reval_core.home import Home

if TYPE_CHECKING:
    import duckdb

Status = Literal["ok", "warning", "failure"]

SOURCE = Path(__file__).resolve().parents[1]
"""The checkout; in an installed wheel a folder without pyproject.toml and constraints."""
OLDEST_PYTHON = (3, 11)
PINNED = ("math-verify==0.9.0", "antlr4-python3-runtime==4.13.2")
"""Verdicts depend on these to the letter; pyproject.toml pins the same."""
LOW_DISK_GB, FULL_DISK_GB = 5.0, 1.0
LOCK_WAIT_S = 1.0
ANSWER_WITHIN_S = 2.0
NEEDS_NO_PROCESS = (r"\frac{1}{2}", "0.5")
NEEDS_A_PROCESS = (r"\log 8", r"3\log 2")
SECRETS = ("HF_TOKEN", "PREFECT_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
VARIABLES = ("REVAL_HOME", "REVAL_DATA", "PREFECT_API_URL", "MLFLOW_TRACKING_URI", "CUDA_VISIBLE_DEVICES", *SECRETS)

_CRASHES = (
    RevalError,
    ImportError,
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    SyntaxError,
    sqlite3.Error,
)


@dataclass(frozen=True)
class Check:
    """What was looked at, how it stands, and in one sentence what to do about it (empty when it is ok)."""

    name: str
    status: Status
    found: str
    cure: str = ""


def diagnose(home: Home) -> list[Check]:
    """Every check in the order in which things depend on each other; takes some seconds, creates nothing.

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
    counts = Counter(check.status for check in checks)
    said = [
        f"{counts[status]} {status}{'s' * (counts[status] > 1)}" for status in ("failure", "warning") if counts[status]
    ]
    console.print(Text("\n" + (", ".join(said) if said else "Everything is in order.")))


def _guarded(name: str, home: Home) -> list[Check]:
    """The checks of one function; its own crash is a finding too."""
    try:
        return CHECKS[name](home)
    except _CRASHES as error:
        found = f"this check could not be made: {type(error).__name__}: {error}"
        return [Check(name, "failure", found, "Mend what the message names, or install ReVal afresh if it names code.")]


def _without_secrets(text: str) -> str:
    for value in (os.environ.get(name, "") for name in SECRETS):
        if len(value) >= 6:
            text = text.replace(value, "***")
    return text


# The machine and what is installed --------------------------------------------------------------------------------


def _python(_: Home) -> list[Check]:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] < OLDEST_PYTHON:
        return [Check("Python", "failure", found, "Install Python 3.11 or newer and ReVal into it.")]
    return [Check("Python", "ok", found)]


def _dependencies(_: Home) -> list[Check]:
    pyproject = SOURCE / "pyproject.toml"
    if pyproject.is_file():
        wanted = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        wanted = importlib.metadata.requires("reval") or []
    differing = _differing(wanted, missing=True)
    if differing:
        cure = "Install the versions that ReVal needs: `pip install --upgrade -e .`, or the wheel again."
        return [Check("dependencies", "failure", "; ".join(differing), cure)]
    return [Check("dependencies", "ok", f"{len(wanted)} requirements are met")]


def _constraints(_: Home) -> list[Check]:
    """Compare with the file in ``constraints/`` that fits: the one from which the fewest packages differ."""
    files = sorted((SOURCE / "constraints").glob("*.txt"))
    if not files:
        found = f"no constraints file in {SOURCE}, so the installed versions cannot be compared with tested ones"
        cure = "Nothing to do for an installed wheel; a checkout has constraints/cpu.txt."
        return [Check("versions", "warning", found, cure)]
    compared = {file: _differing(_lines(file), missing=False) for file in files}
    file = min(files, key=lambda file: len(compared[file]))
    name = f"constraints/{file.name}"
    if compared[file]:
        found = f"{len(compared[file])} differ from {name}: {'; '.join(compared[file])}"
        cure = f"To get the tested versions, run `pip install -c {name} -e .` in the checkout."
        return [Check("versions", "warning", found, cure)]
    return [Check("versions", "ok", f"as in {name}")]


def _lines(file: Path) -> list[str]:
    """The requirements of a constraints file, without comments, options and hashes."""
    lines = [re.split(r"\s#|\s--hash|\\$", line)[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def _differing(requirements: Iterable[str], *, missing: bool) -> list[str]:
    """``torch 2.9.0, wanted >=2.11`` for each requirement that is not met; absent packages count if ``missing``."""
    from packaging.requirements import Requirement

    differing = []
    for wanted in map(Requirement, requirements):
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            if missing:
                differing.append(f"{wanted.name} is not installed, wanted {wanted.specifier or 'any version'}")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            differing.append(f"{wanted.name} {version}, wanted {wanted.specifier}")
    return differing


def _devices(_: Home) -> list[Check]:
    import torch

    cpu = f"{torch.get_num_threads()} threads of torch {torch.__version__}, {os.cpu_count()} logical cores"
    checks = [Check("CPU", "ok", cpu)]
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


# The root ---------------------------------------------------------------------------------------------------------


def _disk(home: Home) -> list[Check]:
    free = shutil.disk_usage(_existing(home.root)).free / 1e9
    found = f"{free:.1f} GB free under {home.root}"
    cure = "Free disk space, or move the root to a larger disk and set REVAL_HOME to it."
    if free < LOW_DISK_GB:
        return [Check("disk", "failure" if free < FULL_DISK_GB else "warning", found, cure)]
    return [Check("disk", "ok", found)]


def _root(home: Home) -> list[Check]:
    folder = _existing(home.root)
    try:
        # written in truth, not asked of the permission bits: those say yes to the superuser and on some network disks
        if folder == home.root:
            tempfile.TemporaryFile(dir=folder).close()
        elif not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"it does not exist, and {folder} is no folder that this user can write")
    except OSError as error:
        cure = "Give this user the right to write there, or set REVAL_HOME to another folder."
        return [Check("root", "failure", f"{home.root} cannot be written: {error}", cure)]
    if folder != home.root:
        cure = "`reval train` creates it; if runs were made before, set REVAL_HOME to their root."
        return [Check("root", "warning", f"{home.root} does not exist yet", cure)]
    return [Check("root", "ok", f"{home.root} can be written")]


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _store(home: Home) -> list[Check]:
    import duckdb

    from reval_core.store.connection import Connections

    if not home.database.exists():
        cure = "`reval train` creates it; if runs were made before, set REVAL_HOME to their root."
        return [Check("store", "warning", f"no database at {home.database} yet", cure)]
    try:
        with Connections(home.database, lock_wait_s=LOCK_WAIT_S).read() as connection:
            checks = [_schema(connection)]
            if checks[0].status != "failure" and _has_tables(connection):
                checks += [_leases(connection), _attempts(connection)]
    except StoreLocked as error:
        cure = "Wait until its transaction is over, or close that program; nothing is lost."
        return [Check("database lock", "failure", f"{home.database} is held by {_holder(error)}", cure)]
    except (StoreError, duckdb.Error) as error:
        cure = "Install the DuckDB version of the constraints file that wrote it, or put back a copy of the file."
        return [Check("store", "failure", str(error), cure)]
    return [*checks, _lock(home)]


def _schema(connection: duckdb.DuckDBPyConnection) -> Check:
    import duckdb

    from reval_core.store import migrations

    version, shipped = migrations.schema_version(connection), max(migrations.available())
    found = f"opens read-only with DuckDB {duckdb.__version__}; schema version {version}, this ReVal ships {shipped}"
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


def _has_tables(connection: duckdb.DuckDBPyConnection) -> bool:
    tables = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'store'")
    return {"leases", "attempts"} <= {row[0] for row in tables.fetchall()}


def _leases(connection: duckdb.DuckDBPyConnection) -> Check:
    """Rows of processes that ended without giving their lease back do no harm; those of other hosts may."""
    from reval_core.store.stages import ProcessIdentity

    sql = "SELECT pid, host, process_started, count(*) FROM store.leases WHERE pid <> 0 GROUP BY ALL ORDER BY host, pid"
    said: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for pid, host, started, count in connection.execute(sql).fetchall():
        said[ProcessIdentity(pid, host, started).is_alive()].append(f"{count} of process {pid} on {host}")
    parts = [f"held: {', '.join(said[True])}"] if said[True] else []
    if said[False]:
        parts.append(f"left by ended processes: {', '.join(said[False])} (harmless, the next start takes them over)")
    if said[None]:
        parts.append(f"of another host, not to be seen from here: {', '.join(said[None])}")
        cure = "Make sure that nothing works on this root on that host: a start here takes its leases over."
        return Check("leases", "warning", "; ".join(parts), cure)
    return Check("leases", "ok", "; ".join(parts) or "none held")


def _attempts(connection: duckdb.DuckDBPyConnection) -> Check:
    from reval_core.store.stages import ProcessIdentity

    sql = "SELECT run_id, attempt, pid, host, process_started FROM store.attempts WHERE status = 'running' ORDER BY ALL"
    working, gone = [], []
    for run_id, attempt, pid, host, started in connection.execute(sql).fetchall():
        alive = ProcessIdentity(pid, host, started).is_alive()
        text = f"{run_id} attempt {attempt} (process {pid} on {host})"
        (gone if alive is False else working).append(text)
    parts = [f"at work: {', '.join(working)}"] if working else []
    if gone:
        parts.append(f"recorded as running, but the process is gone: {', '.join(gone)}")
        cure = "Give the same `reval train` command again: it goes on where the run stopped and records the crash."
        return Check("attempts", "warning", "; ".join(parts), cure)
    return Check("attempts", "ok", "; ".join(parts) or "none at work")


def _lock(home: Home) -> Check:
    """A program that keeps the file open only for reading does not stop `reval doctor`, but it stops every commit."""
    holders = _others_with(home.database)
    if not holders:
        return Check("database lock", "ok", "nobody holds the database")
    found = f"{home.database} is open in {', '.join(holders)}; a run waits with its commits until it is closed"
    return Check(
        "database lock", "warning", found, "Close it there unless it is a run; `reval sql` never keeps it open."
    )


def _others_with(path: Path) -> list[str]:
    """``process 12 (duckdb)`` for each process we may look into that has the file open."""
    import psutil

    wanted, holders = str(path.resolve()), []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(file.path == wanted for file in process.open_files()):
                holders.append(f"process {process.pid} ({process.name()})")
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            continue
    return holders


def _holder(error: StoreLocked) -> str:
    """The process that DuckDB names, with its name."""
    import psutil

    named = re.search(r"PID (\d+)", str(error.__cause__))
    if named is None:
        return "another program"
    try:
        return f"process {named[1]} ({psutil.Process(int(named[1])).name()})"
    except psutil.Error:
        return f"process {named[1]}"


def _spool(home: Home) -> list[Check]:
    from reval_core.store import spool

    folder = home.database.parent / "spool"
    waiting = spool.kept(folder)
    if not waiting:
        return [Check("spool", "ok", "no parts wait")]
    megabytes = sum(path.stat().st_size for path in waiting) / 1e6
    found = f"{len(waiting)} parts ({megabytes:.1f} MB) that could not be committed wait in {folder}"
    return [Check("spool", "warning", found, "Keep the folder: the next `reval train` takes them into the database.")]


# The services -----------------------------------------------------------------------------------------------------


def _prefect(_: Home) -> list[Check]:
    if importlib.util.find_spec("prefect") is None:
        return [
            Check("Prefect", "failure", "it cannot be imported", "Install it with the versions of the constraints.")
        ]
    version = importlib.metadata.version("prefect")
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return [
            Check("Prefect", "ok", f"{version}; PREFECT_API_URL is not set, so each command has a server of its own")
        ]
    silence = _silence(url, "/health")
    if silence:
        cure = "Start the server, set PREFECT_API_URL to its API (it ends in /api), or unset it to need none."
        return [Check("Prefect", "failure", f"{version}; the API at {_address(url)} {silence}", cure)]
    return [Check("Prefect", "ok", f"{version}; the API at {_address(url)} answers")]


def _mlflow(home: Home) -> list[Check]:
    if importlib.util.find_spec("mlflow") is None:
        return [Check("MLflow", "failure", "it cannot be imported", "Install it with the versions of the constraints.")]
    version = importlib.metadata.version("mlflow")
    uri = os.environ.get("MLFLOW_TRACKING_URI") or home.mlflow_uri
    if uri.startswith("sqlite:///"):
        return [_mlflow_file(version, Path(uri.removeprefix("sqlite:///").split("?")[0]))]
    if not uri.startswith(("http://", "https://")):
        return [Check("MLflow", "ok", f"{version}; tracks to {_address(uri)}, which is not tried here")]
    silence = _silence(uri, "/health")
    if silence:
        cure = "Start the tracking server, or unset MLFLOW_TRACKING_URI to use a file under the root."
        return [Check("MLflow", "failure", f"{version}; the server at {_address(uri)} {silence}", cure)]
    return [Check("MLflow", "ok", f"{version}; the server at {_address(uri)} answers")]


def _mlflow_file(version: str, path: Path) -> Check:
    found = f"{version}; tracks to {path}"
    if not path.exists():
        return Check("MLflow", "ok", f"{found}, which the first run creates")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=LOCK_WAIT_S)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        cure = (
            "Move the file away: runs are shown to MLflow again from the store, what only MLflow knew is in that file."
        )
        return Check("MLflow", "failure", f"{found}, which does not open: {error}", cure)
    return Check("MLflow", "ok", f"{found}, which opens")


def _address(url: str) -> str:
    """Scheme, host, port and path: what may be shown of an address, since the rest can hold passwords."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


def _silence(url: str, path: str) -> str | None:
    """Why nothing useful answers at ``url + path``, or None.

    It is asked from a thread, because the time limit of a request does not hold for the look-up of a name.
    """
    answers: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(_address(url) + path, timeout=ANSWER_WITHIN_S):
                answers.append(None)
        except urllib.error.HTTPError as error:
            # someone who wants to know who asks is there, too
            answers.append(None if error.code in (401, 403) else f"answers {path} with HTTP {error.code}")
        except urllib.error.URLError as error:
            answers.append(f"does not answer: {error.reason}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            answers.append(f"does not answer: {type(error).__name__}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    return answers[0] if answers else f"does not answer within {ANSWER_WITHIN_S:g} s"


def _verifier(_: Home) -> list[Check]:
    from reval_core.verification import Verifier

    differing = _differing(PINNED, missing=True)
    if differing:
        cure = f"Verdicts would differ from recorded ones: `pip install {' '.join(PINNED)}`."
        return [Check("verifier", "failure", "; ".join(differing), cure)]
    with Verifier(workers=1, timeout_s=5.0) as verifier:
        simple = verifier.grade(*NEEDS_NO_PROCESS)
        started = verifier.pool.started
        symbolic = verifier.grade(*NEEDS_A_PROCESS)
    if not simple.correct or started or not symbolic.correct or symbolic.tier != "symbolic":
        found = f"a simple grade: {simple.status}; a symbolic one: {symbolic.status} ({symbolic.details})"
        cure = "Give a worker process 2 GB of memory and time to start, then try again."
        return [Check("verifier", "failure", found, cure)]
    return [Check("verifier", "ok", f"{', '.join(PINNED)}; a simple and a symbolic grade work")]


def _environment(_: Home) -> list[Check]:
    said = [f"{name} {'set' if os.environ.get(name) else 'not set'}" for name in VARIABLES]
    return [Check("environment", "ok", ", ".join(said))]


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
