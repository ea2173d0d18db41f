-- Evaluations and their metrics.

-- name: add_evaluation
INSERT INTO store.evaluations
VALUES ($evaluation_id, $policy_id, $benchmark, $benchmark_id, $batch_id, $verifier_id, $problem_count,
        $samples_per_problem, $settings, $created_at)
ON CONFLICT DO NOTHING;

-- name: add_metric
INSERT INTO store.evaluation_metrics VALUES ($evaluation_id, $metric, $value, $low, $high) ON CONFLICT DO NOTHING;
