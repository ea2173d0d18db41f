"""What Prefect knows about the flow run that is under way."""

from __future__ import annotations

from prefect.context import FlowRunContext


def flow_run_id() -> str | None:
    """Id of the Prefect flow run around us; None outside one."""
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context is not None and context.flow_run is not None else None
