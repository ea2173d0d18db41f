"""Training: generate, verify, score, persist, learn; every so often evaluate, save, reset the reference.

    reval train configs/quickstart.yaml

Run again, the same configuration and seed execute no stage a second time; killed, the same command goes on where it
stopped. See docs/architecture.md for what happens in each stage.
"""

from __future__ import annotations

from collections.abc import Callable

from prefect import flow

from reval_core.config import Config
from reval_core.home import Home
from tasks import disk
from tasks.artifact import show_artifact
from tasks.best import link_best
from tasks.checkpoint import checkpoint
from tasks.context import flow_run_id, tagged
from tasks.evaluate import evaluate
from tasks.fork import Fork
from tasks.generate import generate
from tasks.health import watch_health
from tasks.learn import learn
from tasks.logged_models import log_models
from tasks.open_run import open_run
from tasks.outcome import Outcome, outcome
from tasks.persist import persist
from tasks.progress import Progress
from tasks.prune import prune
from tasks.publish import publish
from tasks.report import report, report_files
from tasks.run import Here, Run
from tasks.score import calibrate_reference, score, score_window
from tasks.track import Tracker, log_files, show_round, track, tracking
from tasks.verify import verify


@flow(name="train", flow_run_name="train {config.run.name}", validate_parameters=False)
def train(config: Config, home: Home, progress: Progress, fork: Fork | None = None) -> Outcome:
    """Train a policy by ReVal, or by one of its baselines.

    Args:
        config: the resolved configuration.
        home: the root under which everything lies.
        progress: where live progress is shown.
        fork: branch off another run at an iteration; None for a run of its own.
    """
    with (
        open_run(config, home, progress=progress, fork=fork, flow_run_id=flow_run_id()) as run,
        tagged(run),
        tracking(run) as tracker,
    ):
        if config.evaluation.before:
            evaluate_all(Here(run, -1), run.record.base_policy_id)
        return all_rounds(run, tracker, one_round)


def all_rounds(run: Run, tracker: Tracker, one_round: Callable[[Here, str], str]) -> Outcome:
    """The rounds that are left, what is due after each, and the end of the run."""
    here = Here(run, run.iterations_done() - 1)
    policy = run.policy_after(here.iteration)
    if here.iteration >= 0:
        ask_again(run)
        after_round(here, policy)  # which a kill may have left undone
        watch_health(here)
    for here in run.rounds():
        policy = one_round(here, policy)
        after_round(here, policy)
        take_in(run)
        if here.evaluation_due:
            link_best(run)
        show_round(here)
        track(run, tracker)
        if here.checkpoint_due or here.evaluation_due:
            log_models(run, tracker)
        publish(here)
        watch_health(here)
        show_artifact(here)
    return finish(run, tracker, policy)


def one_round(here: Here, policy: str) -> str:
    """One iteration; returns the new policy's id."""
    reference = here.run.reference_during(here.iteration)
    renew_reference(here, policy, reference)
    if reference is not None:
        calibrate_reference(here, reference)

    batch = generate(here, policy)
    verdicts = verify(here, batch)
    if reference is not None:
        score(here, batch, reference)
        calibrate_reference(here, reference, batch)  # in the first round, before which there is no window
    persist(here, batch, verdicts)
    return learn(here, policy, reference).policy_id


def renew_reference(here: Here, policy: str, reference: str | None) -> None:
    """Where a reset is due or a fork begins: save the policy, and score the window under the iteration's reference."""
    if here.reset_due or here.begins_fork:
        checkpoint(Here(here.run, here.iteration - 1), policy)
    if here.reset_due:
        here.run.policies.keep_frozen(reference)
    if reference is not None and (here.reset_due or here.begins_fork):
        score_window(here, reference)


def after_round(here: Here, policy: str) -> None:
    """What is due every so many rounds; done again, it costs a look at the store."""
    if here.checkpoint_due:
        checkpoint(here, policy)
        prune(here)
    if here.evaluation_due:
        evaluate_all(here, policy)


def finish(run: Run, tracker: Tracker, policy: str) -> Outcome:
    """The end of a run: its last policy saved and evaluated, its report."""
    last = Here(run, run.iterations_done() - 1)
    checkpoint(last, policy)
    if run.config.evaluation.after:
        evaluate_all(last, policy)
    take_in(run, wait=True)
    link_best(run)
    track(run, tracker)
    reported = report(last)
    log_files(tracker, report_files(run, reported), "report")
    prune(last)
    log_models(run, tracker)
    show_artifact(last, last=True)
    return outcome(run, reported.path)


def evaluate_all(here: Here, policy: str) -> None:
    """Every configured benchmark; by the process beside the run where there is one, and taken in later."""
    run, benchmarks = here.run, here.run.config.evaluation.benchmarks
    if run.aside is None or all(evaluate.stands(here, policy, benchmark) for benchmark in benchmarks):
        _evaluate_here(here, policy)
        return
    if policy != run.base.policy_id:
        disk.check_policy(here, with_optimizer=False)
        run.policies.save(policy, run_id=run.run_id, iteration=here.iteration, with_optimizer=False)
    run.aside.ask(here.iteration, policy)


def _evaluate_here(here: Here, policy: str) -> None:
    for benchmark in here.run.config.evaluation.benchmarks:
        evaluate(here, policy, benchmark)


def ask_again(run: Run) -> None:
    """Evaluations that a killed attempt left to the process beside it."""
    for iteration in range(run.iterations_done() - 1) if run.aside is not None else ():
        if Here(run, iteration).evaluation_due:
            evaluate_all(Here(run, iteration), run.policy_after(iteration))


def take_in(run: Run, *, wait: bool = False) -> None:
    """Link what the process beside the run has evaluated; with ``wait``, all that it was asked for."""
    for iteration, policy in run.aside.finished(wait=wait) if run.aside is not None else ():
        _evaluate_here(Here(run, iteration), policy)
