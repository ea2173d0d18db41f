-- A row is one entry of a run's replay buffer, its ancestors' entries before the fork included. Entries stay when the
-- window has passed them: the window of round t is the last replay.capacity rows (or rounds, by replay.unit) up to iteration t.
CREATE OR REPLACE VIEW replay AS
SELECT
    e.run_id,
    e.owner_run_id,
    e.iteration,
    e.position,
    e.trajectory_id,
    t.problem_id,
    t.response_tokens,
    e.reward_used,
    e.verifier_id,
    e.gold_digest,
    coalesce(u.times_used, 0) AS times_used,
    u.last_used_round
FROM store.chain_entries AS e
JOIN store.trajectories AS t ON t.trajectory_id = e.trajectory_id
LEFT JOIN store.chain_uses AS u ON u.run_id = e.run_id AND u.trajectory_id = e.trajectory_id;

COMMENT ON VIEW replay IS 'One row per admission to a run''s buffer, along its chain.';
COMMENT ON COLUMN replay.run_id IS 'The run.';
COMMENT ON COLUMN replay.owner_run_id IS 'The run that admitted it: this one, or an ancestor before the fork.';
COMMENT ON COLUMN replay.iteration IS 'The round that admitted it.';
COMMENT ON COLUMN replay.position IS 'Place within the round, from 0.';
COMMENT ON COLUMN replay.trajectory_id IS 'The admitted response.';
COMMENT ON COLUMN replay.problem_id IS 'Its problem.';
COMMENT ON COLUMN replay.response_tokens IS 'Its tokens.';
COMMENT ON COLUMN replay.reward_used IS 'The frozen reward that learning uses.';
COMMENT ON COLUMN replay.verifier_id IS 'The verifier of the verdict that was used.';
COMMENT ON COLUMN replay.gold_digest IS 'The gold answer of the verdict that was used.';
COMMENT ON COLUMN replay.times_used IS 'Memberships in updates along this run''s chain.';
COMMENT ON COLUMN replay.last_used_round IS 'Newest round of this run''s chain that trained on it.';
