"""The best policy of a run: chosen by a metric, named in a file, found again by its run."""

import json
import shutil

import pytest
from small_run import ROUNDS, Finished, changed, rows

from flows.opening import find_policy
from reval_core.errors import StoreError
from reval_core.home import Home
from reval_core.store import Store
from tasks.best import best_of, chosen_metric, link_best, link_of, linked_policy
from tasks.open_run import open_run
from tasks.progress import Progress


def test_the_metric_is_that_of_retention_or_the_first_benchmarks(finished: Finished) -> None:
    (benchmark,) = finished.config.evaluation.benchmarks
    assert chosen_metric(finished.config) == f"{benchmark}/avg@2"
    assert chosen_metric(changed(finished.config, "retention.keep_best=maj@2")) == "maj@2"
    assert chosen_metric(changed(finished.config, "evaluation.benchmarks=[]")) is None


def test_a_run_links_its_best_policy(finished: Finished) -> None:
    link, run = link_of(finished.home, finished.outcome.run_id), finished.outcome.run_id
    told = json.loads(link.read_text())
    assert (told["policy_id"], told["rounds"]) == (finished.outcome.policy_id, ROUNDS)
    assert told["folder"] == f"policies/{finished.outcome.policy_id}"
    assert finished.outcome.best is not None and f"after {ROUNDS} rounds" in finished.outcome.best
    assert find_policy(finished.home, f"best:{run}") == finished.outcome.policy_id
    assert find_policy(finished.home, "best:small") == finished.outcome.policy_id


def test_the_highest_value_wins_and_of_equals_the_newest(finished: Finished, copied: Home) -> None:
    (one,) = rows(copied, "SELECT policy_id FROM policies WHERE iteration = 1")
    with open_run(finished.config, copied, progress=Progress(quiet=True)) as run:
        from tasks.evaluate import evaluate
        from tasks.run import Here

        (benchmark,) = finished.config.evaluation.benchmarks
        earlier = evaluate(Here(run, 1), one["policy_id"], benchmark)
        for value, wanted in ((0.9, one["policy_id"]), (0.5, finished.outcome.policy_id)):
            with Store(copied.database).write() as connection:
                set_value = "UPDATE store.evaluation_metrics SET value = $v WHERE metric = 'avg@2'"
                connection.execute(set_value, {"v": 0.5})
                connection.execute(f"{set_value} AND evaluation_id = $e", {"v": value, "e": earlier.evaluation_id})
            best = link_best(run)
            assert best is not None and best == best_of(run)
            assert (best.policy_id, best.value) == (wanted, pytest.approx(max(value, 0.5)))
            assert linked_policy(copied, run.run_id) == wanted


def test_a_link_into_nothing_is_told(finished: Finished, copied: Home) -> None:
    shutil.rmtree(copied.policies / finished.outcome.policy_id)
    with pytest.raises(StoreError, match="has no best policy here"):
        find_policy(copied, f"best:{finished.outcome.run_id}")
