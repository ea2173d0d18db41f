-- Runs, their chain of ancestors, and their attempts.

-- name: add_run
INSERT INTO store.runs (
    run_id, name, config, config_id, seed, parent_run_id, fork_iteration, forced, base_policy_id, verifier_id, versions,
    mlflow_run_id, created_at
)
VALUES (
    $run_id, $name, $config, $config_id, $seed, $parent_run_id, $fork_iteration, $forced, $base_policy_id, $verifier_id,
    $versions, $mlflow_run_id, $created_at
);

-- name: add_chain
-- The parent's chain cut at the fork, then the run itself from there on.
INSERT INTO store.run_chain BY NAME
SELECT
    $run_id AS run_id,
    owner_run_id,
    first_iteration,
    least(coalesce(until_iteration, $fork_iteration), $fork_iteration) AS until_iteration
FROM store.run_chain
WHERE run_id = $parent_run_id AND first_iteration < $fork_iteration
UNION ALL BY NAME
SELECT $run_id AS run_id, $run_id AS owner_run_id, $fork_iteration AS first_iteration;

-- name: run
SELECT run_id, name, config, config_id, seed, base_policy_id, verifier_id, versions, parent_run_id, fork_iteration,
       forced, mlflow_run_id
FROM store.runs
WHERE run_id = $run_id;

-- name: of_config
SELECT run_id FROM store.runs WHERE config_id = $config_id ORDER BY created_at DESC, run_id;

-- name: set_config
UPDATE store.runs SET config = $config WHERE run_id = $run_id;

-- name: set_mlflow_run
UPDATE store.runs SET mlflow_run_id = $mlflow_run_id WHERE run_id = $run_id;

-- name: running_attempts
SELECT attempt, pid, host, process_started FROM store.attempts WHERE run_id = $run_id AND status = 'running';

-- name: process_of
-- The process of the newest attempt that a flow run of Prefect made.
SELECT pid, host, process_started FROM store.attempts WHERE flow_run_id = $flow_run_id ORDER BY started_at DESC LIMIT 1;

-- name: add_attempt
INSERT INTO store.attempts BY NAME
SELECT
    $run_id AS run_id,
    coalesce(max(attempt), 0) + 1 AS attempt,
    'running' AS status,
    $pid AS pid,
    $host AS host,
    $process_started AS process_started,
    $git_commit AS git_commit,
    $versions AS versions,
    $device AS device,
    $flow_run_id AS flow_run_id,
    $started_at AS started_at
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
SET status = 'crashed', message = 'its process was gone when the next attempt started'
WHERE run_id = $run_id AND status = 'running' AND NOT list_contains($living, attempt);

-- name: add_event
INSERT INTO store.events (run_id, attempt, iteration, kind, message, recorded_at)
VALUES ($run_id, $attempt, $iteration, $kind, $message, $recorded_at);

-- name: messages
SELECT message FROM store.events WHERE run_id = $run_id AND kind = $kind;
