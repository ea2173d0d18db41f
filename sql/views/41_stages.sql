-- A row is one committed stage at an iteration of a run. A stage that was done already by another run has a row for each
-- run that uses it, with executed = false in those that found it. Seconds of wall time, times in UTC.
CREATE OR REPLACE VIEW stages AS
SELECT
    l.run_id,
    l.iteration,
    l.stage,
    l.stage_key,
    l.executed,
    l.attempt,
    s.seconds,
    s.inputs,
    s.output,
    s.committed_at,
    l.linked_at
FROM store.stage_links AS l
JOIN store.stages AS s USING (stage_key);

COMMENT ON VIEW stages IS 'One row per committed stage and run that uses it.';
COMMENT ON COLUMN stages.iteration IS 'Round, 0-based; -1 is the evaluation before the first round.';
COMMENT ON COLUMN stages.executed IS 'Whether this run did the work; false where it found it done.';
COMMENT ON COLUMN stages.seconds IS 'Wall seconds of whoever executed it.';
