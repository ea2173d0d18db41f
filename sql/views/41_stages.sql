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
COMMENT ON COLUMN stages.run_id IS 'The run that uses it.';
COMMENT ON COLUMN stages.iteration IS 'Round, from 0; -1 is the time before the first round.';
COMMENT ON COLUMN stages.stage IS 'generate, verify, score, rescore, persist, learn, evaluate, checkpoint or report.';
COMMENT ON COLUMN stages.stage_key IS 'The stage''s name and the digest of its inputs.';
COMMENT ON COLUMN stages.executed IS 'Whether this run did the work; false where it found it done.';
COMMENT ON COLUMN stages.attempt IS 'The attempt of this run that did or found it.';
COMMENT ON COLUMN stages.seconds IS 'Wall seconds of whoever executed it.';
COMMENT ON COLUMN stages.inputs IS 'What decides the output.';
COMMENT ON COLUMN stages.output IS 'What passes on: ids, counts, paths.';
COMMENT ON COLUMN stages.committed_at IS 'UTC; when the work was committed.';
COMMENT ON COLUMN stages.linked_at IS 'UTC; when this run took it.';
