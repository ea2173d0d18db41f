-- A row is one trajectory in one update: what the step was trained on. Units: nats; age in rounds.
CREATE OR REPLACE VIEW update_members AS
SELECT
    m.policy_id,
    l.run_id,
    l.iteration,
    m.update_index,
    u.kind,
    m.position,
    m.trajectory_id,
    b.round AS generated_round,
    CASE WHEN l.samples AND b.purpose = 'training' THEN l.iteration - b.round END AS age,
    m.reward,
    m.weight,
    m.residual,
    m.log_ratio,
    m.root_value_gap
FROM store.update_trajectories AS m
JOIN store.updates AS u ON u.policy_id = m.policy_id AND u.update_index = m.update_index
JOIN store.trajectories AS t ON t.trajectory_id = m.trajectory_id
JOIN store.batches AS b ON b.batch_id = t.batch_id
LEFT JOIN store.policy_rounds AS l ON l.policy_id = m.policy_id;

COMMENT ON VIEW update_members IS 'One row per trajectory and update that was trained on it.';
COMMENT ON COLUMN update_members.policy_id IS 'The policy that the round''s updates gave.';
COMMENT ON COLUMN update_members.run_id IS 'The run that first made the update.';
COMMENT ON COLUMN update_members.iteration IS 'The round of the update.';
COMMENT ON COLUMN update_members.update_index IS 'Which step of the round, from 0.';
COMMENT ON COLUMN update_members.kind IS 'fresh: the round''s own batch; replay: drawn from the window.';
COMMENT ON COLUMN update_members.position IS 'Place within the update, from 0.';
COMMENT ON COLUMN update_members.trajectory_id IS 'The response that was trained on.';
COMMENT ON COLUMN update_members.generated_round IS 'The round that sampled it, of the run that did; 0 in imports.';
COMMENT ON COLUMN update_members.age IS 'Rounds since it was sampled; NULL in an offline run and of imports, where none would tell.';
COMMENT ON COLUMN update_members.reward IS 'The reward used.';
COMMENT ON COLUMN update_members.weight IS 'Importance weight of the draw.';
COMMENT ON COLUMN update_members.residual IS 'Bellman residual before the step in nats; NULL where the objective has none.';
COMMENT ON COLUMN update_members.log_ratio IS 'log pi - log pi_ref before the step in nats; NULL where the objective has no reference.';
COMMENT ON COLUMN update_members.root_value_gap IS 'V(s1) - V_ref(s1) before the step in nats; NULL where the objective has none.';
