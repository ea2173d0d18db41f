-- A row is one start of a run: process, code, versions, device, log file, how it ended. Seconds of wall time, times in UTC.
CREATE OR REPLACE VIEW attempts AS
SELECT
    a.run_id,
    r.name AS run_name,
    a.attempt,
    a.status,
    a.message,
    a.started_at,
    a.ended_at,
    epoch(a.ended_at - a.started_at) AS seconds,
    a.device,
    a.host,
    a.pid,
    a.git_commit,
    a.versions,
    a.flow_run_id,
    a.log_path
FROM store.attempts AS a
LEFT JOIN store.runs AS r USING (run_id);

COMMENT ON VIEW attempts IS 'One row per start of a run and how it ended.';
COMMENT ON COLUMN attempts.log_path IS 'Relative to REVAL_HOME.';
COMMENT ON COLUMN attempts.flow_run_id IS 'The Prefect flow run.';
