"""The public views: their columns are a promise, their figures are computed here by hand."""

import json
import math
import statistics
from types import SimpleNamespace

import pytest
from store_example import BASE, FORK, RUN, Example, add_run, add_update, batch_record, commit_stage, names, part_of

from reval_core.problems import Problem, ask
from reval_core.store import Store, evaluations, problems

COLUMNS = {
    "trajectories": """
        trajectory_id VARCHAR, batch_id VARCHAR, purpose VARCHAR, run_id VARCHAR, run_name VARCHAR, config JSON,
        iteration INTEGER, policy_id VARCHAR, problem_id VARCHAR, question VARCHAR, problem_source VARCHAR,
        problem_metadata JSON, gold VARCHAR, prompt VARCHAR, completion VARCHAR, answer VARCHAR, status VARCHAR,
        correct BOOLEAN, reward DOUBLE, reward_used DOUBLE, tier VARCHAR, details VARCHAR, finish_reason VARCHAR,
        truncated BOOLEAN, prompt_tokens INTEGER, response_tokens INTEGER, sample_index INTEGER,
        behaviour_logprob DOUBLE, times_used BIGINT, last_used_round INTEGER, staleness INTEGER, created_at TIMESTAMP,
        payload VARCHAR
    """,
    "run_trajectories": """
        run_id VARCHAR, run_name VARCHAR, config JSON, owner_run_id VARCHAR, iteration INTEGER, trajectory_id VARCHAR,
        batch_id VARCHAR, policy_id VARCHAR, problem_id VARCHAR, question VARCHAR, problem_source VARCHAR,
        problem_metadata JSON, gold VARCHAR, prompt VARCHAR, completion VARCHAR, answer VARCHAR, status VARCHAR,
        correct BOOLEAN, reward DOUBLE, reward_used DOUBLE, admitted BOOLEAN, verifier_id VARCHAR, tier VARCHAR,
        details VARCHAR, grading_seconds DOUBLE, finish_reason VARCHAR, truncated BOOLEAN, prompt_tokens INTEGER,
        response_tokens INTEGER, sample_index INTEGER, behaviour_logprob DOUBLE, times_used BIGINT,
        last_used_round INTEGER, staleness INTEGER, created_at TIMESTAMP, payload VARCHAR
    """,
    "tokens": """
        trajectory_id VARCHAR, batch_id VARCHAR, problem_id VARCHAR, prompt_ids INTEGER[], response_ids INTEGER[],
        truncated BOOLEAN, behaviour_logprob DOUBLE, seed UBIGINT, sampling JSON, engine VARCHAR, policy_id VARCHAR,
        weights_checksum VARCHAR, tokenizer_id VARCHAR, payload VARCHAR
    """,
    "rounds": """
        run_id VARCHAR, run_name VARCHAR, owner_run_id VARCHAR, iteration INTEGER, policy_id VARCHAR,
        parent_policy_id VARCHAR, reference_policy_id VARCHAR, batch_id VARCHAR, trajectories INTEGER,
        tokens_generated BIGINT, accuracy DOUBLE, reward_mean DOUBLE, loss DOUBLE, residual_mean DOUBLE,
        residual_std DOUBLE, log_ratio_mean DOUBLE, root_value_gap_mean DOUBLE, grad_norm DOUBLE, updates INTEGER,
        skipped_updates INTEGER, response_tokens_mean DOUBLE, truncated_share DOUBLE, correct_share DOUBLE,
        incorrect_share DOUBLE, no_answer_share DOUBLE, timeout_share DOUBLE, error_share DOUBLE,
        rejected_share DOUBLE, staleness_mean DOUBLE, uses_mean DOUBLE, seconds_generate DOUBLE,
        seconds_verify DOUBLE, seconds_score DOUBLE, seconds_persist DOUBLE, seconds_learn DOUBLE,
        finished_at TIMESTAMP
    """,
    "runs": """
        run_id VARCHAR, run_name VARCHAR, parent_run_id VARCHAR, fork_iteration INTEGER, seed BIGINT, config JSON,
        base_policy_id VARCHAR, last_policy_id VARCHAR, verifier_id VARCHAR, rounds_done BIGINT, trajectories BIGINT,
        tokens_generated BIGINT, status VARCHAR, attempts BIGINT, created_at TIMESTAMP, last_active_at TIMESTAMP,
        mlflow_run_id VARCHAR
    """,
    "attempts": """
        run_id VARCHAR, run_name VARCHAR, attempt INTEGER, status VARCHAR, message VARCHAR, started_at TIMESTAMP,
        ended_at TIMESTAMP, seconds DOUBLE, device VARCHAR, host VARCHAR, pid INTEGER, git_commit VARCHAR,
        versions JSON, flow_run_id VARCHAR, log_path VARCHAR
    """,
    "stages": """
        run_id VARCHAR, iteration INTEGER, stage VARCHAR, stage_key VARCHAR, executed BOOLEAN, attempt INTEGER,
        seconds DOUBLE, inputs JSON, output JSON, committed_at TIMESTAMP, linked_at TIMESTAMP
    """,
    "events": """
        run_id VARCHAR, run_name VARCHAR, attempt INTEGER, iteration INTEGER, kind VARCHAR, message VARCHAR,
        recorded_at TIMESTAMP
    """,
    "breaches": """
        run_id VARCHAR, run_name VARCHAR, attempt INTEGER, iteration INTEGER, metric VARCHAR, value DOUBLE,
        bound DOUBLE, rounds INTEGER, action VARCHAR, recorded_at TIMESTAMP
    """,
    "starts": """
        flow_run_id VARCHAR, flow VARCHAR, asked JSON, meant JSON, recorded_at TIMESTAMP
    """,
    "policies": """
        policy_id VARCHAR, kind VARCHAR, run_id VARCHAR, iteration INTEGER, parent_policy_id VARCHAR,
        reference_policy_id VARCHAR, updates_done INTEGER, settings JSON, tokenizer_id VARCHAR,
        weights_checksum VARCHAR, folder VARCHAR, batches BIGINT, realisations BIGINT, created_at TIMESTAMP
    """,
    "updates": """
        policy_id VARCHAR, run_id VARCHAR, iteration INTEGER, update_index INTEGER, kind VARCHAR, loss DOUBLE,
        grad_norm DOUBLE, lr DOUBLE, skipped BOOLEAN, trajectories INTEGER, tokens BIGINT, residual_mean DOUBLE,
        residual_std DOUBLE, log_ratio_mean DOUBLE, root_value_gap_mean DOUBLE, generated_round_mean DOUBLE,
        uses_mean DOUBLE
    """,
    "update_members": """
        policy_id VARCHAR, run_id VARCHAR, iteration INTEGER, update_index INTEGER, kind VARCHAR, position INTEGER,
        trajectory_id VARCHAR, generated_round INTEGER, age INTEGER, reward DOUBLE, weight DOUBLE, residual DOUBLE,
        log_ratio DOUBLE, root_value_gap DOUBLE
    """,
    "replay": """
        run_id VARCHAR, owner_run_id VARCHAR, iteration INTEGER, position INTEGER, trajectory_id VARCHAR,
        problem_id VARCHAR, response_tokens INTEGER, reward_used DOUBLE, verifier_id VARCHAR, gold_digest VARCHAR,
        times_used BIGINT, last_used_round INTEGER
    """,
    "reference_scores": """
        trajectory_id VARCHAR, reference_policy_id VARCHAR, scoring_id VARCHAR, logprob DOUBLE, root_value DOUBLE
    """,
    "problems": """
        problem_id VARCHAR, question VARCHAR, messages JSON, gold VARCHAR, golds BIGINT, source VARCHAR,
        external_id VARCHAR, metadata JSON, sources VARCHAR[], recorded_at TIMESTAMP
    """,
    "verdicts": """
        trajectory_id VARCHAR, problem_id VARCHAR, run_id VARCHAR, verifier_id VARCHAR, verifier VARCHAR,
        verifier_version INTEGER, gold_digest VARCHAR, gold VARCHAR, answer VARCHAR, status VARCHAR, correct BOOLEAN,
        reward DOUBLE, tier VARCHAR, details VARCHAR, seconds DOUBLE, graded_at TIMESTAMP
    """,
    "verifiers": """
        verifier_id VARCHAR, verifier VARCHAR, verifier_version INTEGER, settings JSON, verdicts BIGINT,
        recorded_at TIMESTAMP
    """,
    "evaluations": """
        evaluation_id VARCHAR, run_id VARCHAR, run_name VARCHAR, iteration INTEGER, policy_id VARCHAR,
        benchmark VARCHAR, metric VARCHAR, value DOUBLE, low DOUBLE, high DOUBLE, samples_per_problem INTEGER,
        problem_count INTEGER, batch_id VARCHAR, verifier_id VARCHAR, settings JSON, created_at TIMESTAMP
    """,
}


