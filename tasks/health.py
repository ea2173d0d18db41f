"""After each round: is the run within the bounds of the section ``health``? What is not is told, and may stop it.

A breach is a row in the store for each round that it lasts. When it begins it is also a warning and a Prefect event,
from which an automation can notify somebody; so a run that stays out of bounds tells so once.
"""

from __future__ import annotations

import logging
import shutil
from typing import Any

from prefect.context import FlowRunContext
from prefect.events import emit_event

from reval_core.errors import HealthError
from reval_core.health import Breach, breaches
from reval_core.store import health
from tasks.artifact import show_artifact
from tasks.finished import finished_rounds
from tasks.run import Here

log = logging.getLogger(__name__)

EVENT = "reval.health.breach"
MEASURED = (
    "residual_spread",
    "root_value_gap",
    "all_wrong_share",
    "truncated_share",
    "timeout_share",
    "staleness",
    "engine_mismatch",
)
"""Metrics of a round; free disk space is measured when it is asked for."""


def watch_health(here: Here) -> None:
    """Hold the newest rounds against the rules; record, tell, and stop where a rule says so.

    The round is committed, so nothing is lost by a stop; asked again of the same round it records nothing twice.

    Raises:
        HealthError: a rule with ``then: stop`` is broken. The run's artifact shows why.
    """
    run = here.run
    found = breaches(run.config.health, measured(here))
    if not found:
        return
    with run.store.write() as connection:
        begins = health.add(connection, run.run_id, run.attempt, here.iteration, found)
    for breach in found:
        if breach.metric in begins:
            log.warning("health: after round %d %s", here.iteration, breach)
            _tell(here, breach)
    stopping = [breach for breach in found if breach.action == "stop"]
    if stopping:
        show_artifact(here, last=True)
        raise HealthError(_why(here, stopping))


def measured(here: Here) -> list[dict[str, Any]]:
    """The watched metrics of the newest rounds, this one last; None where there is nothing to measure."""
    run = here.run
    config = run.config
    told = finished_rounds(run, here.iteration - max(1, config.health.longest) + 1, here.iteration)
    rounds = [{name: row[name] for name in ("iteration", *MEASURED)} for row in told]
    for row, whole in zip(rounds, told, strict=True):
        if whole["batch_id"] is None:  # it sampled nothing
            row["timeout_share"] = None
        if config.reward.knows_no_wrong:
            row["all_wrong_share"] = None
        # the engine's is of softmax(logits / its temperature)
        if config.rollouts.temperature != config.objective.policy_temperature:
            row["engine_mismatch"] = None
    if rounds:
        rounds[-1]["free_disk_gb"] = shutil.disk_usage(run.home.root).free / 1e9
    return rounds


def _tell(here: Here, breach: Breach) -> None:
    """Send Prefect an event; it is queued, and a thread of Prefect's delivers it or fails by itself."""
    if FlowRunContext.get() is None:
        return
    run = here.run
    emit_event(
        EVENT,
        resource={"prefect.resource.id": f"reval.run.{run.run_id}", "prefect.resource.name": run.run_id},
        payload={
            "run_id": run.run_id,
            "iteration": here.iteration,
            "metric": breach.metric,
            "value": breach.value,
            "bound": breach.bound,
            "rounds": breach.rounds,
            "action": breach.action,
            "message": f"after round {here.iteration} {breach}",
        },
    )


def _why(here: Here, stopping: list[Breach]) -> str:
    told = "; ".join(str(breach) for breach in stopping)
    rules = " ".join(f"--set health.{breach.metric}.then=warn" for breach in stopping)
    return (
        f"{here.run.run_id} was stopped after round {here.iteration}: {told}. The round is committed, nothing is lost. "
        f"To go on, change the rule and give the same command again, as with {rules}; docs/health.md says what the "
        "metrics mean."
    )
