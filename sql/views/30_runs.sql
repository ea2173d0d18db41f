-- A row is one run: a training, a fork of one, or an evaluation by itself. Counts go along the run's chain: a fork counts its
-- ancestors' rounds before the fork. Units: tokens are response tokens, times in UTC.
CREATE OR REPLACE VIEW runs AS
SELECT
    r.run_id,
    r.name AS run_name,
    r.parent_run_id,
    r.fork_iteration,
    r.seed,
    r.config,
    r.base_policy_id,
    coalesce(c.last_policy_id, r.base_policy_id) AS last_policy_id,
    r.verifier_id,
    coalesce(c.rounds_done, 0) AS rounds_done,
    coalesce(c.trajectories, 0) AS trajectories,
    coalesce(c.tokens_generated, 0) AS tokens_generated,
    a.status,
    coalesce(a.attempts, 0) AS attempts,
    r.created_at,
    greatest(r.created_at, a.last_active_at, l.last_active_at) AS last_active_at,
    r.mlflow_run_id
FROM store.runs AS r
LEFT JOIN (
    SELECT
        run_id,
        count(*) FILTER (stage = 'learn') AS rounds_done,
        arg_max(output ->> 'policy_id', iteration) FILTER (stage = 'learn') AS last_policy_id,
        sum((output ->> 'trajectories')::BIGINT) FILTER (stage = 'generate')::BIGINT AS trajectories,
        sum((output ->> 'tokens')::BIGINT) FILTER (stage = 'generate')::BIGINT AS tokens_generated
    FROM store.chain_stages
    WHERE stage IN ('generate', 'learn')
    GROUP BY run_id
) AS c ON c.run_id = r.run_id
LEFT JOIN (
    SELECT
        run_id,
        arg_max(status, attempt) AS status,
        count(*) AS attempts,
        max(coalesce(ended_at, started_at)) AS last_active_at
    FROM store.attempts
    GROUP BY run_id
) AS a ON a.run_id = r.run_id
LEFT JOIN (
    SELECT run_id, max(linked_at) AS last_active_at
    FROM store.stage_links
    GROUP BY run_id
) AS l ON l.run_id = r.run_id;

COMMENT ON VIEW runs IS 'One row per training run, fork or evaluation: what it is, how far it is, how its last attempt ended.';
COMMENT ON COLUMN runs.run_id IS 'Name and digest of what decides the run.';
COMMENT ON COLUMN runs.run_name IS 'run.name of its configuration.';
COMMENT ON COLUMN runs.parent_run_id IS 'The run that it was forked from; NULL where it was not.';
COMMENT ON COLUMN runs.fork_iteration IS 'First iteration of its own; earlier ones are its parent''s. NULL where it is no fork.';
COMMENT ON COLUMN runs.seed IS 'run.seed: problem order, samples and draws derive from it.';
COMMENT ON COLUMN runs.config IS 'Its configuration when it was created: (config ->> ''$.objective.beta'')::DOUBLE.';
COMMENT ON COLUMN runs.base_policy_id IS 'The policy that it starts from.';
COMMENT ON COLUMN runs.last_policy_id IS 'The policy that its last round gave; the base before the first.';
COMMENT ON COLUMN runs.verifier_id IS 'The verifier whose verdicts it learns from.';
COMMENT ON COLUMN runs.rounds_done IS 'Rounds whose learning is committed, its ancestors'' before the fork included.';
COMMENT ON COLUMN runs.trajectories IS 'Training responses of its rounds, its ancestors'' before the fork included.';
COMMENT ON COLUMN runs.tokens_generated IS 'Response tokens of its rounds, its ancestors'' before the fork included.';
COMMENT ON COLUMN runs.status IS 'Of its last attempt: running, completed, failed, cancelled or crashed.';
COMMENT ON COLUMN runs.attempts IS 'How often it was started.';
COMMENT ON COLUMN runs.created_at IS 'UTC.';
COMMENT ON COLUMN runs.last_active_at IS 'UTC; when an attempt last started or ended, or a stage was last committed.';
COMMENT ON COLUMN runs.mlflow_run_id IS 'The MLflow run that shows it; NULL where there is none.';