def test_every_public_view_is_promised_here(example: Example) -> None:
    found = example.store.query("SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal")
    assert set(found.column("view_name").to_pylist()) == set(COLUMNS)


@pytest.mark.parametrize("view", COLUMNS)
def test_columns_and_types_are_stable(example: Example, view: str) -> None:
    found = example.store.query(f"SELECT column_name || ' ' || column_type AS pair FROM (DESCRIBE {view})")
    assert found.column("pair").to_pylist() == [pair.strip() for pair in COLUMNS[view].split(",")]


@pytest.mark.parametrize("view", COLUMNS)
def test_every_view_says_what_a_row_is(example: Example, view: str) -> None:
    found = example.store.query("SELECT comment FROM duckdb_views() WHERE view_name = $view", view=view)
    assert found.column("comment").to_pylist()[0].startswith("One row per ")


def test_one_row_per_trajectory_whatever_was_regraded_and_reused(example: Example) -> None:
    rows = example.store.query("SELECT trajectory_id FROM trajectories").column("trajectory_id").to_pylist()
    assert len(rows) == len(set(rows)) == 4 * 4 + 2


def test_a_trajectory_shows_prompt_verdict_rewards_and_use(example: Example) -> None:
    row = example.trajectory(0, 0)
    assert (row["question"], row["prompt"], row["completion"]) == ("question 0", "prompt of prb_0", "answer 0")
    assert (row["gold"], row["answer"], row["status"], row["correct"]) == ("0", "0", "correct", True)
    assert (row["reward"], row["reward_used"], row["tier"]) == (1.0, 1.0, "exact")
    assert (row["prompt_tokens"], row["response_tokens"], row["truncated"]) == (3, 2, False)
    assert (row["run_id"], row["run_name"], row["iteration"]) == (RUN, f"name of {RUN}", 0)
    # twice in round 0, once in rounds 1 and 2, once in the fork's round 2
    assert (row["times_used"], row["last_used_round"], row["staleness"]) == (5, 2, 2)


