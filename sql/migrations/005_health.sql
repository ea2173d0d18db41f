-- Health: which metrics of which rounds were out of the bounds that the configuration sets.

CREATE TABLE store.breaches (
    run_id      VARCHAR NOT NULL,
    iteration   INTEGER NOT NULL,
    metric      VARCHAR NOT NULL,
    attempt     INTEGER NOT NULL,
    value       DOUBLE NOT NULL,
    bound       DOUBLE NOT NULL,
    rounds      INTEGER NOT NULL,
    action      VARCHAR NOT NULL CHECK (action IN ('warn', 'stop')),
    recorded_at TIMESTAMP NOT NULL,
    PRIMARY KEY (run_id, iteration, metric)
);
COMMENT ON TABLE store.breaches IS 'Metrics that were out of their bounds for as many rounds as their rule says.';
COMMENT ON COLUMN store.breaches.run_id IS 'The run.';
COMMENT ON COLUMN store.breaches.iteration IS 'The round after which it was seen.';
COMMENT ON COLUMN store.breaches.metric IS 'What is watched; a key of the section health.';
COMMENT ON COLUMN store.breaches.attempt IS 'The attempt that saw it first.';
COMMENT ON COLUMN store.breaches.value IS 'Value in this round, in the metric''s unit.';
COMMENT ON COLUMN store.breaches.bound IS 'The bound that it is beyond.';
COMMENT ON COLUMN store.breaches.rounds IS 'Rounds in a row that the rule asked for.';
COMMENT ON COLUMN store.breaches.action IS 'What the rule asked for: warn or stop.';
COMMENT ON COLUMN store.breaches.recorded_at IS 'UTC.';
