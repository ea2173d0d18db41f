"""What a finished run leaves: the table at its end, and where everything is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reval_core.redaction import without_secrets
from tasks.best import best_of
from tasks.report_page import before_and_after
from tasks.run import Run
from tasks.track import tracking_uri


@dataclass(frozen=True)
class Outcome:
    """A run's end, for people and for scripts."""

    run_id: str
    rounds: int
    policy_id: str
    executed: tuple[str, ...]
    """``stage@iteration`` of what this attempt did; empty when all was done already."""
    summary: tuple[tuple[str, Any, Any], ...]
    trajectories: int
    """Training trajectories in the run's buffer, those of its ancestors before the fork included."""
    uses: float
    """Mean number of times one of them was learned from, by this run and its ancestors."""
    report: Path | None
    database: Path
    mlflow: str
    checkpoint: Path | None
    best: str | None = None
    """The folder of the best policy, and by what it is the best."""


def outcome(run: Run, report: str | None) -> Outcome:
    """Read the run's end from the store."""
    replayed = run.store.query_live(
        "SELECT count(*) AS stored, coalesce(avg(times_used), 0) AS uses FROM replay WHERE run_id = $run_id",
        run_id=run.run_id,
    ).to_pylist()[0]
    policy = run.policy_after(run.iterations_done() - 1)
    folder, best = run.home.policies / policy, best_of(run)
    return Outcome(
        run_id=run.run_id,
        rounds=run.iterations_done(),
        policy_id=policy,
        executed=tuple(run.executed),
        summary=tuple(before_and_after(run)),
        trajectories=int(replayed["stored"]),
        uses=float(replayed["uses"]),
        report=run.home.root / report if report else None,
        database=run.home.database,
        mlflow=without_secrets(tracking_uri(run)),
        checkpoint=folder if folder.exists() else None,
        best=f"{run.home.policies / best.policy_id} ({best})" if best else None,
    )