def test_the_newest_source_with_columns_of_its_own_is_shown(example: Example, store: Store) -> None:
    row = example.trajectory(0, 0)
    assert (row["problem_source"], row["problem_metadata"]) == ("another.jsonl", '{"level": 0}')
    problem = example.store.query("SELECT * FROM problems WHERE problem_id = 'prb_0'").to_pylist()[0]
    assert (problem["source"], problem["sources"]) == ("another.jsonl", ["another.jsonl", "train.jsonl"])
    plain, rich = Problem(ask("1+1?"), "2", "builtin"), Problem(ask("1+1?"), "2", "mine.jsonl", "7", {"level": 3})
    for found in (rich, plain):
        with store.write() as connection:
            problems.add(connection, [found])
    told = store.query("SELECT source, metadata FROM problems").to_pylist()
    assert told == [{"source": "mine.jsonl", "metadata": '{"level": 3}'}]


def test_the_runs_own_verifier_is_shown_though_another_graded_later(example: Example) -> None:
    row = example.trajectory(0, 1)  # ver_2 found it correct, later
    assert (row["status"], row["reward"]) == ("incorrect", 0.0)


def test_a_mended_gold_shows_the_new_verdict_beside_the_frozen_reward(example: Example) -> None:
    row = example.trajectory(0, 2)
    assert (row["gold"], row["status"], row["reward"], row["reward_used"]) == ("one", "correct", 1.0, 0.0)
    problem = example.store.query("SELECT gold, golds FROM problems WHERE problem_id = 'prb_1'").to_pylist()
    assert problem == [{"gold": "one", "golds": 2}]


