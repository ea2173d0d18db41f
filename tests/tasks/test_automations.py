"""Automations on a real Prefect server: what went wrong reaches a local receiver, and dead runs are crashed."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
from prefect import flow, tags
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.context import refresh_global_settings_context
from prefect.events import emit_event
from prefect.states import Failed, Pending, Running, Scheduled
from prefect.types._datetime import now

import tasks.health
from reval_core.errors import RevalError
from tasks.automations import BLOCK, BREACH, DEAD, ENDS, NOTIFY, install
from tasks.context import nothing_to_do

pytestmark = [pytest.mark.slow, pytest.mark.long]
LIMIT_S = 240
"""A generous limit for what takes seconds."""
HEARTBEAT_S = 30
"""The shortest time between heartbeats that Prefect allows."""
SECRET = "token-0815"
BROKEN_RULE = {"metric": "truncated", "value": 0.75, "bound": 0.5, "message": "truncated is above 0.5"}


class Receiver:
    """A webhook on this machine, and what it received."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        received = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append({"path": self.path, **json.loads(body)})
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/{SECRET}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def told(self) -> list[dict[str, Any]]:
        """Every message; one that Prefect sent again, as it does where SQLite was locked, is there once."""
        return list({message["id"]: message for message in list(self.messages)}.values())

    def of(self, name: str) -> list[dict[str, Any]]:
        """What was told of a flow run."""
        return [message for message in self.told() if message["flow_run"] == name]


