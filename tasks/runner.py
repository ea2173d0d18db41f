"""Prefect's runner for `reval serve`: puts the deployments of a file on the server, and runs what is asked of them.

    python -m tasks.runner prefect.yaml [--limit N] [--ready FILE]

The file is one for `prefect deploy`; of it a runner needs name, entrypoint, parameters, schedules and what happens to
two runs at once. Work pools are for workers on other machines, and are passed over.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from prefect import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.deployments.schedules import create_deployment_schedule_create
from prefect.exceptions import MissingFlowError, ObjectNotFound, ScriptError
from prefect.runner import Runner
from prefect.schedules import Cron, Interval, RRule, Schedule
from prefect.utilities.callables import ParameterSchema
from prefect.utilities.schema_tools.validation import ValidationError as WrongParameters
from prefect.utilities.schema_tools.validation import validate
from prefect.variables import Variable
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from reval_core.errors import ConfigError, RevalError
from tasks.services import TAG

POLL_S = 2.0
"""Seconds between two looks for runs that are due."""
TOLD = "reval_schedules"
"""Prefect variable: which schedules the file said were on, when it was last deployed."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Parameters(ParameterSchema):
    """What a flow takes. Prefect's own schema lets any further name pass, and the flow run crashes at it."""

    additionalProperties: bool


class ScheduleEntry(_Part):
    """When a deployment runs: one of cron, interval (seconds) and rrule."""

    slug: str
    cron: str | None = None
    interval: float | None = None
    rrule: str | None = None
    timezone: str | None = None
    active: bool = True
    parameters: dict[str, Any] = {}

    def made(self) -> Schedule:
        """As Prefect has it.

        Raises:
            ValueError: it does not say when.
        """
        rest: dict[str, Any] = {
            "timezone": self.timezone,
            "active": self.active,
            "parameters": self.parameters,
            "slug": self.slug,
        }
        if self.cron is not None:
            return Cron(self.cron, **rest)
        if self.interval is not None:
            return Interval(self.interval, **rest)
        if self.rrule is not None:
            return RRule(self.rrule, **rest)
        raise ValueError("says not when: give it cron, interval (seconds) or rrule")

    @model_validator(mode="after")
    def _a_time_that_there_is(self) -> Self:
        """So that a wrong cron line or time zone is refused before a server is started."""
        try:
            create_deployment_schedule_create(self.made())
        except ValidationError as error:
            raise ValueError(_told(error)) from error
        return self


class Overlap(_Part):
    """What happens to a run that is due while another one of the deployment is at work."""

    limit: int
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"


class Entry(_Part):
    """A deployment."""

    name: str
    entrypoint: str
    description: str | None = None
    tags: list[str] = []
    parameters: dict[str, Any] = {}
    schedules: list[ScheduleEntry] = []
    concurrency_limit: Overlap | None = None
    work_pool: dict[str, Any] | None = None
    version: str | None = None

    def made(self) -> RunnerDeployment:
        """As Prefect has it, with the flow's own parameters alone: another name is refused, here and at each start.

        Raises:
            ConfigError: there is no such flow, or it does not take what the entry gives it.
        """
        overlap = self.concurrency_limit
        try:
            made = RunnerDeployment.from_entrypoint(
                self.entrypoint,
                self.name,
                description=self.description,
                tags=self.tags,
                parameters=self.parameters,
                schedules=[schedule.made() for schedule in self.schedules],
                concurrency_limit=None if overlap is None else ConcurrencyLimitConfig(**overlap.model_dump()),
                version=self.version,
            )
            taken = _Parameters(
                **made._parameter_openapi_schema.model_dump(exclude_unset=True), additionalProperties=False
            )
            for given in (self.parameters, *(schedule.parameters for schedule in self.schedules)):
                validate(given, taken.model_dump(), raise_on_error=True, ignore_required=True)
        except (MissingFlowError, ScriptError, OSError, ImportError, WrongParameters) as error:
            raise ConfigError(f"Deployment {self.name}, {self.entrypoint}: {error}") from error
        made._parameter_openapi_schema = taken
        return made


def read_entries(path: Path) -> list[Entry]:
    """The deployments of a file.

    Raises:
        ConfigError: it is not there, not YAML, or an entry is not understood; says which.
    """
    if not path.is_file():
        raise ConfigError(
            f"There is no file {path.absolute()}. Start in the folder of prefect.yaml, which is that of the checkout "
            "(configurations are found from there, too), or name a file with --deployments."
        )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    found = tree.get("deployments") if isinstance(tree, dict) else None
    if not isinstance(found, list) or not found:
        raise ConfigError(f"{path} has no list `deployments`.")
    entries = []
    for number, entry in enumerate(found, start=1):
        try:
            entries.append(Entry.model_validate(entry))
        except ValidationError as error:
            name = entry.get("name", number) if isinstance(entry, dict) else number
            raise ConfigError(f"{path}, deployment {name}: {_told(error)}") from error
    return entries


def _told(error: ValidationError) -> str:
    """What is wrong, and where."""
    told = ((".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in error.errors())
    return "; ".join(f"{where}: {what}" if where else what for where, what in told)


def _as_left(made: RunnerDeployment, told: Mapping[str, bool]) -> None:
    """Give a deployment the schedules of the server's: what somebody switched or added in the UI stays.

    One that `prefect deploy` made for a work pool is removed: a runner cannot run it.

    Args:
        made: the deployment as the file has it; gets the schedules.
        told: schedule, as FLOW/DEPLOYMENT/SLUG, to what the file said of it at the last start. Where it says something
            else now, the file is followed.
    """
    with get_client(sync_client=True) as client:
        try:
            known = client.read_deployment_by_name(f"{made.flow_name}/{made.name}")
        except ObjectNotFound:
            return
        if known.work_pool_name is not None:
            client.delete_deployment(known.id)
            return
    ours = {schedule.slug: schedule for schedule in made.schedules or []}
    for there in known.schedules:
        here = ours.get(there.slug)
        if here is None:
            kept = there.model_dump(include={"schedule", "active", "parameters", "slug"})
            made.schedules = [*(made.schedules or []), DeploymentScheduleCreate(**kept)]
        elif told.get(f"{made.flow_name}/{made.name}/{there.slug}") == here.active:
            here.active = there.active


def _deployments(entries: list[Entry]) -> list[RunnerDeployment]:
    """The deployments of the file, and what the file says of their schedules kept on the server for the next start."""
    deployments = [entry.made() for entry in entries]
    told = {
        f"{made.flow_name}/{made.name}/{schedule.slug}": schedule.active
        for made in deployments
        for schedule in made.schedules or []
    }
    before: dict[str, bool] = Variable.get(TOLD, default={})
    for made in deployments:
        _as_left(made, before)
    Variable.set(TOLD, told, tags=[TAG], overwrite=True)
    return deployments


def main() -> None:
    """Deploy, then run what comes, until asked to end."""
    parser = argparse.ArgumentParser(prog="python -m tasks.runner")
    parser.add_argument("deployments", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--ready", type=Path, help="is written once everything is deployed")
    given = parser.parse_args()
    try:
        deployments = _deployments(read_entries(given.deployments))
    except RevalError as error:
        sys.exit(str(error))
    runner = Runner(name="reval", limit=given.limit, pause_on_shutdown=False, query_seconds=POLL_S)
    for deployment in deployments:
        runner.add_deployment(deployment)
    if given.ready is not None:
        given.ready.touch()
    asyncio.run(runner.start())


if __name__ == "__main__":
    main()