def test_a_dropped_response_has_no_reward_used_and_no_use(example: Example) -> None:
    row = example.trajectory(1, 3)
    assert (row["truncated"], row["finish_reason"], row["reward"]) == (True, "length", 0.0)
    assert (row["reward_used"], row["times_used"], row["last_used_round"], row["staleness"]) == (None, 0, None, None)


def test_evaluation_responses_show_their_own_verdict_and_no_round(example: Example) -> None:
    rows = example.store.query(
        "SELECT iteration, correct FROM trajectories WHERE purpose = 'evaluation' ORDER BY sample_index"
    ).to_pylist()
    assert rows == [{"iteration": None, "correct": True}, {"iteration": None, "correct": False}]


def test_a_rounds_figures(example: Example) -> None:
    row = example.store.query("SELECT * FROM rounds WHERE run_id = $run AND iteration = 1", run=RUN).to_pylist()[0]
    assert (row["policy_id"], row["parent_policy_id"]) == ("pol_run-a_1", "pol_run-a_0")
    assert (row["reference_policy_id"], row["batch_id"]) == (BASE, example.rounds[1].batch_id)
    assert (row["trajectories"], row["tokens_generated"], row["response_tokens_mean"]) == (4, 12, 3.0)
    assert (row["accuracy"], row["truncated_share"]) == (0.5, 0.25)
    assert row["reward_mean"] == pytest.approx(2 / 3)  # of the three that were admitted
    assert (row["correct_share"], row["incorrect_share"]) == (0.5, 0.5)
    assert (row["no_answer_share"], row["timeout_share"], row["error_share"], row["rejected_share"]) == (0, 0, 0, 0)
    # members: three fresh of residual 1, three replayed of residual -2, two of which are one round old
    assert (row["residual_mean"], row["residual_std"], row["loss"], row["grad_norm"]) == (-0.5, 1.5, 3.0, 2.0)
    assert (row["log_ratio_mean"], row["root_value_gap_mean"]) == (0.5, 0.25)
    assert row["staleness_mean"] == pytest.approx(2 / 6)
    # fresh: three used for the first time; replayed: two of round 0 for the third time, one of round 1 for the second
    assert row["uses_mean"] == pytest.approx((1 + 1 + 1 + 3 + 3 + 2) / 6)
    assert (row["updates"], row["skipped_updates"]) == (2, 0)
    seconds = [row[f"seconds_{stage}"] for stage in ("generate", "verify", "score", "persist", "learn")]
    assert seconds == [2.0] * 5


def test_a_fork_shows_its_ancestors_rounds_before_the_fork(example: Example) -> None:
    rows = example.store.query(
        "SELECT owner_run_id, iteration, tokens_generated, accuracy FROM rounds WHERE run_id = $run ORDER BY iteration",
        run=FORK,
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [(RUN, 0, 14, 0.25), (RUN, 1, 12, 0.5), (FORK, 2, 4, 0.0)]


def test_runs_count_along_their_chain(example: Example) -> None:
    rows = example.store.query("SELECT * FROM runs ORDER BY run_id").to_pylist()
    assert [json.loads(row["config"])["objective"]["beta"] for row in rows] == [0.1, 0.2]
    keys = ("run_id", "parent_run_id", "last_policy_id", "rounds_done", "trajectories", "tokens_generated", "status")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        (RUN, None, "pol_run-a_2", 3, 12, 14 + 12 + 24, "completed"),
        (FORK, RUN, "pol_run-b_2", 3, 12, 14 + 12 + 4, "running"),
    ]


