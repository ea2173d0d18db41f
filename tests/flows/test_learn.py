"""Learning from stored trajectories alone: nothing is sampled, the chosen ids are the run's, and it repeats exactly."""

import shutil

import pytest
from small_run import BATCH, ROUNDS, UPDATES, Finished, changed, crash_at, lineage, rows, sampled, value

import flows.learn
from flows.choosing import with_selection
from reval_core.config import Config
from reval_core.errors import StoreError
from reval_core.home import Home
from reval_core.store import Store
from reval_core.store import statements as sql
from tasks.outcome import Outcome
from tasks.progress import Progress

pytestmark = pytest.mark.usefixtures("quick")

ALL = "SELECT trajectory_id FROM trajectories WHERE purpose = 'training'"


def offline(config: Config, home: Home, trajectories: str, *overrides: str) -> Config:
    quiet = changed(config, "run.name=offline", "run.iterations=2", "evaluation.benchmarks=[]", *overrides)
    return with_selection(quiet, home, trajectories, [])


def learned(config: Config, home: Home) -> Outcome:
    return flows.learn.learn_stored.fn(config, home, Progress(quiet=True))


def entries(home: Home, run_id: str) -> list[str]:
    found = rows(home, "SELECT trajectory_id FROM replay WHERE run_id = $run ORDER BY position", run=run_id)
    return [row["trajectory_id"] for row in found]


