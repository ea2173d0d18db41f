"""Prefect automations that ReVal puts on a server: a run that died is crashed, and a webhook is told what went wrong.

A flow run is ours by the tag ``reval``, which it must carry from its creation on: Prefect's events show the tags of
then for up to five minutes. Which run of ours it belongs to is told by its tag ``run:<run id>``, looked up when the
message is written.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import BlockDocumentCreate, BlockDocumentUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import Event
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from reval_core.errors import RevalError
from tasks.services import TAG

DEAD = "ReVal: a dead run is crashed"
NOTIFY = "ReVal: notify"
BLOCK = "reval-notify"
"""Names by which automations and the webhook's block are found again on the server."""
BREACH = "reval.health.breach"
"""The event of a health rule that is broken; its resource is ``reval.run.<run id>``."""

HEARTBEAT = "prefect.flow-run.heartbeat"
BEGUN = "prefect.flow-run.Running"
"""A heartbeat follows within a second or so, unless the process is killed before."""
ENDS = ("Completed", "Nothing to do", "Failed", "TimedOut", "Crashed", "Cancelled", "AwaitingRetry", "Suspended")
"""Names of the states after which no heartbeat is to be expected."""
TROUBLE = ("Failed", "TimedOut", "Crashed", "Late")
"""States that the webhook is told of."""

OURS = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}

MESSAGE = """\
{%- set breach = event.payload if event.event == "BREACH" else none -%}
{%- set what = "breach" if breach else event.resource["prefect.state-name"] | lower -%}
{%- set run = namespace(id=event.resource.id.removeprefix("reval.run.") if breach else none) -%}
{%- for tag in flow_run.tags if tag.startswith("run:") -%}{%- set run.id = tag[4:] -%}{%- endfor -%}
{%- set message = (breach.message if breach else event.resource["prefect.state-message"]) | default(none, true) -%}
{
  "id": {{ event.id | string | tojson }},
  "text": {{ ("ReVal " ~ (run.id or flow_run.name) ~ " " ~ what ~ (": " ~ message if message else ""))
             | truncate(500, true) | tojson }},
  "what": {{ what | tojson }},
  "run": {{ run.id | tojson }},
  "flow_run": {{ flow_run.name | default(none) | tojson }},
  "message": {{ message | tojson }},
  "url": {{ (("UI_URL/runs/flow-run/" ~ flow_run.id) if flow_run.id else none) | tojson }},
  "occurred": {{ event.occurred.isoformat() | tojson }},
  "breach": {{ breach | tojson }}
}
""".replace("BREACH", BREACH)
"""What the webhook receives: Jinja over Prefect's event and the flow run as it is then. UI_URL is put in.

Prefect delivers at least once: where SQLite is locked it handles an event again. The id is then the same.
"""


def install(client: SyncPrefectClient, *, webhook: str | None, heartbeat_s: float, dead_after_s: float) -> None:
    """Put the automations on the server, or bring those that are there up to date.

    One that is as it should be is not touched: an update makes Prefect forget which runs it was waiting for. One that
    somebody has paused stays so.

    Args:
        client: of the server.
        webhook: where to POST what went wrong; None removes what an earlier call put there.
        heartbeat_s: seconds between two heartbeats of a flow run, PREFECT_FLOWS_HEARTBEAT_FREQUENCY of its process.
        dead_after_s: seconds without a heartbeat after which a run counts as dead.

    Raises:
        RevalError: less than two heartbeats make a death, or the webhook is no address.
    """
    if dead_after_s < 2 * heartbeat_s:
        raise RevalError(
            f"a run would count as dead after {dead_after_s:g} s, but gives a sign of life every {heartbeat_s:g} s; "
            f"let at least {2 * heartbeat_s:g} s pass"
        )
    _put(client, dead_run(dead_after_s))
    _wait_for_life(client)
    if webhook is None:
        _remove(client)
    else:
        ui_url = get_current_settings().ui_url or str(client.api_url).rstrip("/").removesuffix("/api")
        _put(client, notification(_block(client, webhook), ui_url))


