"""A cell of an experiment as one cached stage: a run in a root of its own, then taken into the store with its curve.

    find the stage -> lease -> the run, in a process of its own -> one transaction: rows of its store, and the stage

The table ``stages`` says what is done, as for the stages of a run (`tasks.stage`): a committed cell is in the store.
Its root may be deleted then: saved policies are learned again when needed. Inside a flow a cell is a task run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.context import FlowRunContext

from reval_core.errors import StoreError
from reval_core.experiments.experiment import Cell, Metric
from reval_core.home import Home
from reval_core.identity import digest
from reval_core.process import ProcessIdentity
from reval_core.store import Store, curves, merging, runs, stages
from reval_core.store.stages import Lease
from tasks.fork import run_id_of
from tasks.leases import give_up

log = logging.getLogger(__name__)

STAGE = "cell"
Work = Callable[[Cell, Path], None]
"""Brings the cell's run, in this root, to its end."""


@dataclass(frozen=True)
class Computed:
    """A cell that is in the store."""

    run_id: str
    path: str
    """Its root, relative to ours."""
    base_policy_id: str
    curve: list[dict[str, Any]]
    """Its evaluations in order: rounds, tokens, seconds, value, drift (`reval_core.store.curves.curve`)."""


def cell_root(home: Home, experiment: str, cell: Cell) -> Path:
    """Where the cell's run lies. Evaluated otherwise it is another one: what was evaluated on the way counts, too."""
    evaluated = digest("evl", cell.config.evaluation.model_dump(mode="json")).removeprefix("evl_")[:4]
    return home.root / "experiments" / experiment / "cells" / f"{run_id_of(cell.config)}-{evaluated}"


def stage_key(cell: Cell, metric: Metric) -> str:
    """The cell's key in the table of stages."""
    return digest(STAGE, _inputs(cell, metric))


def _inputs(cell: Cell, metric: Metric) -> dict[str, Any]:
    evaluation = cell.config.evaluation.model_dump(mode="json")
    return {
        "run_id": run_id_of(cell.config),
        "rounds": cell.config.run.iterations,
        "evaluation": evaluation,
        "metric": metric.model_dump(mode="json"),
    }


def finished(store: Store, cells: list[Cell], metric: Metric) -> dict[str, Computed]:
    """Name to what is committed, of these cells."""
    with store.read() as connection:
        found = {cell.name: stages.find(connection, stage_key(cell, metric)) for cell in cells}
    return {name: Computed(**output) for name, output in found.items() if output is not None}


def compute(home: Home, experiment: str, cell: Cell, metric: Metric, work: Work) -> Computed:
    """The committed cell, after the work where nobody has done it; waits while a living process does it.

    Raises:
        RevalError: the run failed; the same call goes on with it.
    """
    store, root, key = Store(home.database), cell_root(home, experiment, cell), stage_key(cell, metric)
    found = _found_or_lease(store, key, cell)
    if not isinstance(found, Lease):
        return Computed(**found)
    lease = found

    def body() -> dict[str, Any]:
        started, committed = time.perf_counter(), False
        try:
            if not _is_whole(root, cell, metric):
                work(cell, root)
            output = _take_in(home, store, root, cell, metric, lease, started)
            committed = True
        finally:
            if not committed:
                give_up(store, lease)
        return output

    if FlowRunContext.get() is None:
        return Computed(**body())
    return Computed(**_task(stage_key=key, name=cell.name, inputs=_inputs(cell, metric), work=body))


def _found_or_lease(store: Store, key: str, cell: Cell) -> Mapping[str, Any] | Lease:
    me, waiting = ProcessIdentity.mine(), False
    while True:
        with store.write() as connection:
            output = stages.find(connection, key)
            if output is not None:
                return output
            holder = stages.holder(connection, key)
            if holder is None or holder == me or not holder.is_alive():
                return stages.take_lease(connection, key, me)
        if not waiting:
            log.warning("process %d is computing the cell %s; waiting for it", holder.pid, cell.name)
            waiting = True
        time.sleep(0.5)


def _is_whole(root: Path, cell: Cell, metric: Metric) -> bool:
    """Whether the run was brought to its end already, as on another machine."""
    database = Home(root).database
    if not database.exists():
        return False
    own = Store(database)
    own.prepare()  # also where another version has computed it
    found = own.query_live("SELECT status FROM runs WHERE run_id = $run_id", run_id=run_id_of(cell.config)).to_pylist()
    with own.read() as connection:
        curve = curves.curve(connection, run_id_of(cell.config), metric.benchmark, metric.name)
    return bool(found and found[0]["status"] == "completed" and _last_round(curve) == cell.config.run.iterations)


def _last_round(curve: list[dict[str, Any]]) -> int | None:
    return curve[-1]["rounds"] if curve else None


def _take_in(
    home: Home, store: Store, root: Path, cell: Cell, metric: Metric, lease: Lease, started: float
) -> dict[str, Any]:
    """Merge the cell's store and commit the stage with its curve, at once or not at all."""
    own, run_id, under = Store(Home(root).database), run_id_of(cell.config), str(root.relative_to(home.root))
    with own.read() as connection:
        record = runs.find(connection, run_id)
        curve = curves.curve(connection, run_id, metric.benchmark, metric.name)
    if record is None or _last_round(curve) != cell.config.run.iterations:
        raise StoreError(
            f"{root} is not the whole run {run_id}: it has {len(curve)} evaluations of {metric.benchmark}, "
            f"{metric.name}, and the last must be after round {cell.config.run.iterations}. Delete that folder and "
            "start again."
        )
    output = asdict(Computed(run_id, under, record.base_policy_id, curve))
    with store.write() as connection:
        merging.merge(connection, own.path, under)
        seconds = time.perf_counter() - started
        stages.commit(
            connection, lease, STAGE, _inputs(cell, metric), output, seconds=seconds, run_id=run_id, attempt=None
        )
    return output


@task(
    name=STAGE,
    task_run_name="cell {name}",
    cache_key_fn=lambda context, parameters: str(parameters["stage_key"]),
    persist_result=True,
    result_serializer="json",
    refresh_cache=True,
)
def _task(stage_key: str, name: str, inputs: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return work()
