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
COMMENT ON COLUMN attempts.run_id IS 'The run.';
COMMENT ON COLUMN attempts.run_name IS 'Its name.';
COMMENT ON COLUMN attempts.attempt IS 'Counts from 1 within the run.';
COMMENT ON COLUMN attempts.status IS 'running, completed, failed, cancelled or crashed.';
COMMENT ON COLUMN attempts.message IS 'Why it ended, where it failed.';
COMMENT ON COLUMN attempts.started_at IS 'UTC.';
COMMENT ON COLUMN attempts.ended_at IS 'UTC; NULL while it runs.';
COMMENT ON COLUMN attempts.seconds IS 'Wall seconds from start to end.';
COMMENT ON COLUMN attempts.device IS 'cpu, or the name of the GPU.';
COMMENT ON COLUMN attempts.host IS 'Host name.';
COMMENT ON COLUMN attempts.pid IS 'Process id.';
COMMENT ON COLUMN attempts.git_commit IS 'Commit of the code, with +changes where files differ; NULL outside a checkout.';
COMMENT ON COLUMN attempts.versions IS 'Versions that it ran under.';
COMMENT ON COLUMN attempts.flow_run_id IS 'The Prefect flow run; NULL without Prefect.';
COMMENT ON COLUMN attempts.log_path IS 'Log file, relative to REVAL_HOME.';
