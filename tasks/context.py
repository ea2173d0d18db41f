"""What Prefect knows about the flow run that is under way, and what it is told of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_client, tags
from prefect.context import FlowRunContext

from tasks.run import Run


def flow_run_id() -> str | None:
    """Id of the Prefect flow run around us; None outside one."""
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context is not None and context.flow_run is not None else None


@contextmanager
def tagged(run: Run) -> Iterator[None]:
    """Tag the flow run, and every task run of the block, with our run, its attempt and the run it was forked from."""
    names = {f"run:{run.run_id}", f"attempt:{run.attempt}"}
    if run.record.parent_run_id is not None:
        names.add(f"fork-of:{run.record.parent_run_id}@{run.record.fork_iteration}")
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield
        return
    with get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, tags=names | set(context.flow_run.tags))
    with tags(*names):
        yield
