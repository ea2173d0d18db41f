"""Which training problems stand in a benchmark: told at the start of a run, on its page, and beside an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reval_core.problems import Problem
from reval_core.problems.benchmarks import registered
from reval_core.problems.overlap import Overlap, overlaps
from reval_core.store import Store, runs, schedule
from reval_core.store import problems as stored_problems
from tasks.run import Run

EVENT = "overlap"


def found_in(training: Sequence[Problem], benchmarks: Mapping[str, Sequence[Problem]]) -> list[Overlap]:
    """What the training problems have of each benchmark that is not made of training problems on purpose."""
    kept = {name: problems for name, problems in benchmarks.items() if not ((r := registered(name)) and r.of_training)}
    return [one for one in overlaps(training, kept) if one.found] if training else []


def tell_overlap(run: Run) -> None:
    """Record and say, once, that training problems stand in a benchmark of the run."""
    run.overlap = found_in(list(run.problems.values()), run.benchmarks)
    with run.store.read() as connection:
        told = runs.messages(connection, run.run_id, EVENT)
    for one in run.overlap:
        if str(one) not in told:
            run.event(EVENT, str(one))


def of_policy(store: Store, policy_id: str, benchmarks: Mapping[str, Sequence[Problem]]) -> list[Overlap]:
    """What the run that made a stored policy could train on of each benchmark; nothing is known of a base model."""
    found = store.query_live("SELECT run_id FROM policies WHERE policy_id = $policy", policy=policy_id).to_pylist()
    run_id = found[0]["run_id"] if found else None
    if run_id is None:
        return []
    with store.read() as connection:
        ids = sorted(schedule.since(connection, run_id))
        training = stored_problems.read(connection, ids, whole_row=False)
    return found_in(list(training.values()), benchmarks)
