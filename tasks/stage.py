"""The one decorator of the house: a stage is a function of content-addressed inputs; ``stages`` alone judges it done.

A call looks, in this order, at the run's own history (this iteration has this stage: done, whatever has changed
since), at the table ``stages`` by key (somebody did this very work: link it), and only then runs the body, as a
Prefect task. The body returns what to commit; the content's last rows, the row in ``stages`` and the run's link go into
one transaction that also checks the lease. Prefect's result of the same key is for display and decides nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import duckdb
from prefect import task
from prefect.context import FlowRunContext

from reval_core.identity import digest, short
from reval_core.store import stages
from tasks.commit import Commit
from tasks.run import Here
from tasks.watched import watched

log = logging.getLogger(__name__)

R = TypeVar("R")
P = ParamSpec("P")


class Stage(Generic[P, R]):
    """A stage, called as ``stage(here, *arguments)``; see `stage`."""

    def __init__(
        self,
        body: Callable[Concatenate[Here, P], Commit[R]],
        *,
        name: str,
        reference: Callable[..., R],
        inputs: Callable[Concatenate[Here, P], dict[str, Any]],
        historic: bool,
        settled_by: str | None,
        present: Callable[[Here, R], bool],
    ) -> None:
        update_wrapper(self, body)
        self.body, self.name, self.reference, self.inputs = body, name, reference, inputs
        self.historic, self.settled_by, self.present = historic, settled_by, present
        # by our own key, so Prefect's store of results shows what was done; refreshed, so that it never decides
        self._task = task(
            name=name,
            task_run_name=name + " {iteration}",
            cache_key_fn=_given_key,
            persist_result=True,
            result_serializer="json",
            refresh_cache=True,
        )(_execute)

    def __call__(self, here: Here, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the committed output, running the body only where nobody has committed this work."""
        run = here.run
        slot = (here.iteration, self.name, "")
        if self.historic and slot in run.history:
            log.info("%s of round %d stands in the run's history", self.name, here.iteration)
            return self._reference(run.history[slot])
        if (here.iteration, self.settled_by, "") in run.history:
            log.info("%s of round %d stands: %s is committed", self.name, here.iteration, self.settled_by)
            settled = [output for key, output in run.history.items() if key[:2] == slot[:2]]
            return self._reference(settled[-1])
        inputs = self.inputs(here, *args, **kwargs)
        stage_key = digest(self.name, inputs)
        if not self.historic:
            slot = (here.iteration, self.name, stage_key)
        found = self._linked_or_lease(here, slot, stage_key)
        executed = isinstance(found, stages.Lease)
        if isinstance(found, stages.Lease):
            work = partial(self._run, here, found, slot, inputs, partial(self.body, here, *args, **kwargs))
            if FlowRunContext.get() is None:
                output = work()
            else:
                output = self._task(stage_key=stage_key, iteration=here.iteration, inputs=inputs, work=work)  # type: ignore[assignment]
        else:
            output = found
            log.info("%s of round %d was done already (%s)", self.name, here.iteration, short(stage_key))
        run.remember(slot, output, executed=executed)
        return self._reference(output)

    def stands(self, here: Here, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether somebody has committed this work, so that a call would only link it."""
        with here.run.store.read() as connection:
            output = stages.find(connection, digest(self.name, self.inputs(here, *args, **kwargs)))
        return output is not None and self.present(here, self._reference(output))

    def _linked_or_lease(self, here: Here, slot: tuple[int, str, str], stage_key: str) -> dict[str, Any] | stages.Lease:
        """The committed output, linked to the run, or the right to compute it; waits while a living process does."""
        run = here.run
        waiting = False
        while True:
            with run.store.write() as connection:
                output = stages.find(connection, stage_key)
                if output is not None and self.present(here, self._reference(output)):
                    self._link(connection, here, slot, stage_key, executed=False)
                    return output
                holder = stages.holder(connection, stage_key)
                if holder is None or holder == run.process or not holder.is_alive():
                    return stages.take_lease(connection, stage_key, run.process)
            if not waiting:
                log.warning("process %d is computing the same %s; waiting for it", holder.pid, self.name)
                waiting = True
            time.sleep(0.5)

    def _run(
        self,
        here: Here,
        lease: stages.Lease,
        slot: tuple[int, str, str],
        inputs: dict[str, Any],
        body: Callable[[], Commit[R]],
    ) -> dict[str, Any]:
        run, started = here.run, time.perf_counter()
        committed = False
        try:
            with watched(run.watch, self.name, here.iteration):
                commit = body()
                output = asdict(commit.output)  # type: ignore[call-overload]
                with run.store.write() as connection:
                    commit.write(connection)
                    stages.commit(
                        connection,
                        lease,
                        self.name,
                        inputs,
                        output,
                        seconds=time.perf_counter() - started,
                        run_id=run.run_id,
                        attempt=run.attempt,
                    )
                    self._link(connection, here, slot, lease.stage_key, executed=True)
                committed = True
            log.info("%s of round %d done in %.2f s", self.name, here.iteration, time.perf_counter() - started)
        finally:
            if not committed:
                run.give_up(lease)
        return output

    def _link(
        self,
        connection: duckdb.DuckDBPyConnection,
        here: Here,
        slot: tuple[int, str, str],
        stage_key: str,
        *,
        executed: bool,
    ) -> None:
        iteration, name, label = slot
        stages.link(
            connection,
            here.run.run_id,
            iteration,
            name,
            label,
            stage_key,
            executed=executed,
            attempt=here.run.attempt,
        )

    def _reference(self, output: dict[str, Any]) -> R:
        return self.reference(**output)


def stage(
    name: str,
    *,
    reference: Callable[..., R],
    inputs: Callable[Concatenate[Here, P], dict[str, Any]],
    historic: bool = True,
    settled_by: str | None = None,
    present: Callable[[Here, R], bool] = lambda here, output: True,
) -> Callable[[Callable[Concatenate[Here, P], Commit[R]]], Stage[P, R]]:
    """Make a stage of a function that computes and returns a `Commit`.

    Args:
        name: the stage's name in the store, in Prefect and in logs.
        reference: the frozen dataclass that passes to other tasks.
        inputs: plain JSON data that decides the output; its digest is the stage's key.
        historic: a training stage stands once at each iteration of a run and is never keyed anew; evaluations and
            reports are looked up by key alone.
        settled_by: a later stage of the iteration; once it is committed, this one stands as it did then.
        present: whether a committed output is still there (a folder that was deleted is not).
    """

    def decorate(body: Callable[Concatenate[Here, P], Commit[R]]) -> Stage[P, R]:
        return Stage(
            body,
            name=name,
            reference=reference,
            inputs=inputs,
            historic=historic,
            settled_by=settled_by,
            present=present,
        )

    return decorate


def _given_key(context: Any, parameters: dict[str, Any]) -> str:
    return str(parameters["stage_key"])


def _execute(stage_key: str, iteration: int, inputs: dict[str, Any], work: Callable[[], dict[str, Any]]) -> Any:
    return work()
