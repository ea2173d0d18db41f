"""What finished rounds measured, each read from the store once: for the terminal, MLflow and health alike."""

from __future__ import annotations

from typing import Any

from reval_core.store import health
from tasks.run import Run


def finished_rounds(run: Run, first: int, last: int) -> list[dict[str, Any]]:
    """The run's finished rounds from one to another, both included, oldest first.

    Returns:
        Of each round the columns of the view `rounds` and what `health.measured` tells beside them.
    """
    missing = [iteration for iteration in range(max(0, first), last + 1) if iteration not in run.finished]
    if missing:
        with run.store.read() as connection:
            found = health.measured(connection, run.run_id, missing[0], missing[-1], scoring_id=run.scoring_id)
        run.finished |= {row["iteration"]: row for row in found}
    return [run.finished[iteration] for iteration in range(max(0, first), last + 1) if iteration in run.finished]
