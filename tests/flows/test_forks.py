"""Forks: a child run that shares every row before it, and nothing after."""

from collections import Counter

import pytest
from small_run import BATCH, POOL, PROMPTS, ROUNDS, Finished, changed, counts, lineage, rows, sampled, train, value

from flows import planning
from reval_core.config import Config
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.store import Store, schedule
from tasks.open_run import Fork

pytestmark = pytest.mark.usefixtures("quick")


def branch(config: Config, home: Home, start_from: str | None = None, force: str | None = None) -> Fork:
    found = planning.fork(config, home, start_from=start_from, force=force)
    assert found is not None
    return found


def drawn(home: Home, run_id: str) -> list[str]:
    """The problems of a run's rounds in the order in which they were drawn, along its chain."""
    with Store(home.database).read() as connection:
        rounds = [schedule.planned_round(connection, run_id, iteration) for iteration in range(ROUNDS)]
    return [name for names in rounds if names is not None for name in names]


def test_no_option_is_no_fork(small: Config, home: Home) -> None:
    assert planning.fork(small, home, start_from=None, force=None) is None


def test_the_first_letters_of_the_parent_are_enough(small: Config, finished: Finished) -> None:
    run_id, config = finished.outcome.run_id, changed(small, "objective.beta=0.2")
    assert branch(config, finished.home, f"{run_id[:-3]}@2") == branch(config, finished.home, f"{run_id}@2")
    assert branch(config, finished.home, f"{run_id[:-3]}@2").parent_run_id == run_id


