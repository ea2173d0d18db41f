"""A process is known by number, host and start, whatever becomes of the clock."""

import subprocess
import sys

import psutil
import pytest

from reval_core.process import ProcessIdentity, started

ME = ProcessIdentity.mine()


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    assert ME.is_alive() is True
    assert ProcessIdentity(ME.pid, ME.host, ME.process_started - 100).is_alive() is False
    assert ProcessIdentity(ME.pid, "another-host", ME.process_started).is_alive() is None


def test_a_process_that_ended_unasked_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = ProcessIdentity.of(child.pid)
    assert identity.is_alive() is True
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert identity.is_alive() is False
    child.communicate()


def test_a_clock_that_is_set_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    true = psutil.boot_time()
    for moved in (true - 3600.0, true + 1.0):
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda moved=moved: moved)
        assert ME.is_alive() is True
        assert ProcessIdentity.mine() == ME


def test_a_process_may_have_any_name() -> None:
    named = "import ctypes; ctypes.CDLL(None).prctl(15, b') S 1 (', 0, 0, 0); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", named], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        before = started(child.pid)
        assert child.stdout is not None
        child.stdout.readline()
        assert psutil.Process(child.pid).name() == ") S 1 ("
        assert started(child.pid) == before >= ME.process_started
        child.kill()


def test_a_number_that_nobody_has_is_told() -> None:
    with pytest.raises(psutil.NoSuchProcess):
        started(4_000_000)
    assert ProcessIdentity(4_000_000, ME.host, 1.0).is_alive() is False
