-- What is watched of a run's newest rounds, and the breaches that were seen. Offline rounds sample nothing: what is said of
-- a round's own responses is NULL in them.

-- name: figures
-- By round, oldest first. Residuals and values are in nats; times beta they are in units of the reward.
SELECT
    r.*,
    r.residual_std * (p.settings ->> '$.objective.beta')::DOUBLE AS residual_spread,
    r.root_value_gap_mean * (p.settings ->> '$.objective.beta')::DOUBLE AS root_value_gap,
    r.staleness_mean AS staleness
FROM rounds AS r
JOIN store.policies AS p USING (policy_id)
WHERE r.run_id = $run_id AND r.iteration BETWEEN $first AND $last
ORDER BY r.iteration;

-- name: all_wrong
-- By round of "figures", the result above: the share of groups without a right response, by the verdicts that were
-- admitted. A group is what one prompt of the round's batch was answered.
SELECT iteration, avg((NOT any_right)::INTEGER) AS all_wrong_share
FROM (
    SELECT f.iteration, t.problem_id, bool_or(v.status = 'correct') AS any_right
    FROM figures AS f
    JOIN store.chain_entries AS e ON e.run_id = $run_id AND e.iteration = f.iteration
    JOIN store.trajectories AS t ON t.trajectory_id = e.trajectory_id AND t.batch_id = f.batch_id
    JOIN store.verdicts AS v
      ON v.trajectory_id = e.trajectory_id AND v.gold_digest = e.gold_digest AND v.verifier_id = e.verifier_id
    GROUP BY f.iteration, t.problem_id
)
GROUP BY iteration;

-- name: engine_mismatch
-- By round of "figures": mean |log mu - log pi| of a response in nats per token. mu is the engine's, pi the trainer's when
-- the round's first update was computed, before its step, so both are of the policy that sampled.
SELECT
    f.iteration,
    avg(abs(t.behaviour_logprob - (m.log_ratio + s.logprob)) / t.response_tokens) AS engine_mismatch
FROM figures AS f
JOIN store.update_trajectories AS m ON m.policy_id = f.policy_id AND m.update_index = 0
JOIN store.trajectories AS t ON t.trajectory_id = m.trajectory_id AND t.batch_id = f.batch_id
JOIN store.reference_scores AS s
  ON s.trajectory_id = m.trajectory_id
 AND s.reference_policy_id = f.reference_policy_id
 AND s.scoring_id = $scoring_id
GROUP BY f.iteration;

-- name: add
-- Returns the metric where it was not recorded for this round yet.
INSERT INTO store.breaches BY NAME
SELECT
    $run_id AS run_id, $iteration AS iteration, $metric AS metric, $attempt AS attempt, $value AS value, $bound AS bound,
    $rounds AS rounds, $action AS action, $recorded_at AS recorded_at
ON CONFLICT DO NOTHING
RETURNING metric;

-- name: seen
-- The metrics that were out of bounds in a round.
SELECT metric FROM store.breaches WHERE run_id = $run_id AND iteration = $iteration;

-- name: summary
-- Each metric of a run that was out of bounds, the latest first: in how many rounds, from which to which, and the last of them.
SELECT
    metric,
    count(*) AS rounds,
    min(iteration) AS first,
    max(iteration) AS last,
    arg_max(value, iteration) AS value,
    arg_max(bound, iteration) AS bound,
    arg_max(action, iteration) AS action
FROM store.breaches
WHERE run_id = $run_id
GROUP BY metric
ORDER BY last DESC, metric;

-- name: rounds
SELECT * FROM rounds WHERE run_id = $run_id ORDER BY iteration;
