-- A row is one entry of a run's replay buffer, its ancestors' entries before the fork included. Entries stay when the
-- window has passed them: the window of round t is the last replay.capacity rows up to iteration t by (iteration, position).
CREATE OR REPLACE VIEW replay AS
SELECT
    c.run_id,
    c.owner_run_id,
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
FROM store.run_chain AS c
JOIN store.replay_entries AS e
  ON e.run_id = c.owner_run_id
 AND e.iteration >= c.first_iteration
 AND (c.until_iteration IS NULL OR e.iteration < c.until_iteration)
JOIN store.trajectories AS t ON t.trajectory_id = e.trajectory_id
LEFT JOIN (
    SELECT p.run_id, m.trajectory_id, count(*) AS times_used, max(p.iteration) AS last_used_round
    FROM store.chain_policies AS p
    JOIN store.update_trajectories AS m USING (policy_id)
    GROUP BY p.run_id, m.trajectory_id
) AS u
  ON u.run_id = c.run_id AND u.trajectory_id = e.trajectory_id;

COMMENT ON VIEW replay IS 'One row per admission to a run''s buffer, along its chain.';
COMMENT ON COLUMN replay.owner_run_id IS 'The run that admitted it: this one, or an ancestor before the fork.';
COMMENT ON COLUMN replay.reward_used IS 'The frozen reward that learning uses.';
COMMENT ON COLUMN replay.times_used IS 'Memberships in updates along this run''s chain.';
