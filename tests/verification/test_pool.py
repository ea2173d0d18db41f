"""Worker processes: limits that hold, deaths that are survived, threads, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reval_core.errors import ConfigError
from reval_core.verification import Grader, ProblemData, Verifier

pytestmark = pytest.mark.slow

NEEDS_SYMBOLIC = ("\\frac{1}{3}", "\\int_0^1 x^2\\,dx")
HANGS = ("\\int_0^1 \\frac{\\sin(x^3+x+1)\\log x}{\\sqrt{x^5+\\cos x}} dx", "\\log 8")
"""An integral that sympy does not finish; only a gold may have one that is so hard."""
LIMIT_S = 60.0
"""A limit that nothing here meets that is not meant to, on a machine that pauses for seconds."""


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it ended before its file was opened, or after
        return False


def until(holds: Callable[[], bool]) -> bool:
    """Whether something comes about within the limit."""
    deadline = time.monotonic() + LIMIT_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def test_arithmetic_never_starts_a_process() -> None:
    with Verifier(timeout_s=LIMIT_S) as verifier:
        assert verifier.grade("42", "\\frac{84}{2}").correct
        assert verifier.grade("(x-1)(x+1)", "x^2-1").correct
        assert not verifier.pool.started
        assert verifier.grade(*NEEDS_SYMBOLIC).tier == "symbolic"
        assert verifier.pool.started


def test_nothing_is_left_after_close() -> None:
    verifier = Verifier(timeout_s=LIMIT_S)
    assert verifier.grade(*NEEDS_SYMBOLIC).correct
    pids = verifier.pool.pids()
    assert pids
    assert all(alive(pid) for pid in pids)
    verifier.close()
    assert not any(alive(pid) for pid in pids)
    verifier.close()  # twice is harmless


def test_a_worker_killed_from_outside_is_replaced() -> None:
    with Verifier(workers=1, timeout_s=LIMIT_S) as verifier:
        assert verifier.grade(*NEEDS_SYMBOLIC).correct
        os.kill(verifier.pool.pids()[0], signal.SIGKILL)
        assert verifier.grade("\\frac{1}{4}", "\\int_0^1 x^3\\,dx").correct


def test_timeouts_are_hard_and_cached() -> None:
    with Verifier(workers=1, timeout_s=LIMIT_S) as verifier:
        assert verifier.grade(*NEEDS_SYMBOLIC).correct
        verifier.pool.timeout_s = 1.0
        first = verifier.grade(*HANGS)
        assert first.status == "timeout"
        assert 1.0 <= first.seconds < LIMIT_S
        pids = verifier.pool.pids()
        again = verifier.grade(*HANGS)
        assert (again.status, again.seconds) == ("timeout", 0.0)
        assert verifier.pool.pids() == pids  # no second kill
        verifier.pool.timeout_s = LIMIT_S
        assert verifier.grade("\\frac{1}{4}", "\\int_0^1 x^3\\,dx").correct


def test_same_verdicts_from_eight_threads_while_workers_are_killed() -> None:
    pairs = [(f"\\log {2**k}", f"so \\boxed{{{k if k % 2 else k + 1}\\log 2}}") for k in range(3, 15)]
    expected = [bool(k % 2) for k in range(3, 15)]
    results: dict[int, list[bool]] = {}
    with Verifier(workers=2, timeout_s=LIMIT_S) as verifier:

        def run(number: int) -> None:
            shift = number % len(pairs)
            turned = pairs[shift:] + pairs[:shift]
            verdicts = [v.correct for v in verifier.verify_many(turned)]
            results[number] = verdicts[len(pairs) - shift :] + verdicts[: len(pairs) - shift]

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        for pid in verifier.pool.pids()[:1]:
            os.kill(pid, signal.SIGKILL)
        for thread in threads:
            thread.join(4 * LIMIT_S)
    assert results == dict.fromkeys(range(8), expected)


SCRIPT = textwrap.dedent("""
    import sys, time
    from reval_core.verification import Verifier
    verifier = Verifier(workers=1, timeout_s=600.0)   # no __main__ guard, on purpose
    assert verifier.grade(%r, %r).correct
    print(*verifier.pool.pids(), flush=True)
    if sys.argv[1] == "hang":
        verifier.grade(%r, %r)
""") % (*NEEDS_SYMBOLIC, *HANGS)


@pytest.mark.parametrize("mode", ["exit", "hang"])
def test_workers_die_with_a_script_that_exits_or_is_killed(mode: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, str(script), mode], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert pids
    if mode == "hang":
        assert alive(pids[0])
        process.kill()
    process.wait(60)
    process.stdout.close()
    assert until(lambda: not any(alive(pid) for pid in pids))


def test_a_closed_pool_says_so() -> None:
    from reval_core.errors import VerificationError

    verifier = Verifier()
    verifier.close()
    assert verifier.grade("1", "1").correct
    with pytest.raises(VerificationError, match="closed"):
        verifier.grade(*NEEDS_SYMBOLIC)


def test_a_killed_server_is_replaced_and_takes_its_workers_along() -> None:
    with Verifier(workers=2, timeout_s=LIMIT_S) as verifier:
        assert verifier.grade(*NEEDS_SYMBOLIC).correct
        (worker,) = verifier.pool.pids()
        server = int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(server, signal.SIGKILL)
        assert verifier.grade("\\frac{1}{4}", "\\int_0^1 x^3\\,dx").correct
        assert until(lambda: not alive(worker))  # the kernel ends it with the server, a moment later


def test_two_processes_draw_different_numbers() -> None:
    """A fork shares its siblings' random state unless it draws anew; a policy could learn points that repeat."""
    with Grader("random:random", workers=1) as grader, pytest.raises(ConfigError):
        _ = grader.grader_id  # no reward, but it shows that a failing import is told from the child
    script = "def number(problem, completions):\n    import random\n    return [random.random() for _ in completions]\n"
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder, "drawn_reward.py").write_text(script)
        patch.syspath_prepend(folder)
        numbers = set()
        with Grader("drawn_reward:number", workers=2, timeout_s=LIMIT_S) as grader:
            for _ in range(2):
                numbers.add(grader.grade_batch([(ProblemData(gold="1"), "x")])[0].reward)
                for pid in grader._backend.pool.pids():
                    os.kill(pid, signal.SIGKILL)
    assert len(numbers) == 2
