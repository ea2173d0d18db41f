-- What is saved beside the database, and what decides whether it may be removed.

-- name: saved
-- Learned policies that have a folder, ancestors before their descendants, with the run and round that first gave them.
SELECT p.policy_id, l.run_id, l.iteration, p.folder
FROM store.policies AS p
LEFT JOIN store.policy_rounds AS l USING (policy_id)
WHERE p.kind = 'learned' AND p.folder IS NOT NULL
ORDER BY p.updates_done, p.created_at, p.policy_id;

-- name: bases
SELECT policy_id, folder FROM store.policies WHERE kind = 'base';

-- name: metrics
-- The newest value of each metric of each policy that a run's rounds gave, its ancestors' rounds before the fork included.
SELECT c.run_id, c.iteration, e.policy_id, e.benchmark, m.metric, arg_max(m.value, e.created_at) AS value
FROM store.chain_policies AS c
JOIN store.evaluations AS e USING (policy_id)
JOIN store.evaluation_metrics AS m USING (evaluation_id)
WHERE m.value IS NOT NULL
GROUP BY ALL
ORDER BY c.run_id, c.iteration;

-- name: rules
-- The retention rules of each run, as its newest attempt was asked for.
SELECT run_id, config -> '$.retention' AS retention, mlflow_run_id FROM store.runs ORDER BY run_id;

-- name: attempts
SELECT run_id, attempt, status, log_path, pid, host, process_started FROM store.attempts ORDER BY run_id, attempt;

-- name: results
-- Stages by the run that did them; Prefect keeps what they gave under their key.
SELECT run_id, stage_key FROM store.stages WHERE run_id IS NOT NULL ORDER BY run_id, committed_at;

-- name: forget_log
UPDATE store.attempts SET log_path = NULL WHERE run_id = $run_id AND attempt = $attempt;
