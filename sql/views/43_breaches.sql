-- A row is one metric of one round that was out of its bounds for as many rounds as its rule says: docs/health.md. It has a
-- row for each round while that lasts. Times in UTC.
CREATE OR REPLACE VIEW breaches AS
SELECT
    b.run_id,
    r.name AS run_name,
    b.attempt,
    b.iteration,
    b.metric,
    b.value,
    b.bound,
    b.rounds,
    b.action,
    b.recorded_at
FROM store.breaches AS b
LEFT JOIN store.runs AS r USING (run_id);

COMMENT ON VIEW breaches IS 'One row per round and metric that was out of the bounds of the section health.';
COMMENT ON COLUMN breaches.run_id IS 'The run.';
COMMENT ON COLUMN breaches.run_name IS 'Its name.';
COMMENT ON COLUMN breaches.attempt IS 'The attempt that saw it first.';
COMMENT ON COLUMN breaches.iteration IS 'The round after which it was seen.';
COMMENT ON COLUMN breaches.metric IS 'What is watched; a key of the section health.';
COMMENT ON COLUMN breaches.value IS 'Value in this round, in the metric''s unit.';
COMMENT ON COLUMN breaches.bound IS 'The bound that it is beyond.';
COMMENT ON COLUMN breaches.rounds IS 'Rounds in a row that the rule asked for.';
COMMENT ON COLUMN breaches.action IS 'What the rule asked for: warn or stop.';
COMMENT ON COLUMN breaches.recorded_at IS 'UTC.';
