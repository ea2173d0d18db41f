"""What a file of deployments says wrongly is told by name, before anything is started or put on a server."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from reval_core.errors import ConfigError
from tasks.runner import Entry, read_entries

FLOW = """
from prefect import flow

@flow
def small(rounds: int = 1):
    pass
"""


def a_file(folder: Path, **entry: Any) -> Path:
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump({"deployments": [{"name": "mine", "entrypoint": "flow.py:small", **entry}]}))
    return path


@pytest.fixture
def flow_file(tmp_path: Path) -> str:
    (tmp_path / "flow.py").write_text(FLOW)
    return f"{tmp_path / 'flow.py'}:small"


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ({"cron": "0 25 * * *"}, 'Invalid cron string: "0 25 * * *"'),
        ({"cron": "0 3 * * *", "timezone": "Europe/Berln"}, 'timezone: Invalid timezone: "Europe/Berln"'),
        ({}, "says not when"),
        ({"corn": "0 3 * * *"}, "corn: Extra inputs are not permitted"),
    ],
)
def test_a_schedule_that_is_no_time_is_refused(tmp_path: Path, schedule: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=r"deployment mine: schedules\.0") as caught:
        read_entries(a_file(tmp_path, schedules=[{"slug": "nightly", **schedule}]))
    assert told in str(caught.value)


def test_a_missing_file_is_told_with_its_whole_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path / "none.yaml")):
        read_entries(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("parameters", "told"),
    [({"round": 2}, "'round' was unexpected"), ({"rounds": "many"}, "'many' is not of type 'integer'")],
)
@pytest.mark.parametrize("of_the_schedule", [False, True])
def test_a_parameter_that_the_flow_does_not_take_is_refused(
    flow_file: str, parameters: dict[str, Any], told: str, of_the_schedule: bool
) -> None:
    given: dict[str, Any] = {"parameters": parameters}
    if of_the_schedule:
        given = {"schedules": [{"slug": "nightly", "cron": "0 3 * * *", **given}]}
    with pytest.raises(ConfigError, match="Deployment mine") as caught:
        Entry.model_validate({"name": "mine", "entrypoint": flow_file, **given}).made()
    assert told in str(caught.value)


def test_the_server_is_told_to_refuse_further_parameters(flow_file: str) -> None:
    made = Entry(name="mine", entrypoint=flow_file, parameters={"rounds": 2}).made()
    schema = made._parameter_openapi_schema.model_dump(exclude_unset=True)
    assert schema["additionalProperties"] is False and set(schema["properties"]) == {"rounds"}


@pytest.mark.parametrize("entrypoint", ["none.py:small", "flow.py:none", "no.such.module"])
def test_a_flow_that_is_not_there_is_told(flow_file: str, entrypoint: str) -> None:
    folder = Path(flow_file.partition(":")[0]).parent
    at = str(folder / entrypoint) if ":" in entrypoint else entrypoint
    with pytest.raises(ConfigError, match="Deployment mine"):
        Entry(name="mine", entrypoint=at).made()
