"""`reval browse` as a process: what it says, where it listens, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from served_site import ROOT, free_port, reval, wait_for
from small_run import Finished, Reval, rows

from reval_core.browsing.steps import Scorer
from reval_core.store import Store

pytestmark = pytest.mark.slow
INTERRUPTED = 130


@contextmanager
def browsing(root: Path, log: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, once it has said where it answers, and that address."""
    with open(log, "w") as output:
        process = subprocess.Popen(
            reval("browse", "--no-open", *options),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "REVAL_HOME": str(root), "PYTHONPATH": str(ROOT)},
        )
    try:
        wait_for(lambda: "Ctrl-C" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield process, next(word for word in log.read_text().split() if word.startswith("http://"))
    finally:
        process.kill()
        process.wait()


def test_it_answers_on_this_machine_alone_and_ends_in_order(finished: Finished, tmp_path: Path, reval: Reval) -> None:
    log = tmp_path / "browse.log"
    with browsing(finished.home.root, log, "--port", 0) as (process, address):
        answer = httpx.get(address, timeout=60)
        assert (answer.status_code, finished.outcome.run_id in answer.text) == (200, True)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
        listening = [one.laddr for one in psutil.Process(process.pid).net_connections() if one.status == "LISTEN"]
        assert [f"http://{one.ip}:{one.port}" for one in listening] == [address]
        assert httpx.get(address, headers={"host": "elsewhere.example"}, timeout=60).status_code == 421

        code, _, told = reval("browse", "--no-open", "--port", address.rpartition(":")[2])
        assert (code, "is taken. Choose another with --port." in told) == (1, True)

        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == INTERRUPTED
    assert "Ended." in log.read_text()
    assert "Traceback" not in log.read_text()


def test_step_rewards_add_up_to_what_learning_recorded(finished: Finished) -> None:
    saved = rows(
        finished.home,
        "SELECT m.trajectory_id, t.policy_id, p.reference_policy_id, m.log_ratio FROM update_members AS m "
        "JOIN trajectories AS t USING (trajectory_id) JOIN policies AS p ON p.policy_id = t.policy_id "
        "WHERE m.kind = 'fresh' AND p.folder IS NOT NULL AND p.kind = 'learned' ORDER BY abs(m.log_ratio) DESC LIMIT 3",
    )
    scorer = Scorer(finished.home, Store(finished.home.database))
    for row in saved:
        steps = scorer.steps(row["trajectory_id"], row["policy_id"], row["reference_policy_id"])
        assert steps.beta == finished.config.objective.beta
        assert steps.reward.sum() == pytest.approx(steps.beta * row["log_ratio"], abs=1e-5)
    assert abs(saved[0]["log_ratio"]) > 0.01


def test_without_a_store_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reval: Reval) -> None:
    monkeypatch.setenv("REVAL_HOME", str(tmp_path))
    code, _, told = reval("browse", "--no-open")
    assert (code, "There is no database" in told) == (1, True)


def test_a_device_that_is_not_there_is_said_at_once(reval: Reval) -> None:
    code, _, told = reval("browse", "--no-open", "--device", "abacus")
    assert (code, "is none: use auto, cpu" in told) == (1, True)


def test_a_browser_is_opened_only_where_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.cli_browse import has_display

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("SSH_CONNECTION", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not has_display()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_display()
    monkeypatch.setenv("SSH_CONNECTION", "1.2.3.4 5 6.7.8.9 22")
    assert not has_display()


def test_a_free_port_is_listened_on_at_once() -> None:
    from flows.cli_browse import _bound

    port = free_port()
    with _bound(port), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        assert client.getpeername() == ("127.0.0.1", port)
