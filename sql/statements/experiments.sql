-- What an experiment reads of a run.

-- name: curve
-- One row per evaluation of the run: what it cost to get there, and the metric. Seconds are those of the stages that train
-- and not of the evaluations. The drift is the mean log pi - log pi_ref of the responses that this policy then sampled, known
-- from the next round's first update on them: an estimate of KL(pi || pi_ref) in nats.
WITH spent AS (
    SELECT
        iteration,
        (sum(tokens_generated) OVER so_far)::BIGINT AS tokens,
        sum(seconds_generate + seconds_verify + coalesce(seconds_score, 0) + seconds_persist + seconds_learn)
            OVER so_far AS seconds
    FROM rounds
    WHERE run_id = $run_id
    WINDOW so_far AS (ORDER BY iteration)
),
sampled AS (
    SELECT r.iteration, u.log_ratio_mean AS drift
    FROM rounds AS r
    JOIN store.updates AS u ON u.policy_id = r.policy_id AND u.update_index = 0 AND u.kind = 'fresh'
    WHERE r.run_id = $run_id AND r.updates > 0
)
SELECT
    e.iteration + 1 AS rounds,
    coalesce(s.tokens, 0)::BIGINT AS tokens,
    coalesce(s.seconds, 0)::DOUBLE AS seconds,
    e.value,
    d.drift
FROM evaluations AS e
LEFT JOIN spent AS s ON s.iteration = e.iteration
LEFT JOIN sampled AS d ON d.iteration = e.iteration + 1
WHERE e.run_id = $run_id AND e.benchmark = $benchmark AND e.metric = $metric
ORDER BY rounds;

-- name: pass_rates
-- Share of right responses to each problem of an evaluation, by the verdicts of its verifier.
SELECT p.question, avg((v.status = 'correct')::INTEGER) AS pass_rate
FROM store.evaluations AS e
JOIN store.trajectories AS t ON t.batch_id = e.batch_id
JOIN store.verdicts AS v ON v.trajectory_id = t.trajectory_id AND v.verifier_id = e.verifier_id
JOIN store.problems AS p ON p.problem_id = t.problem_id
WHERE e.evaluation_id = $evaluation_id
GROUP BY p.problem_id, p.question
ORDER BY p.problem_id;
