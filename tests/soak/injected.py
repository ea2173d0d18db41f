"""A fault at every single system call by which the store writes, one after the other, by strace.

The same three batches, settle and snapshot each time; call by call the process is killed, or the call fails. Then it is
started again without a fault and must come to the end, with everything that was acknowledged.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

from tests.soak.faults import Soak, check, phase_of
from tests.soak.writer import Plan

ROOT = Path(__file__).resolve().parents[2]
FAULTS = {
    "killed": (("pwrite64", "write", "fdatasync", "fsync", "unlink", "rename", "ftruncate"), "signal=SIGKILL"),
    "disk full": (("pwrite64", "write"), "error=ENOSPC"),
    "not synced": (("fdatasync", "fsync"), "error=EIO"),
    "not renamed or removed": (("unlink", "rename"), "error=EIO"),
}
"""Which system calls, and what becomes of one of them. Strace counts each kind apart."""
BATCHES, SLICE_BYTES = 3, 400_000


def at_every_call(folder: Path, fault: str, *, first: int = 1, every: int = 1) -> Soak:
    """Inject a fault at the first call, the second, and so on, until a run is through without one.

    Args:
        folder: where the stores are made.
        fault: one of `FAULTS`.
        first: the call to begin with.
        every: 1 for every call, 2 for every second.
    """
    calls, what = FAULTS[fault]
    soak = Soak()
    for call in calls:
        for number in count(first, every):
            root = folder / f"{fault.replace(' ', '-')}-{call}-{number}"
            if not _inject(root, call, f"{what}:when={number}", soak):
                break
            shutil.rmtree(root)
    return soak


def _inject(root: Path, call: str, what: str, soak: Soak) -> bool:
    """One run with a fault, if the run makes so many such calls; and what it left."""
    root.mkdir(parents=True)
    plan = Plan(root, "a", ("a",), SLICE_BYTES, BATCHES)
    trace = root / "trace"
    strace = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={call}", "-e", f"inject={call}:{what}"]
    done = _run(plan, *strace)
    if not re.search(r"\(INJECTED\)|killed by SIGKILL", trace.read_text(errors="replace")):
        return False
    soak.kills += 1
    told = re.search(r"^told: .*$", done.stderr, re.MULTILINE)
    outcome = "killed" if done.returncode < 0 else "told" if told else "went on"
    soak.phases[f"{phase_of(plan)}, {outcome}"] += 1
    if "Traceback" in done.stderr:
        soak.found.untold += 1
        soak.told.append(f"{root.name}: {done.stderr[-1500:]}")
    soak.found.add(check([plan], soak.told))
    again = _run(plan)
    if again.returncode:
        soak.found.unopened += 1
        soak.told.append(f"{root.name}: {again.stderr[-1500:]}")
    soak.found.add(check([plan], soak.told))
    soak.batches += BATCHES
    return True


def _run(plan: Plan, *before: str) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "tests.soak.writer", str(plan.root), str(SLICE_BYTES), str(BATCHES)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