class Server:
    """A Prefect server of our own, with the services that `prefect server start` has."""

    def __init__(self, home: Path) -> None:
        with create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.log = home / "server.log"
        self.environment = {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        home.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(LIMIT_S)


@contextmanager
def settings(values: dict[str, str]) -> Iterator[None]:
    """Prefect's settings for every thread of this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        refresh_global_settings_context()
        yield
    refresh_global_settings_context()


def until(holds: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """What the function gives, once that is true."""
    deadline = time.monotonic() + limit_s
    while not (result := holds()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return result


def healthy(client: SyncPrefectClient) -> bool:
    return client.api_healthcheck() is None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("prefect"))
    with settings(running.environment):
        yield running
    running.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(server.environment["PREFECT_API_URL"]) as connected:
        until(lambda: healthy(connected))
        yield connected


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    listening = Receiver()
    yield listening
    listening.server.shutdown()


@pytest.fixture
def installed(client: SyncPrefectClient, receiver: Receiver) -> SyncPrefectClient:
    install(client, webhook=receiver.url, heartbeat_s=HEARTBEAT_S, dead_after_s=2 * HEARTBEAT_S)
    return client


def stored(client: SyncPrefectClient) -> list[dict[str, Any]]:
    """The automations with the ids of their triggers, which an update changes, and when they were updated."""
    return list(client.request("POST", "/automations/filter", json={}).json())


@flow(name="train", flow_run_name="{name}")
def broken(name: str, error: BaseException) -> None:
    raise error


@flow(name="train", flow_run_name="{name}")
def breaching(name: str) -> None:
    emit_event(
        BREACH,
        resource={"prefect.resource.id": "reval.run.breaching-0815"},
        payload=BROKEN_RULE,
    )


def test_installing_twice_leaves_one_of_each_and_does_not_touch_it(
    installed: SyncPrefectClient, receiver: Receiver
) -> None:
    before = stored(installed)
    install(installed, webhook=receiver.url, heartbeat_s=HEARTBEAT_S, dead_after_s=2 * HEARTBEAT_S)
    assert sorted(automation["name"] for automation in before) == [DEAD, NOTIFY]
    assert stored(installed) == before


def test_what_went_wrong_is_told_once_with_its_run_and_a_link(
    installed: SyncPrefectClient, receiver: Receiver, server: Server
) -> None:
    with tags("reval", "run:small-0815"):
        with pytest.raises(ValueError):
            broken("failing", ValueError('no "room" left'))
        with pytest.raises(SystemExit):
            broken("crashing", SystemExit(3))
        breaching("breaching")
    ours = {"reval", "run:small-0815"}
    late = installed.create_flow_run(broken, name="waiting", tags=ours, state=Scheduled(scheduled_time=now("UTC")))
    slow = installed.create_flow_run(broken, name="slow", tags=ours, state=Running())
    installed.set_flow_run_state(slow.id, Failed(name="TimedOut", message="after 5 s"))
    with pytest.raises(ValueError):
        broken("somebody else's", ValueError("not of ours"))
    until(lambda: receiver.of("waiting"))
    with tags("reval"):
        breaching("last")
    names = ("failing", "crashing", "slow", "waiting", "breaching")
    until(lambda: all(receiver.of(name) for name in (*names, "last")))

    assert sorted(message["flow_run"] for message in receiver.told()) == sorted((*names, "last"))
    (failed,), (crashed,), (timed_out,), (waiting,), (breach,) = map(receiver.of, names)
    assert [message["what"] for message in (failed, crashed, timed_out, waiting, breach)] == [
        "failed",
        "crashed",
        "timedout",
        "late",
        "breach",
    ]
    assert {message["run"] for message in (failed, crashed, timed_out, waiting, breach)} == {"small-0815"}
    assert failed["message"] == 'Flow run encountered an exception: ValueError: no "room" left'
    assert failed["text"] == f"ReVal small-0815 failed: {failed['message']}"
    assert crashed["message"] == "Execution was aborted by Python system exit call."
    assert timed_out["text"] == "ReVal small-0815 timedout: after 5 s"
    assert waiting["message"] is None
    assert waiting["text"] == "ReVal small-0815 late"
    assert waiting["url"] == f"http://127.0.0.1:{server.port}/runs/flow-run/{late.id}"
    assert breach["breach"] == BROKEN_RULE
    assert breach["text"] == "ReVal small-0815 breach: truncated is above 0.5"
    assert failed["breach"] is None


def test_a_tag_given_after_the_start_names_the_run(installed: SyncPrefectClient, receiver: Receiver) -> None:
    begun = installed.create_flow_run(broken, name="tagged later", tags=["reval"], state=Running())
    installed.update_flow_run(begun.id, tags=["reval", "run:later-0815"])
    installed.set_flow_run_state(begun.id, Failed())
    (message,) = until(lambda: receiver.of("tagged later"))
    assert message["run"] == "later-0815"


def test_the_address_is_shown_neither_in_logs_nor_to_readers(installed: SyncPrefectClient, server: Server) -> None:
    assert SECRET not in server.log.read_text()
    shown = installed.read_block_document_by_name(BLOCK, "webhook", include_secrets=False)
    assert SECRET not in shown.model_dump_json()
    assert SECRET not in "".join(automation.model_dump_json() for automation in installed.read_automations())
    with pytest.raises(RevalError, match="the webhook is no address") as raised:
        install(installed, webhook=f"hooks.example/{SECRET}", heartbeat_s=HEARTBEAT_S, dead_after_s=60)
    assert SECRET not in str(raised.value)


def test_a_changed_setting_is_brought_up_to_date_and_a_paused_automation_stays_paused(
    installed: SyncPrefectClient, receiver: Receiver
) -> None:
    (dead,) = installed.read_automations_by_name(DEAD)
    installed.pause_automation(dead.id)
    install(installed, webhook=receiver.url + "/new", heartbeat_s=HEARTBEAT_S, dead_after_s=300)
    (updated,) = installed.read_automations_by_name(DEAD)
    installed.resume_automation(dead.id)
    assert (updated.id, updated.enabled) == (dead.id, False)
    assert updated.trigger.within == timedelta(seconds=300)
    assert installed.read_block_document_by_name(BLOCK, "webhook").data["url"] == receiver.url + "/new"


def test_without_a_webhook_there_is_no_notification(installed: SyncPrefectClient) -> None:
    for _ in range(2):
        install(installed, webhook=None, heartbeat_s=HEARTBEAT_S, dead_after_s=2 * HEARTBEAT_S)
        assert [automation.name for automation in installed.read_automations()] == [DEAD]
        assert installed.read_block_documents() == []


def test_what_others_name_is_what_is_waited_for() -> None:
    assert tasks.health.EVENT == BREACH
    assert nothing_to_do("all is done").name in ENDS


def test_a_death_takes_at_least_two_heartbeats(client: SyncPrefectClient) -> None:
    with pytest.raises(RevalError, match="let at least 60 s pass"):
        install(client, webhook=None, heartbeat_s=HEARTBEAT_S, dead_after_s=45)


SLEEPER = """
import sys, time
from prefect import flow, tags

@flow(name="train", flow_run_name="{name}")
def asleep(name: str, seconds: float) -> None:
    time.sleep(seconds)

with tags("reval"):
    asleep(sys.argv[1], float(sys.argv[2]))
"""
"""A flow in a process of its own, which beats every 30 s."""


@contextmanager
def asleep(name: str, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", SLEEPER, name, str(seconds)]) as process:
        try:
            yield process
        finally:
            process.kill()


def run_of(client: SyncPrefectClient, name: str) -> FlowRun:
    (found,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return found


def events(client: SyncPrefectClient, name: str) -> list[dict[str, Any]]:
    """The stored events of a name."""
    answer = client.request("POST", "/events/filter", json={"filter": {"event": {"name": [name]}}, "limit": 50})
    return list(answer.json()["events"])


def beats(client: SyncPrefectClient, name: str) -> int:
    """Stored heartbeats of a flow run."""
    stored = events(client, "prefect.flow-run.heartbeat")
    return sum(event["resource"].get("prefect.resource.name") == name for event in stored)


@pytest.mark.long
def test_a_killed_run_is_crashed_and_told_of_and_others_are_left_alone(
    installed: SyncPrefectClient, receiver: Receiver
) -> None:
    with asleep("alive", 600) as alive, asleep("killed", 600) as killed, asleep("done", 2.0) as done:
        until(lambda: min(beats(installed, name) for name in ("alive", "killed", "done")) > 0)
        killed.kill()
        assert done.wait(LIMIT_S) == 0
        until(lambda: run_of(installed, "killed").state_name == "Crashed", limit_s=2 * HEARTBEAT_S + LIMIT_S)
        (told,) = until(lambda: receiver.of("killed"))
        until(lambda: beats(installed, "alive") > 2, limit_s=2 * HEARTBEAT_S + LIMIT_S)
        assert [run_of(installed, name).state_name for name in ("done", "alive")] == ["Completed", "Running"]
        alive.kill()
    assert (told["what"], told["message"]) == ("crashed", "No heartbeat for 60 s: the process is gone or hangs.")
    assert events(installed, "prefect.automation.action.failed") == []


@pytest.mark.long
def test_a_run_that_was_killed_before_its_first_heartbeat_is_crashed_and_told_of(
    installed: SyncPrefectClient, receiver: Receiver
) -> None:
    installed.create_flow_run(broken, name="stillborn", tags=["reval"], state=Running())
    (told,) = until(lambda: receiver.of("stillborn"), limit_s=2 * HEARTBEAT_S + LIMIT_S)
    assert (told["what"], told["run"], run_of(installed, "stillborn").state_name) == ("crashed", None, "Crashed")


@pytest.mark.long
def test_a_run_that_died_while_the_server_was_down_is_crashed_after_the_next_installation(
    installed: SyncPrefectClient, server: Server
) -> None:
    # a server that was down has forgotten whom it waited for; nothing of what is pending begins a wait by itself
    installed.create_flow_run(broken, name="unplugged", tags=["reval"], state=Running())
    installed.create_flow_run(broken, name="about to", tags=["reval"], state=Pending())
    server.stop()
    server.start()
    until(lambda: healthy(installed))
    install(installed, webhook=None, heartbeat_s=HEARTBEAT_S, dead_after_s=2 * HEARTBEAT_S)
    for name in ("unplugged", "about to"):
        assert until(
            lambda name=name: run_of(installed, name).state_name == "Crashed", limit_s=2 * HEARTBEAT_S + LIMIT_S
        )
