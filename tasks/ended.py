"""The watcher's record of a stage that it ended, beside the log of the attempt. Reading it needs no heavy library."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from reval_core.home import Home

SHOWN = 5
"""Last lines of the log that stand in a message; the record has more."""


@dataclass(frozen=True)
class Ended:
    """The record of a stage that the watcher ended."""

    stage: str
    iteration: int
    why: str
    grace_s: float
    retries: int
    killed: bool
    pid: int
    process_started: float
    last_log_lines: tuple[str, ...]

    @property
    def message(self) -> str:
        """What happened, in words, with the last lines of the log."""
        killed = f" It did not end within {self.grace_s:g} s of being asked, and was killed." if self.killed else ""
        lines = "".join(f"\n  {line}" for line in self.last_log_lines[-SHOWN:])
        told = f"\nThe last lines of its log:{lines}" if lines else ""
        return f"{self.stage} of round {self.iteration} was ended by the watcher: {self.why}.{killed}{told}"


def record_path(home: Home, run_id: str, attempt: int) -> Path:
    """Where the watcher writes why it ended an attempt."""
    return home.logs / run_id / f"attempt-{attempt}.ended.json"


def read_record(path: Path) -> Ended | None:
    """Why the watcher ended an attempt; None when it did not."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    known = {name: record[name] for name in Ended.__dataclass_fields__}
    return Ended(**known | {"last_log_lines": tuple(record["last_log_lines"])})
