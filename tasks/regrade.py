"""Regrade: stored responses by another verifier, as a Prefect task; what it has graded before it does not again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from reval_core.problems import Problem
from reval_core.store import Store
from reval_core.store.selections import Chosen
from reval_core.verification import Grader
from tasks.grading import grade_missing
from tasks.progress import Progress


@task(name="verify", task_run_name="verify", cache_policy=NO_CACHE, persist_result=False)
def _task(work: Callable[[], int]) -> int:
    return work()


def regrade(
    store: Store,
    chosen: Sequence[Chosen],
    problems: Mapping[str, Problem],
    grader: Grader,
    progress: Progress,
    most: float,
) -> int:
    """As `grade_missing`, which verdicts in the store make a stage of its own: asked again, it has nothing to do."""

    def work() -> int:
        return grade_missing(store, chosen, problems, grader, progress, most)

    return work() if FlowRunContext.get() is None else _task(work)
