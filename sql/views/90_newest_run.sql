-- newest_run() is the run_id of the training run that was active last: SELECT * FROM rounds WHERE run_id = newest_run().
CREATE OR REPLACE MACRO newest_run() AS (
    SELECT run_id FROM runs
    WHERE coalesce((config -> 'run' ->> 'iterations')::INTEGER, 1) > 0
    ORDER BY last_active_at DESC, run_id
    LIMIT 1
);
COMMENT ON MACRO newest_run IS 'The run_id of the run that was active last.';
