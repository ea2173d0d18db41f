"""One cell of an experiment: a training run alone, without Prefect, MLflow, report and page, in a root of its own.

    python -m flows.cell ROOT

It reads ROOT/config.yaml, does what `reval train` does, and goes on where an earlier process stopped. It says `round N`
on standard output after each round. Standard input is its lifeline: when its other end closes, the cell ends in order.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path

from flows.train import after_round, evaluate_all, one_round
from reval_core.config import Config
from reval_core.config_files import load_config
from reval_core.errors import RevalError
from reval_core.home import Home
from tasks.checkpoint import checkpoint
from tasks.open_run import open_run
from tasks.progress import Progress
from tasks.publish import settle
from tasks.run import Here

CONFIG = "config.yaml"
"""The cell's resolved configuration, in its root."""


class Rounds(Progress):
    """Says nothing but how many rounds are done."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def end_round(self, iteration: int) -> None:
        """A line for who started the cell."""
        print(f"round {iteration + 1}", flush=True)


def run_cell(config: Config, home: Home, progress: Progress) -> str:
    """All rounds that are left, with evaluations and checkpoints when they are due; returns the run's id."""
    alone = config.evaluation.model_copy(update={"device": None})  # a cell has the device that its experiment gives it
    with open_run(config.model_copy(update={"evaluation": alone}), home, progress=progress) as run:
        if config.evaluation.before:
            evaluate_all(Here(run, -1), run.record.base_policy_id)
        here = Here(run, run.iterations_done() - 1)
        policy = run.policy_after(here.iteration)
        if here.iteration >= 0:
            after_round(here, policy)  # which a kill may have left undone
        for here in run.rounds():
            policy = one_round(here, policy)
            after_round(here, policy)
            settle(here)
        last = Here(run, run.iterations_done() - 1)
        checkpoint(last, policy)
        if config.evaluation.after:
            evaluate_all(last, policy)
        return run.run_id


def _end_with_the_other() -> None:
    # nothing is written to it; past Python's buffer, whose lock would be held at the end
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run the cell of the root that is named."""
    root = Path(sys.argv[1]).resolve()
    # Prefect's, whose import made them; the attempt's log file has everything
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.WARNING)
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    try:
        run_cell(load_config(root / CONFIG), Home(root), Rounds())
    except RevalError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
