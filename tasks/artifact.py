"""One Prefect artifact per run, kept up to date: figures, breaches, learning curve, rounds, and where the rest is.

It is a page of Markdown with the curve as a PNG inside, which both of Prefect's user interfaces show (a Mermaid chart
only the newer one does), drawn from the store each time. The key is the run's, so all attempts at a run are found
under it; each flow run has one version, which is updated in place.
"""

from __future__ import annotations

import base64
import logging
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from reval_core.redaction import without_secrets
from reval_core.reporting import canvas, plots
from reval_core.store import health, runs
from tasks.evaluate import current_evaluations
from tasks.run import Here, Run
from tasks.served import served_at
from tasks.track import tracking_uri

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""Seconds that a call of Prefect's API may take; the next round tries again."""
EVERY_S = 120.0
"""Seconds between two pages at least: drawing and sending one takes 0.1 to 0.3 s, as much as all else of a round."""
ROUNDS_SHOWN = 60
"""Newest rounds in the table."""
DPI = 90
"""Of the curve: about 500 pixels across and 35 kB of text."""
COLUMNS = (
    ("round", "iteration", "d"),
    ("accuracy", "accuracy", ".3f"),
    ("reward", "reward_mean", ".3f"),
    ("residual", "residual_mean", ".2f"),
    ("staleness", "staleness_mean", ".2f"),
    ("tokens", "tokens_generated", ",d"),
    ("generate", "seconds_generate", ".1f"),
    ("verify", "seconds_verify", ".1f"),
    ("score", "seconds_score", ".1f"),
    ("persist", "seconds_persist", ".1f"),
    ("learn", "seconds_learn", ".1f"),
)
"""Heading, column of the view rounds, format."""


def show_artifact(here: Here, *, last: bool = False) -> None:
    """Bring the artifact of the flow run around us up to the store; outside a flow run there is none.

    Rounds that follow each other within seconds share a page; the ``last`` call of a run always makes one. The artifact
    is a view: where Prefect's server cannot be reached the run goes on, and the next call catches up.
    """
    context = FlowRunContext.get()
    run, now = here.run, time.monotonic()
    if context is None or context.flow_run is None or (now - run.shown_at < EVERY_S and not last):
        return
    run.shown_at = now
    markdown = page(here.run, figures=last)
    with _going_on_without():
        _put(artifact_key(here.run.run_id), context.flow_run.id, markdown, f"Run {here.run.run_id}")


def artifact_key(run_id: str) -> str:
    """The key of a run's artifact: Prefect takes small letters, digits and dashes."""
    return "reval-" + re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")


def _put(key: str, flow_run_id: UUID, markdown: str, description: str) -> None:
    """Make the flow run's artifact of this key, or put another text into it."""
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]), flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    # a client of our own: the flow's retries for minutes a server that is gone
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}),
        get_client(httpx_settings={"timeout": PATIENCE_S}, sync_client=True) as client,
    ):
        found = client.read_artifacts(artifact_filter=wanted, limit=1)
        if found:
            client.update_artifact(found[0].id, ArtifactUpdate(data=markdown, description=description))
        else:
            client.create_artifact(
                ArtifactCreate(
                    key=key, type="markdown", data=markdown, description=description, flow_run_id=flow_run_id
                )
            )


@contextmanager
def _going_on_without() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        log.warning(
            "the artifact could not be written (%s); the store has everything, the next round catches up",
            without_secrets(f"{type(error).__name__}: {error}"),
        )


def page(run: Run, *, figures: bool = False) -> str:
    """The artifact's Markdown, from the store; at the end of a run with the figures of its report."""
    with run.store.read() as connection:
        told = health.rounds(connection, run.run_id)
        breaches = health.summary(connection, run.run_id)
        record = runs.find(connection, run.run_id)
        evaluations = _evaluations(run)
    return "\n\n".join(
        part
        for part in (
            f"# {run.run_id}",
            _headline(run, told, evaluations),
            _breaches(breaches),
            _curve(told, evaluations),
            _figures(run) if figures else "",
            _rounds(told),
            _places(run, record.mlflow_run_id if record else None),
        )
        if part
    )


