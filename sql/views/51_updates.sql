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
    u.tokens,
    u.residual_mean,
    u.residual_std,
    u.log_ratio_mean,
    u.root_value_gap_mean,
    u.generated_round_mean,
    u.uses_mean
FROM store.updates AS u
LEFT JOIN store.policy_rounds AS l USING (policy_id);

COMMENT ON VIEW updates IS 'One row per optimizer step of a round.';
COMMENT ON COLUMN updates.policy_id IS 'The policy that the round''s updates gave.';
COMMENT ON COLUMN updates.run_id IS 'The run that first made these updates.';
COMMENT ON COLUMN updates.iteration IS 'The round.';
COMMENT ON COLUMN updates.update_index IS 'Which step of the round, from 0.';
COMMENT ON COLUMN updates.kind IS 'fresh: the round''s own batch; replay: drawn from the window.';
COMMENT ON COLUMN updates.loss IS 'Before the step; NULL when it was not finite.';
COMMENT ON COLUMN updates.grad_norm IS 'Global norm before clipping; NULL when it was not finite.';
COMMENT ON COLUMN updates.lr IS 'Learning rate of the step.';
COMMENT ON COLUMN updates.skipped IS 'The step was not finite and changed nothing.';
COMMENT ON COLUMN updates.trajectories IS 'Members: responses that it was trained on.';
COMMENT ON COLUMN updates.tokens IS 'Response tokens of its members.';
COMMENT ON COLUMN updates.residual_mean IS 'Mean Bellman residual of its members in nats; NULL where the objective has none.';
COMMENT ON COLUMN updates.residual_std IS 'Population standard deviation of it, in nats.';
COMMENT ON COLUMN updates.log_ratio_mean IS 'Mean log pi - log pi_ref of its members in nats; NULL where the objective has no reference.';
COMMENT ON COLUMN updates.root_value_gap_mean IS 'Mean V(s1) - V_ref(s1) of its members in nats; NULL where the objective has none.';
COMMENT ON COLUMN updates.generated_round_mean IS 'Mean round in which its members were sampled.';
COMMENT ON COLUMN updates.uses_mean IS 'Mean uses of its members so far along the policy''s lineage, this one included.';
