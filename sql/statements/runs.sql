-- Runs, their chain of ancestors, their attempts, and which problems each iteration draws.

-- name: add_run
INSERT INTO store.runs
VALUES ($run_id, $name, $config, $config_id, $seed, $parent_run_id, $fork_iteration, $forced, $base_policy_id,
        $verifier_id, $versions, NULL, $created_at);

-- name: add_chain
-- The parent's chain cut at the fork, then the run itself from there on.
INSERT INTO store.run_chain
SELECT $run_id, owner_run_id, first_iteration, least(coalesce(until_iteration, $fork_iteration), $fork_iteration)
FROM store.run_chain
WHERE run_id = $parent_run_id AND first_iteration < $fork_iteration
UNION ALL
SELECT $run_id, $run_id, $fork_iteration, NULL;

-- name: run
SELECT run_id, name, config, config_id, seed, base_policy_id, verifier_id, versions, parent_run_id, fork_iteration,
       forced, mlflow_run_id
FROM store.runs
WHERE run_id = $run_id;

-- name: set_mlflow_run
UPDATE store.runs SET mlflow_run_id = $mlflow_run_id WHERE run_id = $run_id;

-- name: running_attempts
SELECT attempt, pid, host, process_started FROM store.attempts WHERE run_id = $run_id AND status = 'running';

-- name: add_attempt
INSERT INTO store.attempts
SELECT $run_id, coalesce(max(attempt), 0) + 1, 'running', $pid, $host, $process_started, $git_commit, $versions, $device,
       $flow_run_id, NULL, NULL, $started_at, NULL
FROM store.attempts
WHERE run_id = $run_id
RETURNING attempt;

-- name: last_versions
SELECT versions FROM store.attempts WHERE run_id = $run_id ORDER BY attempt DESC LIMIT 1;

-- name: set_log_path
UPDATE store.attempts SET log_path = $log_path WHERE run_id = $run_id AND attempt = $attempt;

-- name: end_attempt
UPDATE store.attempts
SET status = $status, message = $message, ended_at = $ended_at
WHERE run_id = $run_id AND attempt = $attempt;

-- name: mark_dead
UPDATE store.attempts
SET status = 'crashed', message = 'its process was gone when the next attempt started', ended_at = $ended_at
WHERE run_id = $run_id AND status = 'running' AND NOT list_contains($living, attempt);

-- name: add_event
INSERT INTO store.events VALUES ($run_id, $attempt, $iteration, $kind, $message, $recorded_at);

-- name: round
SELECT r.first_position, r.until_position
FROM store.run_chain AS c
JOIN store.rounds AS r
  ON r.run_id = c.owner_run_id
 AND r.iteration >= c.first_iteration
 AND (c.until_iteration IS NULL OR r.iteration < c.until_iteration)
WHERE c.run_id = $run_id AND r.iteration = $iteration;

-- name: planned
-- Where the next round starts, how far the schedule reaches, and its newest epoch, along the chain.
SELECT
    (SELECT coalesce(max(r.until_position), 0)
     FROM store.run_chain AS c
     JOIN store.rounds AS r
       ON r.run_id = c.owner_run_id
      AND r.iteration >= c.first_iteration
      AND (c.until_iteration IS NULL OR r.iteration < c.until_iteration)
     WHERE c.run_id = $run_id AND r.iteration < $iteration) AS cursor,
    (SELECT coalesce(max(s.position) + 1, 0)
     FROM store.run_chain AS c
     JOIN store.problem_schedule AS s
       ON s.run_id = c.owner_run_id
      AND s.planned_at >= c.first_iteration
      AND (c.until_iteration IS NULL OR s.planned_at < c.until_iteration)
     WHERE c.run_id = $run_id) AS reach,
    (SELECT coalesce(max(s.epoch) + 1, 0)
     FROM store.run_chain AS c
     JOIN store.problem_schedule AS s
       ON s.run_id = c.owner_run_id
      AND s.planned_at >= c.first_iteration
      AND (c.until_iteration IS NULL OR s.planned_at < c.until_iteration)
     WHERE c.run_id = $run_id) AS next_epoch;

-- name: plan_epoch
-- "epoch_order" is an Arrow table (offset, problem_id).
INSERT INTO store.problem_schedule
SELECT $run_id, $first_position + e.offset_, $epoch, e.problem_id, $iteration
FROM epoch_order AS e;

-- name: add_round
INSERT INTO store.rounds VALUES ($run_id, $iteration, $first_position, $until_position);

-- name: scheduled
SELECT s.problem_id
FROM store.run_chain AS c
JOIN store.problem_schedule AS s
  ON s.run_id = c.owner_run_id
 AND s.planned_at >= c.first_iteration
 AND (c.until_iteration IS NULL OR s.planned_at < c.until_iteration)
WHERE c.run_id = $run_id AND s.position >= $first_position AND s.position < $until_position
ORDER BY s.position;
