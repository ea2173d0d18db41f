"""Databases for the store's tests, and a program that holds one open."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import store_example

from reval_core.store import Store

HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read")
connection.execute("SELECT 1")
print("held", flush=True)
sys.stdin.readline()
connection.close()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty database of this version; a held lock is waited for only shortly."""
    store = Store(tmp_path / "reval.duckdb", lock_wait_s=0.2)
    store.prepare()
    return store


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An empty database of this version that tests only read."""
    store = Store(tmp_path_factory.mktemp("empty") / "reval.duckdb")
    store.prepare()
    return store


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> store_example.Example:
    """The small real database; tests read it, none changes it."""
    return store_example.build(tmp_path_factory.mktemp("example") / "reval.duckdb")


@pytest.fixture
def hold() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start another process that holds a database until it gets a line or its standard input ends."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path, mode: str = "write") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(path), mode]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.communicate(timeout=30)