def test_replay_goes_along_the_chain_with_the_uses_of_that_run(example: Example) -> None:
    first = names(example.rounds[0])[3]  # twice in round 0, and once more in the fork only
    rows = example.store.query(
        "SELECT run_id, owner_run_id, times_used, last_used_round FROM replay "
        "WHERE trajectory_id = $name ORDER BY run_id",
        name=first,
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [(RUN, RUN, 2, 0), (FORK, RUN, 3, 2)]
    counts = example.store.query("SELECT run_id, count(*) AS n FROM replay GROUP BY run_id ORDER BY run_id").to_pylist()
    assert counts == [{"run_id": RUN, "n": 4 + 3 + 4}, {"run_id": FORK, "n": 4 + 3 + 4}]


def test_update_members_carry_round_age_and_residual(example: Example) -> None:
    rows = example.store.query(
        "SELECT iteration, kind, generated_round, age, residual FROM update_members "
        "WHERE policy_id = 'pol_run-a_2' AND update_index = 1 ORDER BY position"
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (2, "replay", 1, 1, -2.0),
        (2, "replay", 1, 1, -2.0),
        (2, "replay", 0, 2, -2.0),
    ]


def test_an_evaluation_that_two_runs_share_is_shown_for_each_once(example: Example) -> None:
    rows = example.store.query(
        "SELECT run_id, iteration, value, low, high FROM evaluations WHERE metric = 'avg@2' ORDER BY run_id"
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [(RUN, -1, 0.5, 0.25, 0.75), (FORK, -1, 0.5, 0.25, 0.75)]


def test_a_fork_shows_evaluations_that_only_its_ancestor_made(store: Store) -> None:
    metric = {"avg@1": SimpleNamespace(value=0.5, low=0.0, high=1.0)}
    with store.write() as connection:
        add_run(connection, RUN)
        for iteration in (-1, 1, 2):
            evaluations.add(
                connection,
                evaluation_id=f"evl_{iteration}",
                policy_id=BASE,
                benchmark="held-out",
                benchmark_id="ben_0",
                batch_id="bat_0",
                verifier_id="ver_1",
                problem_count=1,
                samples_per_problem=1,
                settings={},
                metrics=metric,
            )
            commit_stage(connection, RUN, iteration, "evaluate", {"evaluation_id": f"evl_{iteration}"}, slot="held-out")
        add_run(connection, FORK, RUN, 2)
    rows = store.query("SELECT iteration FROM evaluations WHERE run_id = $run ORDER BY iteration", run=FORK)
    assert rows.column("iteration").to_pylist() == [-1, 1]


def test_verdicts_keeps_all_of_them(example: Example) -> None:
    rows = example.store.query(
        "SELECT verifier_id, gold, status FROM verdicts WHERE trajectory_id = $name ORDER BY graded_at",
        name=names(example.rounds[0])[2],
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("ver_1", "1", "incorrect"),
        ("ver_1", "one", "correct"),
        ("ver_2", "1", "correct"),
    ]


def test_a_round_without_updates_keeps_its_policy_and_shows_no_learning_figures(store: Store) -> None:
    batch = batch_record()
    store.append_batch(batch, part_of(batch))
    with store.write() as connection:
        add_run(connection, RUN)
        add_update(connection, "pol_0", 0, "fresh", names(batch), loss=1.0, residual=1.0)
        for iteration, started_from, updates in ((0, BASE, 1), (1, "pol_0", 0)):
            learned = {"policy_id": "pol_0", "updates": updates, "skipped": 0}
            commit_stage(connection, RUN, iteration, "generate", {"policy_id": started_from, "batch_id": "bat_0"})
            commit_stage(connection, RUN, iteration, "learn", learned)
    first, row = store.query("SELECT * FROM rounds ORDER BY iteration").to_pylist()
    assert (first["loss"], first["staleness_mean"], first["uses_mean"]) == (1.0, 0.0, 1.0)
    assert (first["policy_id"], first["parent_policy_id"]) == ("pol_0", BASE)
    ages = store.query("residual_by_age", run=RUN).to_pylist()  # the second round repeats the policy, not its updates
    assert [(row["age"], row["members"]) for row in ages] == [(0, 4)]
    assert (row["policy_id"], row["parent_policy_id"], row["updates"]) == ("pol_0", "pol_0", 0)
    assert (row["loss"], row["staleness_mean"], row["uses_mean"]) == (None, None, None)


def test_the_spread_of_a_rounds_residuals_is_pooled_over_updates_of_different_size(store: Store) -> None:
    values: dict[int, list[float | None]] = {0: [1.0, 3.0, 5.0], 1: [10.0], 2: [None, None]}
    batch = batch_record()
    store.append_batch(batch, part_of(batch))
    with store.write() as connection:
        add_run(connection, RUN)
        for index, residuals in values.items():
            add_update(
                connection, "pol_0", index, "replay", names(batch)[: len(residuals)], loss=1.0, residual=residuals
            )
        commit_stage(connection, RUN, 0, "learn", {"policy_id": "pol_0", "updates": 3, "skipped": 0})
    known = [1.0, 3.0, 5.0, 10.0]
    (row,) = store.query("SELECT residual_mean, residual_std, log_ratio_mean FROM rounds").to_pylist()
    assert row["residual_mean"] == pytest.approx(statistics.fmean(known))
    assert row["residual_std"] == pytest.approx(statistics.pstdev(known))
    assert row["log_ratio_mean"] == 0.5
    updates = store.query("SELECT residual_mean, residual_std FROM updates ORDER BY update_index").to_pylist()
    assert updates[0] == {"residual_mean": 3.0, "residual_std": pytest.approx(math.sqrt(8 / 3))}
    assert updates[2] == {"residual_mean": None, "residual_std": None}


def test_uses_are_counted_along_the_lineage_of_the_policy(example: Example) -> None:
    found = example.store.query("SELECT policy_id, update_index, uses_mean, generated_round_mean FROM updates")
    rows = {(row["policy_id"], row["update_index"]): row for row in found.to_pylist()}
    # the fork replays round 0, which its ancestors used 3, 3, 2 and 2 times; the use in its sibling does not count
    assert rows["pol_run-b_2", 1]["uses_mean"] == pytest.approx((4 + 4 + 3 + 3) / 4)
    assert rows["pol_run-a_2", 1]["uses_mean"] == pytest.approx((3 + 2 + 4) / 3)
    assert rows["pol_run-a_2", 1]["generated_round_mean"] == pytest.approx((1 + 1 + 0) / 3)


def test_an_update_that_is_recorded_again_stays_as_it_was(store: Store) -> None:
    batch = batch_record()
    store.append_batch(batch, part_of(batch))
    for _ in range(2):
        with store.write() as connection:
            for index in (0, 1):
                add_update(connection, "pol_0", index, "fresh", names(batch), loss=1.0, residual=1.0)
    assert store.query("SELECT uses_mean FROM updates ORDER BY update_index").column(0).to_pylist() == [1.0, 2.0]
    assert store.query("SELECT count(*) AS n FROM store.update_trajectories").column("n").to_pylist() == [8]


def test_a_metric_of_nothing_has_no_value(store: Store) -> None:
    nothing = {"right_by_right_steps": SimpleNamespace(value=None, low=None, high=None)}
    with store.write() as connection:
        evaluations.add(
            connection,
            evaluation_id="evl_0",
            policy_id=BASE,
            benchmark="held-out",
            benchmark_id="ben_0",
            batch_id="bat_0",
            verifier_id="ver_1",
            problem_count=1,
            samples_per_problem=1,
            settings={},
            metrics=nothing,
        )
    found = store.query("SELECT value, low, high FROM evaluations").to_pylist()
    assert found == [{"value": None, "low": None, "high": None}]


def test_a_response_can_be_trained_on_again_from_the_views(example: Example) -> None:
    name = names(example.rounds[0])[1]
    (row,) = example.store.query("SELECT * FROM tokens WHERE trajectory_id = $name", name=name).to_pylist()
    assert (row["prompt_ids"], row["response_ids"], row["truncated"]) == ([1, 2, 3], [0, 1, 2], False)
    assert (row["behaviour_logprob"], row["seed"]) == (-2.0, 2**64 - 2)
    assert (json.loads(row["sampling"]), row["engine"]) == ({"temperature": 1.0}, "test")
    assert (row["policy_id"], row["weights_checksum"], row["tokenizer_id"]) == (BASE, "sha256_0", "tok_0")
