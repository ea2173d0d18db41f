"""A run from its first prompt to its report, told through the store and MLflow."""

from collections import Counter

import pytest
from mlflow.tracking import MlflowClient
from small_run import BATCH, POOL, PROMPTS, ROUNDS, UPDATES, changed, counts, lineage, rows, train, value

from conftest import Finished
from reval_core.home import Home
from reval_core.store import Store, replay


def test_counts(finished: Finished) -> None:
    print(counts(finished.home)); print(rows(finished.home, "select * from rounds")); print(finished.outcome)
    print(rows(finished.home, "select iteration, question, completion, status, reward_used, times_used from trajectories"))
    assert 0
