"""What Prefect knows about the flow run that is under way, and what it is told of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import State, get_client
from prefect.context import FlowRunContext, TagsContext
from prefect.states import Completed

from tasks.run import Run


def flow_run_id() -> str | None:
    """Id of the Prefect flow run around us; None outside one."""
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context is not None and context.flow_run is not None else None


@contextmanager
def tagged(run: Run) -> Iterator[None]:
    """Name the flow run after our run, and tag it with run, attempt and parent.

    Task runs of the block have no tags: before a task that has some, Prefect asks the server for limits by tag, and
    waits for the answer. Their flow run has them.
    """
    ours = {f"run:{run.run_id}", f"attempt:{run.attempt}"}
    if run.record.parent_run_id is not None:
        ours.add(f"fork-of:{run.record.parent_run_id}@{run.record.fork_iteration}")
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield
        return
    with get_client(sync_client=True) as client:
        flow = context.flow_run.name if context.flow is None else context.flow.name
        every = ours | set(context.flow_run.tags)
        client.update_flow_run(context.flow_run.id, name=f"{flow} {run.run_id}", tags=every)
    with TagsContext(current_tags=set()):
        yield


def nothing_to_do(why: str) -> State[None]:
    """The end of a flow run that found nothing to do, with the reason where one looks for it."""
    return Completed(name="Nothing to do", message=why)
