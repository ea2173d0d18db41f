"""What Prefect is told of runs that the watcher ended: a deployment's is tried again, a killed one has crashed.

    @flow(on_failure=[try_again], on_crashed=[try_again])

The flow run is put into Prefect's state AwaitingRetry, as the button Retry does: the runner or worker that serves the
deployment starts it anew, in another process, under the same id. The hook runs in the flow's own process when that
could end in order, else in the runner's. `reval train` and `learn` do the same without a server (`flows/tries.py`).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Crashed, State

from reval_core.home import find_home
from reval_core.store import Store, runs
from tasks.ended import Ended, read_record, record_path
from tasks.services import TAG

log = logging.getLogger(__name__)

PAUSE_S = 10.0
"""Seconds before the first new try, give or take a half; each further pause is twice as long."""


def try_again(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Schedule the flow run anew, limits.retries times at most; what the watcher did not end is left as it is."""
    with get_client(sync_client=True) as client:
        now = client.read_flow_run(flow_run.id)  # with the tags that it was given since it began
        ended = _ended(now.tags)
        if ended is None or now.deployment_id is None or now.run_count > ended.retries:
            return
        pause = PAUSE_S * 2 ** (now.run_count - 1) * random.uniform(0.5, 1.5)
        log.warning("%s; trying again in %.0f s, in a fresh process", ended.message, pause)
        client.set_flow_run_state(
            flow_run.id,
            AwaitingRetry(scheduled_time=datetime.now(UTC) + timedelta(seconds=pause), message=ended.message),
            force=True,
        )


def show_crashed(store: Store, run_id: str, attempt: int, flow_run_id: str | None) -> None:
    """Let Prefect know how the attempt before this one ended, where its process was killed before it could say so.

    Args:
        store: knows how it ended.
        run_id, attempt: this one.
        flow_run_id: Prefect's id of this one; None outside a flow run.
    """
    if flow_run_id is None:
        return
    _crash_stages(UUID(flow_run_id))
    found = store.query_live(
        "SELECT flow_run_id, message FROM attempts WHERE run_id = $run_id AND attempt = $before "
        "AND status IN ('failed', 'crashed') AND flow_run_id IS NOT NULL AND flow_run_id <> $mine",
        run_id=run_id,
        before=attempt - 1,
        mine=flow_run_id,
    )
    for row in found.to_pylist():
        with get_client(sync_client=True) as client:
            try:
                state = client.read_flow_run(UUID(row["flow_run_id"])).state
            except ObjectNotFound:  # it ran under another server
                continue
            if state is not None and state.is_running():
                client.set_flow_run_state(UUID(row["flow_run_id"]), Crashed(message=row["message"]), force=True)


def _crash_stages(flow_run_id: UUID) -> None:
    """Of a flow run that is tried again: stages that a killed process was in would be shown as running for ever."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.run_count <= 1:
        return
    running = TaskRunFilterStateType(any_=[StateType.RUNNING])
    with get_client(sync_client=True) as client:
        for stage in client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])),
            task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=running)),
        ):
            client.set_task_run_state(stage.id, Crashed(message="Its process was killed."), force=True)


def show_gone(client: SyncPrefectClient, store: Store) -> None:
    """Let Prefect know of runs whose process is gone, as after a power failure, so that it offers their Retry at once.

    Those of other machines, and those that had not opened their run yet, are found by their missing heartbeats.
    """
    ours = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING])),
        tags=FlowRunFilterTags(all_=[TAG]),
    )
    for flow_run in client.read_flow_runs(flow_run_filter=ours):
        with store.read() as connection:
            process = runs.process_of(connection, str(flow_run.id))
        if process is None or process.is_alive() is not False:
            continue
        asked = flow_run.state is not None and flow_run.state.type == StateType.CANCELLING
        message = f"Process {process.pid} is gone, and could not say how it ended."
        client.set_flow_run_state(flow_run.id, (Cancelled if asked else Crashed)(message=message), force=True)


def _ended(tags: Iterable[str]) -> Ended | None:
    """The record of the newest attempt that the tags name."""
    named: dict[str, list[str]] = {"run": [], "attempt": []}
    for tag in tags:
        key, _, value = tag.partition(":")
        if key in named:
            named[key].append(value)
    if not all(named.values()):
        return None
    return read_record(record_path(find_home(), named["run"][0], max(map(int, named["attempt"]))))