def dead_run(dead_after_s: float) -> AutomationCore:
    """Crash a flow run of ours whose heartbeats have stopped, or never began, without an end.

    The ends are named one by one: any event that is expected ends Prefect's waiting, and only a heartbeat begins it
    anew, so a run that dies after an expected ``Running`` would be waited for by nobody. That one begins a wait and
    does not end it: a process that was killed right behind it has sent no heartbeat. A heartbeat that reaches the
    server after the end, within some hundredths of a second, begins a wait for nothing; the server then refuses to
    crash what has ended, and says so in its log.
    """
    return AutomationCore(
        name=DEAD,
        description="A flow run whose heartbeats stop without an end is marked as crashed.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={HEARTBEAT, BEGUN},
            expect={HEARTBEAT, *_states(ENDS)},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=OURS,
            for_each={"prefect.resource.id"},
            within=timedelta(seconds=dead_after_s),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, message=f"No heartbeat for {dead_after_s:g} s: the process is gone or hangs."
            )
        ],
    )


def notification(block_id: UUID, ui_url: str) -> AutomationCore:
    """Tell the webhook of the block what went wrong, with a link into Prefect's UI."""
    return AutomationCore(
        name=NOTIFY,
        description="A broken health rule, and a run that failed, crashed or is late, are told to a webhook.",
        trigger=EventTrigger(
            posture=Posture.Reactive,
            expect={BREACH, *_states(TROUBLE)},
            match={"prefect.resource.id": ["prefect.flow-run.*", "reval.run.*"]},
            match_related=OURS,
        ),
        actions=[CallWebhook(block_document_id=block_id, payload=MESSAGE.replace("UI_URL", ui_url))],
    )


def _states(names: tuple[str, ...]) -> set[str]:
    """Prefect's events of a flow run that enters one of the states."""
    return {f"prefect.flow-run.{name}" for name in names}


def _put(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Have the automation on the server once."""
    found = client.read_automations_by_name(wanted.name)
    for extra in found[1:]:
        client.delete_automation(extra.id)
    if not found:
        client.create_automation(wanted)
    elif not _same(found[0], wanted):
        client.update_automation(found[0].id, wanted.model_copy(update={"enabled": found[0].enabled}))


def _wait_for_life(client: SyncPrefectClient) -> None:
    """Begin the wait for a heartbeat of every run of ours that the server holds for running, or for about to.

    A server that was down has forgotten whom it waited for, and a run that died meanwhile sends nothing that would
    begin the wait; nor does one whose process was still being started when it and its runner were killed. So one
    heartbeat is given in the name of each: those that live follow it up themselves.
    """
    ours = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING])),
        tags=FlowRunFilterTags(all_=[TAG]),
    )
    given = [
        Event(event=HEARTBEAT, resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"}, related=[OURS])
        for run in client.read_flow_runs(flow_run_filter=ours)
    ]
    client.request("POST", "/events", json=[event.model_dump(mode="json") for event in given])


def _same(found: AutomationCore, wanted: AutomationCore) -> bool:
    """Whether they wait for the same and do the same."""
    return (found.description, found.trigger, found.actions) == (wanted.description, wanted.trigger, wanted.actions)


def _remove(client: SyncPrefectClient) -> None:
    """Take the notification and its address off the server."""
    for automation in client.read_automations_by_name(NOTIFY):
        client.delete_automation(automation.id)
    try:
        client.delete_block_document(client.read_block_document_by_name(BLOCK, "webhook").id)
    except ObjectNotFound:
        return


def _block(client: SyncPrefectClient, webhook: str) -> UUID:
    """Have the address in a block of the server, which keeps it encrypted and shows it to nobody; the block's id.

    Raises:
        RevalError: it is no address. It is not repeated, since it may hold a token.
    """
    if not webhook.startswith(("http://", "https://")):
        raise RevalError("the webhook is no address: it must begin with http:// or https://")
    data = {"method": "POST", "url": webhook, "headers": {"Content-Type": "application/json"}}
    try:
        found = client.read_block_document_by_name(BLOCK, "webhook")
        client.update_block_document(found.id, BlockDocumentUpdate(data=data, merge_existing_data=False))
        return found.id
    except ObjectNotFound:
        pass
    block_type = client.read_block_type_by_slug("webhook")
    schema = client.get_most_recent_block_schema_for_block_type(block_type.id)
    assert schema is not None
    created = client.create_block_document(
        BlockDocumentCreate(name=BLOCK, data=data, block_schema_id=schema.id, block_type_id=block_type.id)
    )
    return created.id
