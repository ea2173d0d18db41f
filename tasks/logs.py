"""Logs of an attempt as JSON lines in a file of its own, beside what is shown on the terminal."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from reval_core.home import Home
from reval_core.redaction import without_secrets
from reval_core.store import Store, runs

LOGGERS = ("reval_core", "tasks", "flows")


class JsonLines(logging.Formatter):
    """One JSON object a record: time (UTC), level, logger, message, a traceback where there is one; no secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(entry, ensure_ascii=False))


@contextmanager
def attempt_log(home: Home, store: Store, run_id: str, attempt: int) -> Iterator[None]:
    """Write the log of this block to ``logs/<run>/attempt-<n>.jsonl`` and note the path in the store."""
    path = home.logs / run_id / f"attempt-{attempt}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with store.write() as connection:
        runs.set_log_path(connection, run_id, attempt, str(path.relative_to(home.root)))
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonLines())
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        handler.close()
