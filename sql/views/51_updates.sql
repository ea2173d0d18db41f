-- A row is one optimizer step. Units: loss in squared nats for the residual objectives, tokens are response tokens.
CREATE OR REPLACE VIEW updates AS
SELECT
    u.policy_id,
    l.run_id,
    l.iteration,
    u.update_index,
    u.kind,
    u.loss,
    u.grad_norm,
    u.lr,
    u.skipped,
    u.trajectories,
    u.tokens
FROM store.updates AS u
LEFT JOIN store.policy_rounds AS l USING (policy_id);

COMMENT ON VIEW updates IS 'One row per optimizer step of a round.';
COMMENT ON COLUMN updates.policy_id IS 'The policy that the round''s updates gave.';
COMMENT ON COLUMN updates.run_id IS 'The run that first made these updates.';
COMMENT ON COLUMN updates.kind IS 'fresh: the round''s own batch; replay: drawn from the window.';
COMMENT ON COLUMN updates.loss IS 'Before the step; NULL when it was not finite.';
COMMENT ON COLUMN updates.grad_norm IS 'Global norm before clipping; NULL when it was not finite.';
COMMENT ON COLUMN updates.skipped IS 'The step was not finite and changed nothing.';