def test_a_fork_shares_all_rows_before_it(
    small: Config, finished: Finished, copied: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = finished.outcome.run_id
    config = changed(small, "objective.beta=0.2", "replay.capacity=24")
    fork = branch(config, copied, f"{parent}@2")
    assert fork == Fork(parent, 2, {})
    before = counts(copied)
    with sampled(monkeypatch) as seen:
        done = train(config, copied, fork)
    assert done.run_id != parent
    assert done.rounds == ROUNDS

    ours, theirs = lineage(copied, done.run_id), lineage(copied, parent)
    assert ours[:2] == theirs[:2]
    assert all(mine != other for mine, other in zip(ours[2:], theirs[2:], strict=True))
    assert theirs == lineage(finished.home, parent)  # nothing rewrites history
    # round 2 samples from the shared policy, so even its responses are the parent's; only round 3 is sampled
    assert len(seen) == BATCH
    assert counts(copied)["trajectories"] == before["trajectories"] + BATCH
    assert {stage.partition("@")[2] for stage in done.executed} == {"2", "3"}
    assert "generate@2" not in done.executed

    window = Store(copied.database).window(done.run_id, 2, 24)
    assert [entry.iteration for entry in window] == [0] * BATCH + [1] * BATCH + [2] * BATCH
    owners = rows(
        copied, "SELECT iteration, owner_run_id FROM rounds WHERE run_id = $run ORDER BY ALL", run=done.run_id
    )
    assert [row["owner_run_id"] for row in owners] == [parent, parent, done.run_id, done.run_id]
    order = drawn(copied, done.run_id)
    assert order == drawn(copied, parent)
    assert Counter(order[: 2 * POOL]) == dict.fromkeys(order[:POOL], 2)
    (row,) = rows(copied, "SELECT parent_run_id, fork_iteration FROM runs WHERE run_id = $run", run=done.run_id)
    assert tuple(row.values()) == (parent, 2)

    assert train(config, copied, branch(config, copied, f"{parent}@2")).executed == ()

    again = changed(config, "optimizer.lr=0.0001")
    grandchild = train(again, copied, branch(again, copied, f"{done.run_id}@3"))
    assert lineage(copied, grandchild.run_id)[:3] == ours[:3]
    assert lineage(copied, grandchild.run_id)[3] != ours[3]
    owners = rows(
        copied, "SELECT owner_run_id FROM rounds WHERE run_id = $run ORDER BY iteration", run=grandchild.run_id
    )
    assert [row["owner_run_id"] for row in owners] == [parent, parent, done.run_id, grandchild.run_id]
    assert drawn(copied, grandchild.run_id) == order
    assert "generate@3" not in grandchild.executed


def test_a_forced_round_has_other_samples(
    small: Config, finished: Finished, copied: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, forced_at = finished.outcome.run_id, ROUNDS - 1
    fork = branch(small, copied, force=f"generate@{forced_at}")
    assert fork == Fork(parent, forced_at, {f"generate@{forced_at}": 1})
    with sampled(monkeypatch) as seen:
        done = train(small, copied, fork)
    assert len(seen) == BATCH
    forked_from = f"checkpoint@{forced_at - 1}"  # a policy that is forked from is saved first
    assert {stage.partition("@")[2] for stage in done.executed if stage != forked_from} == {str(forced_at)}
    assert lineage(copied, done.run_id)[:forced_at] == lineage(copied, parent)[:forced_at]
    query = "SELECT * FROM store.batches WHERE round = $r AND purpose = 'training' ORDER BY generation"
    batches = rows(copied, query, r=forced_at)
    assert [row["generation"] for row in batches] == [0, 1]
    assert batches[0]["policy_id"] == batches[1]["policy_id"]  # the same policy, other noise
    query = "SELECT completion FROM trajectories WHERE batch_id = $b ORDER BY problem_id, sample_index"
    texts = [rows(copied, query, b=row["batch_id"]) for row in batches]
    assert texts[0] != texts[1]

    # forced again in the fork it is the second generation, and a fork for another reason keeps the first
    second = branch(small, copied, f"{done.run_id}@{forced_at}", f"generate@{forced_at}")
    assert second.forced == {f"generate@{forced_at}": 2}
    other = branch(changed(small, "objective.beta=0.2"), copied, f"{done.run_id}@{forced_at}")
    assert other.forced == {f"generate@{forced_at}": 1}


@pytest.mark.long
def test_a_fork_may_change_the_objective(small: Config, home: Home) -> None:
    grpo = changed(small, "objective.use=grpo", "objective.updates.off_policy=0", "run.iterations=1")
    parent = train(grpo, home)
    assert value(home, "SELECT count(*) FROM store.reference_scores") == 0
    config = changed(small, "run.iterations=2")
    done = train(config, home, branch(config, home, f"{parent.run_id}@1"))
    told = rows(home, "SELECT * FROM rounds WHERE run_id = $run ORDER BY iteration", run=done.run_id)
    base = told[0]["parent_policy_id"]
    assert [row["reference_policy_id"] for row in told] == [None, base]
    # the parent's round is in the window, so it is scored as well, once
    assert (
        value(home, "SELECT count(*) FROM store.reference_scores WHERE reference_policy_id = $b", b=base) == 2 * BATCH
    )
    assert value(home, "SELECT count(*) FROM update_members WHERE residual IS NULL AND iteration = 1") == 0


@pytest.mark.parametrize(
    ("overrides", "start_from", "force", "error", "message"),
    [
        ((), "{run}@2", None, ConfigError, "Nothing differs from run"),
        (("run.iterations=9", "evaluation.every=1"), "{run}@2", None, ConfigError, "Nothing differs"),
        (("objective.beta=0.2",), "small-00000000@1", None, StoreError, "no run small-00000000.*reval runs"),
        (
            ("objective.beta=0.2",),
            "{run}@5",
            None,
            ConfigError,
            "has 4 rounds; a fork begins at round 0 to 4, not at 5",
        ),
        (("objective.beta=0.2",), "{run}", None, ConfigError, "write RUN@ROUND"),
        (("objective.beta=0.2",), "{run}@-1", None, ConfigError, "write RUN@ROUND"),
        (("prompt.prefix=+",), "{run}@1", None, ConfigError, "keeps its parent.s model, prompt .*prompt.prefix"),
        (
            ("model.lora={rank: 4}",),
            "{run}@1",
            None,
            ConfigError,
            r"keeps its parent.s model, .*model\.lora\.alpha: None",
        ),
        (("optimizer.use=adamw_8bit",), "{run}@1", None, ConfigError, r"kind of optimizer, .*optimizer\.use: None"),
        ((), None, "learn@1", ConfigError, "write generate@ROUND"),
        ((), "{run}@1", "generate@2", ConfigError, "Name the same round"),
        ((), None, "generate@7", ConfigError, "has 4 rounds"),
    ],
)
def test_a_fork_that_cannot_be_is_refused(
    overrides: tuple[str, ...], start_from: str | None, force: str | None, error: type[Exception], message: str,
    small: Config, finished: Finished,
) -> None:  # fmt: skip
    place = start_from and start_from.format(run=finished.outcome.run_id)
    with pytest.raises(error, match=message):
        planning.fork(changed(small, *overrides), finished.home, start_from=place, force=force)


def test_a_fork_draws_on_where_its_parent_stopped(small: Config, finished: Finished, copied: Home) -> None:
    config = changed(small, "run.seed=7", "run.iterations=3", "objective.updates.off_policy=0")
    done = train(config, copied, branch(config, copied, f"{finished.outcome.run_id}@2"))
    order = drawn(copied, done.run_id)
    assert len(order) == 3 * PROMPTS
    assert Counter(order) == dict.fromkeys(order[:POOL], 2)  # two epochs, each problem once in each