def _headline(run: Run, told: list[dict[str, Any]], evaluations: dict[str, Any]) -> str:
    parts = [f"**{len(told)} of {max(len(told), run.config.run.iterations)} rounds**"]
    if told:
        for heading, column, form in COLUMNS[1:4]:
            if told[-1][column] is not None:
                parts.append(f"{heading} {told[-1][column]:{form}}")
    if evaluations["value"]:
        parts.append(f"{evaluations['name']} {evaluations['value'][-1]:.3f} after {evaluations['learned'][-1]} rounds")
    for column, what in (("trajectories", "responses"), ("tokens_generated", "tokens")):
        if sampled := sum(row[column] or 0 for row in told):  # offline rounds sample nothing
            parts.append(f"{sampled:,} {what}")
    parts.append(f"attempt {run.attempt}")
    return " · ".join(parts)


def _breaches(breaches: list[dict[str, Any]]) -> str:
    if not breaches:
        return "Every watched metric has been within its bounds."
    lines = [
        "## Out of bounds",
        "",
        "| metric | in rounds | first | last | value then | bound | action |",
        "|:---|---:|---:|---:|---:|---:|:---|",
        *(
            f"| {row['metric']} | {row['rounds']} | {row['first']} | {row['last']} | {row['value']:.4g} "
            f"| {row['bound']:g} | {row['action']} |"
            for row in breaches
        ),
    ]
    return "\n".join(lines)


def _evaluations(run: Run) -> dict[str, Any]:
    """avg@k of the first benchmark: its name, and lists learned, value, low, high."""
    benchmark = next(iter(run.config.evaluation.benchmarks), "")
    metric = f"avg@{run.config.evaluation.samples_per_problem}"
    rows = [row for row in current_evaluations(run) if (row["benchmark"], row["metric"]) == (benchmark, metric)]
    points = {name: [row[name] for row in rows] for name in ("value", "low", "high")}
    return {"name": f"{Path(benchmark).name} {metric}", "learned": [row["iteration"] + 1 for row in rows], **points}


def _curve(told: list[dict[str, Any]], evaluations: dict[str, Any]) -> str:
    columns = {name: [row[name] for row in told] for name in ("iteration", "accuracy", "reward_mean")}
    figure = plots.learning_curve(columns, evaluations, evaluated=evaluations["name"])
    picture = base64.b64encode(canvas.figure_png(figure, dpi=DPI)).decode()
    return f"![Learning curve](data:image/png;base64,{picture})"


def _figures(run: Run) -> str:
    """The report's other figures, as it has drawn them."""
    files = sorted((run.home.reports / run.run_id).glob("*.png"))
    pictures = [
        f"![{file.stem}](data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()})"
        for file in files
        if file.stem != "learning-curve"
    ]
    return "\n\n".join(["## Figures", *pictures]) if pictures else ""


def _rounds(told: list[dict[str, Any]]) -> str:
    shown = told[-ROUNDS_SHOWN:]
    heading = "## Rounds" if len(shown) == len(told) else f"## The newest {len(shown)} of {len(told)} rounds"
    lines = [
        f"| {' | '.join(name for name, _, _ in COLUMNS)} |",
        f"|{'---:|' * len(COLUMNS)}",
        *(f"| {' | '.join(_cell(row[column], form) for _, column, form in COLUMNS)} |" for row in reversed(shown)),
    ]
    units = (
        "Accuracy and reward of the round's responses; mean residual in nats; staleness: age in rounds of what was "
        "learned from; seconds of each stage."
    )
    return f"{heading}\n\n" + "\n".join(lines) + f"\n\n{units}"


def _cell(value: Any, form: str) -> str:
    return "–" if value is None else format(value, form)


def _places(run: Run, mlflow_run_id: str | None) -> str:
    report, served = run.home.reports / run.run_id / "report.html", served_at(run.home)
    query = f"SELECT * FROM rounds WHERE run_id = '{run.run_id}' ORDER BY iteration"
    return (
        "## Where the rest is\n\n"
        f"- MLflow: {_mlflow((served and served.mlflow) or tracking_uri(run), mlflow_run_id)}\n"
        f"- Report: {f'`{report}`' if report.is_file() else 'written at the end of the run'}\n"
        f"- Store: `{run.home.database}`\n\n"
        f'```\nexport REVAL_HOME={shlex.quote(str(run.home.root))}\nreval sql "{query}"\n```'
    )


def _mlflow(uri: str, mlflow_run_id: str | None) -> str:
    """A link where MLflow has an address, else how to look at it."""
    if not uri.startswith(("http://", "https://")):
        return f"`mlflow ui --backend-store-uri {without_secrets(uri)}`"
    address = re.sub(r"//[^/@]*@", "//", uri).rstrip("/")  # a link needs no password
    return f"[{address}]({address}/#/runs/{mlflow_run_id})" if mlflow_run_id else address
