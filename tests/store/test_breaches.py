"""Health figures of a run's rounds, computed here by hand, and breaches as rows."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from store_example import BASE, FORK, RUN, Example, names

from reval_core.health import Breach
from reval_core.store import Store, health

SPREAD = Breach("residual_spread", 2.0, 1.5, 3, "warn")
MISMATCH = Breach("engine_mismatch", 0.5, 0.02, 1, "stop")


@pytest.fixture
def written(example: Example, tmp_path: Path) -> Store:
    """The example, whose policies were learned with beta 0.1 and the fork's with 0.2, and reference scores."""
    path = tmp_path / "reval.duckdb"
    shutil.copy(example.store.path, path)
    store = Store(path)
    # the trainer's log-probability at the first use is 0.5 more; the engine's are -1, -2, -3, -4
    off_by = {0: (0.2, -0.3, 0.4, -0.5), 1: (0.0, 0.3, -0.6, 9.0), 2: (0.6, 0.0, 0.0, 0.0)}  # nats
    with store.write() as connection:
        connection.execute(
            "UPDATE store.policies SET settings = '{\"objective\": {\"beta\": 0.1}}' WHERE policy_id LIKE 'pol_run-a%'"
        )
        connection.execute(
            "UPDATE store.policies SET settings = '{\"objective\": {\"beta\": 0.2}}' WHERE policy_id LIKE 'pol_run-b%'"
        )
        for round_, batch in enumerate(example.rounds):
            for index, name in enumerate(names(batch)):
                logprob = -1.0 - index - off_by[round_][index] - 0.5
                connection.execute(
                    "INSERT INTO store.reference_scores BY NAME SELECT $name AS trajectory_id, reference_policy_id, "
                    "scoring_id, logprob, 0.0 AS root_value FROM (VALUES ($base, 'sco_1', $logprob), "
                    "($base, 'sco_2', -99.0), ('pol_other', 'sco_1', -99.0)) "
                    "AS t (reference_policy_id, scoring_id, logprob)",
                    {"name": name, "base": BASE, "logprob": logprob},
                )
    return store


def measured(store: Store, run_id: str, first: int, last: int) -> list[dict]:
    with store.read() as connection:
        return health.measured(connection, run_id, first, last, scoring_id="sco_1")


def test_the_figures_of_a_run(written: Store) -> None:
    first, second, third = measured(written, RUN, 0, 2)
    # members of an update have residual 1 or -2, as many of each; V(s1) is 0.25 nats above the reference's
    for row in (first, second, third):
        assert row["timeout_share"] == 0
        assert row["root_value_gap"] == pytest.approx(0.25 * 0.1)
    assert first["residual_spread"] == second["residual_spread"] == pytest.approx(1.5 * 0.1)
    assert [row["iteration"] for row in (first, second, third)] == [0, 1, 2]
    assert [row["truncated_share"] for row in (first, second, third)] == [0, 0.25, 0]
    # round 0: all of prb_1 is wrong; round 1: all that is admitted of prb_3; round 2: each prompt has a right one
    assert [row["all_wrong_share"] for row in (first, second, third)] == [0.5, 0.5, 0]
    # round 1 learns from three of its own, two of round 0 and one of its own again
    assert [row["staleness"] for row in (first, second)] == [0, pytest.approx(2 / 6)]
    # round 2: from four of its own, two of round 1, one of round 0
    assert third["staleness"] == pytest.approx((2 * 1 + 1 * 2) / 7)


def test_the_engine_is_compared_with_the_trainer_at_first_use(written: Store) -> None:
    first, second, third = measured(written, RUN, 0, 2)
    assert first["engine_mismatch"] == pytest.approx((0.2 / 2 + 0.3 / 3 + 0.4 / 4 + 0.5 / 5) / 4)
    # the fourth was dropped and never learned from; lengths are 3
    assert second["engine_mismatch"] == pytest.approx((0.0 + 0.1 + 0.2) / 3)
    assert third["engine_mismatch"] == pytest.approx(0.1 / 4)
    with written.read() as connection:
        (unknown,) = health.measured(connection, RUN, 0, 0, scoring_id="sco_3")
    assert unknown["engine_mismatch"] is None


def test_a_fork_is_watched_along_its_chain_each_round_in_its_own_units(written: Store) -> None:
    first, second, third = measured(written, FORK, -2, 2)
    assert [row["all_wrong_share"] for row in (first, second, third)] == [0.5, 0.5, 1]
    assert [row["root_value_gap"] for row in (first, second, third)] == pytest.approx([0.025, 0.025, 0.05])
    assert [row["iteration"] for row in measured(written, FORK, 1, 2)] == [1, 2]


def test_a_breach_of_a_round_is_recorded_once(written: Store) -> None:
    with written.write() as connection:
        assert health.add(connection, RUN, 1, 1, [SPREAD, MISMATCH]) == {"residual_spread", "engine_mismatch"}
    with written.write() as connection:  # asked again, under another rule
        assert health.add(connection, RUN, 2, 1, [replace(SPREAD, bound=1.0), MISMATCH]) == set()
    (row,) = written.query("SELECT * EXCLUDE recorded_at FROM breaches WHERE metric = 'residual_spread'").to_pylist()
    assert row == {
        "run_id": RUN,
        "run_name": f"name of {RUN}",
        "attempt": 1,
        "iteration": 1,
        "metric": "residual_spread",
        "value": 2.0,
        "bound": 1.5,
        "rounds": 3,
        "action": "warn",
    }


def test_a_breach_that_lasts_begins_once(written: Store) -> None:
    begins = []
    for iteration, found in ((1, [SPREAD]), (2, [SPREAD, MISMATCH]), (3, [MISMATCH]), (4, [SPREAD])):
        with written.write() as connection:
            begins.append(health.add(connection, RUN, 1, iteration, found))
    assert begins == [{"residual_spread"}, {"engine_mismatch"}, set(), {"residual_spread"}]
    with written.read() as connection:
        told = health.summary(connection, RUN)
        assert health.summary(connection, FORK) == []
    assert told == [
        {"metric": "residual_spread", "rounds": 3, "first": 1, "last": 4, "value": 2.0, "bound": 1.5, "action": "warn"},
        {
            "metric": "engine_mismatch",
            "rounds": 2,
            "first": 2,
            "last": 3,
            "value": 0.5,
            "bound": 0.02,
            "action": "stop",
        },
    ]
