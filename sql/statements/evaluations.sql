-- Evaluations and their metrics.

-- name: add_evaluation
INSERT INTO store.evaluations (
    evaluation_id, policy_id, benchmark, benchmark_id, batch_id, verifier_id, problem_count, samples_per_problem, settings,
    created_at
)
VALUES (
    $evaluation_id, $policy_id, $benchmark, $benchmark_id, $batch_id, $verifier_id, $problem_count, $samples_per_problem,
    $settings, $created_at
)
ON CONFLICT DO NOTHING;

-- name: add_metric
INSERT INTO store.evaluation_metrics (evaluation_id, metric, value, low, high)
VALUES ($evaluation_id, $metric, $value, $low, $high)
ON CONFLICT DO NOTHING;

-- name: current
-- A run's evaluations under the settings that hold now; others stay in the store and are not mixed with them.
SELECT v.evaluation_id, v.policy_id, v.benchmark, v.metric, v.iteration, v.value, v.low, v.high, v.created_at
FROM evaluations AS v
JOIN store.evaluations AS e USING (evaluation_id)
WHERE v.run_id = $run_id
  AND e.samples_per_problem = $samples_per_problem
  AND e.settings::VARCHAR = $settings
  AND list_contains($verifier_ids, e.verifier_id)
  AND list_contains($benchmark_ids, e.benchmark_id)
ORDER BY v.benchmark, v.metric, v.iteration;

-- name: samples
-- Every sample of an evaluation with the newest verdict of its verifier.
SELECT e.benchmark_id, e.problem_count, e.samples_per_problem, v.status, v.answer
FROM store.evaluations AS e
JOIN store.trajectories AS t USING (batch_id)
LEFT JOIN store.newest_verdicts AS n ON n.trajectory_id = t.trajectory_id AND n.verifier_id = e.verifier_id
LEFT JOIN store.verdicts AS v
  ON v.trajectory_id = t.trajectory_id AND v.verifier_id = e.verifier_id AND v.gold_digest = n.gold_digest
WHERE e.evaluation_id = $evaluation_id
ORDER BY t.problem_id, t.sample_index;
