"""Who waits for a device says so once, and for whom."""

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from reval_core.process import ProcessIdentity
from tasks import device
from tasks.device import Holder


class Limit:
    """Prefect's limit, whose slot is free after some tries."""

    def __init__(self, tries: int) -> None:
        self.left, self.lease = tries, uuid4()

    def increment_concurrency_slots_with_lease(self, *_: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            return SimpleNamespace(json=lambda: {"lease_id": str(self.lease)})
        asked = httpx.Request("POST", "http://127.0.0.1")
        raise httpx.HTTPStatusError("locked", request=asked, response=httpx.Response(device.LOCKED, request=asked))


@pytest.fixture
def acquired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Asks for vm:cpu three times in vain; a holder's file says who has it."""
    monkeypatch.setattr(device, "LOOK_S", 0.0)

    def ask(holder: Holder | None) -> tuple[UUID, UUID]:
        file = tmp_path / "devices" / "cpu.json"
        file.parent.mkdir()
        if holder is not None:
            file.write_text(json.dumps(asdict(holder)), encoding="utf-8")
        limit = Limit(tries=3)
        return device._acquire(limit, "vm:cpu", file), limit.lease

    return ask


def test_who_waits_is_told_once_for_whom(
    acquired: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = os.getppid()
    process = ProcessIdentity.of(parent)
    got, lease = acquired(Holder(str(uuid4()), process, "small (small-1234, attempt 2)", "2026-11-01 10:00:00"))
    assert got == lease
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.WARNING,
            "waiting for vm:cpu, which is held by small (small-1234, attempt 2) "
            f"(process {parent}, since 2026-11-01 10:00:00 UTC)",
        )
    ]
    assert capsys.readouterr().out == ""


def test_a_holder_of_another_root_is_told_with_the_way_to_free_the_device(
    acquired: Any, caplog: pytest.LogCaptureFixture
) -> None:
    acquired(None)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("waiting for vm:cpu, which is held by a program that does not work in ")
    assert "`prefect global-concurrency-limit update vm:cpu --active-slots 0`" in told
