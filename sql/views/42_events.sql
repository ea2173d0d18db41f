-- A row is one thing worth knowing later about a run: changed versions, skipped updates, reference resets. Times in UTC.
CREATE OR REPLACE VIEW events AS
SELECT e.run_id, r.name AS run_name, e.attempt, e.iteration, e.kind, e.message, e.recorded_at
FROM store.events AS e
LEFT JOIN store.runs AS r USING (run_id);

COMMENT ON VIEW events IS 'One row per notable event of a run.';
COMMENT ON COLUMN events.run_id IS 'The run.';
COMMENT ON COLUMN events.run_name IS 'Its name.';
COMMENT ON COLUMN events.attempt IS 'The attempt that met it.';
COMMENT ON COLUMN events.iteration IS 'The round; NULL when it belongs to none.';
COMMENT ON COLUMN events.kind IS 'What it is, in two words.';
COMMENT ON COLUMN events.message IS 'What happened.';
COMMENT ON COLUMN events.recorded_at IS 'UTC.';
