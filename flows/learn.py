"""Learning from stored trajectories alone: what a person chose is admitted once, then only updates follow.

    reval learn configs/quickstart.yaml --trajectories window:RUN

Nothing is sampled but for evaluations. A round has as many updates as one of training, all drawn from the selection.
"""

from __future__ import annotations

from prefect import flow

from flows.train import all_rounds, evaluate_all, renew_reference
from reval_core.config import Config
from reval_core.home import Home
from reval_core.store import Store
from tasks.admit import admit
from tasks.context import flow_run_id, tagged
from tasks.learn import learn
from tasks.open_run import open_run
from tasks.outcome import Outcome
from tasks.progress import Progress
from tasks.run import Here
from tasks.score import calibrate_reference, score_window
from tasks.select import select
from tasks.track import tracking


@flow(name="learn", flow_run_name="learn {config.run.name}", validate_parameters=False)
def learn_stored(config: Config, home: Home, progress: Progress) -> Outcome:
    """Learn from the trajectories that ``offline`` of the configuration names.

    Args:
        config: the resolved configuration.
        home: the root under which everything lies.
        progress: where live progress is shown.
    """
    store = Store(home.database, lock_wait_s=config.store.lock_wait_s)
    selection = select(config, store)
    with (
        open_run(config, home, progress=progress, selection=selection, flow_run_id=flow_run_id()) as run,
        tagged(run),
        tracking(run) as tracker,
    ):
        if config.evaluation.before:
            evaluate_all(Here(run, -1), run.record.base_policy_id)
        admit(Here(run, 0), selection)
        return all_rounds(run, tracker, one_round)


def one_round(here: Here, policy: str) -> str:
    """One iteration; returns the new policy's id."""
    reference = here.run.reference_during(here.iteration)
    renew_reference(here, policy, reference)
    if reference is not None:
        if here.iteration == 0:
            score_window(here, reference)
        calibrate_reference(here, reference)
    return learn(here, policy, reference).policy_id