def test_nothing_is_sampled_and_every_update_is_a_draw_from_the_selection(
    small: Config, copied: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = value(copied, "SELECT count(*) FROM store.trajectories")
    with sampled(monkeypatch) as seen:
        done = learned(offline(small, copied, ALL), copied)
    assert seen == []
    assert value(copied, "SELECT count(*) FROM store.trajectories") == before
    assert done.rounds == 2
    assert done.executed == ("persist@0", "rescore@0", "learn@0", "learn@1", "checkpoint@1", "report@1")
    chosen = sorted(row["trajectory_id"] for row in rows(copied, ALL))
    assert len(chosen) == ROUNDS * BATCH
    assert entries(copied, done.run_id) == chosen
    made = rows(copied, "SELECT kind, trajectories FROM updates WHERE run_id = $run", run=done.run_id)
    assert made == [{"kind": "replay", "trajectories": BATCH}] * (2 * UPDATES)
    shown = rows(copied, "SELECT * FROM rounds WHERE run_id = $run ORDER BY iteration", run=done.run_id)
    assert [row["tokens_generated"] for row in shown] == [None, None]
    assert [row["staleness_mean"] for row in shown] == [None, None]
    assert shown[1]["parent_policy_id"] == shown[0]["policy_id"]
    right = value(copied, f"SELECT avg(correct::INT) FROM trajectories WHERE trajectory_id IN ({ALL})")
    assert shown[0]["accuracy"] == right


def test_the_same_selection_is_the_same_run_and_does_nothing_again(small: Config, copied: Home) -> None:
    config = offline(small, copied, ALL)
    first = learned(config, copied)
    again = learned(config, copied)
    assert (again.run_id, again.policy_id, again.executed) == (first.run_id, first.policy_id, ())
    other_words = offline(small, copied, f"{ALL} ORDER BY random()")
    assert learned(other_words, copied).run_id == first.run_id


@pytest.mark.long
def test_new_trajectories_are_another_run(small: Config, copied: Home) -> None:
    first = learned(offline(small, copied, f"{ALL} AND iteration < 2"), copied)
    second = learned(offline(small, copied, f"{ALL} AND iteration < 3"), copied)
    assert first.run_id != second.run_id
    assert (first.trajectories, second.trajectories) == (2 * BATCH, 3 * BATCH)


def test_a_killed_run_goes_on_with_the_trajectories_it_began_with(
    small: Config, copied: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = offline(small, copied, "SELECT trajectory_id FROM trajectories WHERE purpose = 'training'")
    with crash_at(monkeypatch, "learn", 0, "after"):
        learned(config, copied)
    begun = rows(copied, "SELECT run_id FROM runs WHERE run_name = 'offline'")
    held = entries(copied, begun[0]["run_id"])
    with Store(copied.database).write() as connection:  # what the query would find now is something else
        connection.execute("UPDATE store.trajectories SET run_id = NULL")
        connection.execute("CREATE OR REPLACE VIEW trajectories AS SELECT 'none' AS trajectory_id")
    again = learned(config, copied)
    assert [row["run_id"] for row in begun] == [again.run_id]
    assert entries(copied, again.run_id) == held
    assert "learn@0" not in again.executed
    assert "learn@1" in again.executed


@pytest.mark.long
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    small: Config,
    copied: Home,
    finished: Finished,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = offline(small, copied, f"window:{finished.outcome.run_id}")
    with crash_at(monkeypatch, "learn", 1, "before"):
        learned(config, copied)
    killed = learned(config, copied)
    other = Home(tmp_path_factory.mktemp("other") / "root")
    shutil.copytree(finished.home.root, other.root)
    whole = learned(config, other)
    assert lineage(copied, killed.run_id) == lineage(other, whole.run_id)


def test_a_window_is_that_of_the_runs_newest_round(small: Config, copied: Home, finished: Finished) -> None:
    done = learned(offline(small, copied, f"window:{finished.outcome.run_id[:8]}"), copied)
    window = Store(copied.database).window(finished.outcome.run_id, ROUNDS - 1, 2 * BATCH)
    assert entries(copied, done.run_id) == sorted(entry.trajectory_id for entry in window)


def test_what_this_verifier_has_not_graded_is_graded_first(small: Config, copied: Home, finished: Finished) -> None:
    graded = "SELECT count(*) FROM verdicts JOIN runs USING (verifier_id) WHERE runs.run_id = $run"
    before = value(copied, graded, run=finished.outcome.run_id)
    done = learned(offline(small, copied, ALL, "reward.extraction=lenient"), copied)
    assert value(copied, graded, run=done.run_id) == ROUNDS * BATCH
    assert value(copied, graded, run=finished.outcome.run_id) == before  # the old verdicts stay


def test_token_ids_of_another_tokenizer_are_refused_by_digest(small: Config, copied: Home) -> None:
    with Store(copied.database).write() as connection:
        connection.execute("UPDATE store.batches SET tokenizer_id = 'tok_other' WHERE round = 1")
    with pytest.raises(StoreError, match="8 of tok_other"):
        learned(offline(small, copied, ALL), copied)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("SELECT 1 AS n", "must give a column trajectory_id; it gives n"),
        ("SELECT trajectory_id FROM trajectories WHERE false", "finds no trajectory"),
        ("SELECT 'trj_none' AS trajectory_id", "has no trajectory trj_none"),
        ("SELEC", "no query 'SELEC'"),
        ("SELECT trajectory_id FROM nowhere", "nowhere"),
    ],
)
def test_a_selection_that_finds_nothing_usable_says_so(small: Config, copied: Home, what: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        learned(offline(small, copied, what), copied)


def test_sql_shows_an_offline_run_what_it_learned_from(small: Config, copied: Home) -> None:
    done = learned(offline(small, copied, f"{ALL} AND iteration = 1"), copied)
    shown = rows(copied, "SELECT * FROM run_trajectories WHERE run_id = $run", run=done.run_id)
    assert {(row["iteration"], row["admitted"]) for row in shown} == {(0, True)}
    assert sorted(row["trajectory_id"] for row in shown) == entries(copied, done.run_id)
    assert sum(row["times_used"] for row in shown) == 2 * UPDATES * BATCH


def test_named_queries_know_that_an_offline_run_samples_nothing(
    small: Config, copied: Home, finished: Finished
) -> None:
    done = learned(offline(small, copied, ALL, "replay.capacity=8"), copied)
    assert value(copied, "SELECT newest_run()") == done.run_id
    (uses,) = rows(copied, "expected_uses")  # of all that it admitted, whatever the capacity, in both rounds
    assert uses["trajectories"] == ROUNDS * BATCH
    assert uses["uses_expected"] == uses["uses_mean"] == 2 * UPDATES / ROUNDS
    assert sum(row["trajectories"] for row in rows(copied, "buffer_age_and_reuse")) == ROUNDS * BATCH
    assert [row["age"] for row in rows(copied, "residual_by_age")] == [None]
    assert all(row["seconds"] > 0 for row in rows(copied, "learning_curve"))
    for query in ("sample_efficiency", "tokens_to_accuracy"):
        assert {row["run_id"] for row in rows(copied, query)} == {finished.outcome.run_id}
    by_setting = {row["run_id"]: row["accuracy"] for row in rows(copied, "runs_by_setting")}
    assert by_setting[done.run_id] is None and by_setting[finished.outcome.run_id] is not None
    assert value(copied, "SELECT min(staleness) FROM trajectories") >= 0
    (used,) = rows(copied, "SELECT trajectory_id FROM update_members WHERE age = 0 AND generated_round = 2 LIMIT 1")
    with Store(copied.database).read() as connection:
        uses = sql.records(connection, "browsing", "uses", trajectory=used["trajectory_id"], iteration=2)
    assert all((use["staleness"] is None) == (use["run_id"] == done.run_id) for use in uses)


def test_answers_to_benchmarks_are_not_learned_from(finished: Finished, copied: Home) -> None:
    every = changed(finished.config, "offline={trajectories: 'SELECT trajectory_id FROM trajectories'}")
    with pytest.raises(StoreError, match=r"12 of the 44 chosen trajectories are answers to benchmarks.*purpose <> 'ev"):
        flows.learn.learn_stored.fn(every, copied, Progress(quiet=True))
