-- What "latest" and "best" stand for, and what a start meant when it first began. A NULL name is any run.

-- name: latest_run
-- The training run of that name that was started last.
SELECT r.run_id
FROM store.runs AS r
JOIN store.attempts AS a USING (run_id)
WHERE r.name = $name AND coalesce(r.config ->> '$.offline', 'null') = 'null'
ORDER BY a.started_at DESC, r.created_at DESC
LIMIT 1;

-- name: latest_policy
-- The newest policy that is saved.
SELECT p.policy_id
FROM store.policies AS p
LEFT JOIN store.policy_rounds AS l USING (policy_id)
LEFT JOIN store.runs AS r ON r.run_id = l.run_id
WHERE p.kind = 'learned' AND p.folder IS NOT NULL AND ($name IS NULL OR r.name = $name)
ORDER BY p.created_at DESC, p.updates_done DESC
LIMIT 1;

-- name: best
-- The policy with the highest newest value of a metric, the earlier one of two that are equal.
SELECT c.run_id, c.iteration, e.policy_id, r.created_at, arg_max(m.value, e.created_at) AS value
FROM store.chain_policies AS c
JOIN store.runs AS r USING (run_id)
JOIN store.evaluations AS e USING (policy_id)
JOIN store.evaluation_metrics AS m USING (evaluation_id)
WHERE r.name = $name AND e.benchmark = $benchmark AND m.metric = $metric AND m.value IS NOT NULL
GROUP BY ALL
ORDER BY value DESC, c.iteration, created_at
LIMIT 1;

-- name: start
SELECT meant FROM store.starts WHERE flow_run_id = $flow_run_id;

-- name: add_start
INSERT INTO store.starts (flow_run_id, flow, asked, meant, recorded_at)
VALUES ($flow_run_id, $flow, $asked, $meant, $recorded_at)
ON CONFLICT DO NOTHING;
