"""An interruption stays one, whatever a library makes of it on its way."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from prefect.exceptions import TerminationSignal

from tasks.ending import ASKED_TO_END, ended_by_signals, interruptions_told, signals_wait


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_a_write(number: int) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), ended_by_signals(), signals_wait():
        signal.raise_signal(number)
        done.append("written")
    assert done == ["written"]


def test_a_signal_is_not_lost_where_the_write_fails() -> None:
    with pytest.raises(ASKED_TO_END), interruptions_told(), signals_wait():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("the database is gone")


def test_handlers_are_put_back_and_other_threads_pass_by() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool, signals_wait():
        assert pool.submit(_written).result() == "written"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def _written() -> str:
    with signals_wait():
        return "written"
