"""An interruption stays one, whatever a library makes of it on its way."""

import pytest
from prefect.exceptions import TerminationSignal

from tasks.ending import ASKED_TO_END, interruptions_told


@pytest.mark.parametrize("asked", [KeyboardInterrupt(), TerminationSignal(15)])
def test_an_error_met_while_an_interruption_was_dealt_with_is_that_interruption(asked: BaseException) -> None:
    with pytest.raises(ASKED_TO_END) as caught, interruptions_told():
        try:
            raise asked
        except ASKED_TO_END:
            # as Prefect does between two states of a task run
            raise ValueError("Task run is not set")  # noqa: B904

    assert caught.value is asked


def test_an_error_of_its_own_stays_one() -> None:
    with pytest.raises(ValueError, match="mine"), interruptions_told():
        raise ValueError("mine")


def test_an_error_that_was_told_apart_from_an_interruption_stays_one() -> None:
    with pytest.raises(ValueError, match="the watcher"), interruptions_told():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ValueError("ended by the watcher") from None
