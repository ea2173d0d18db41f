-- What was an update trained on?
-- $policy and $update: the policy that a round gave and the number of its update, by default the newest training's last one.
WITH chosen AS (
    SELECT u.policy_id, u.update_index, u.run_id
    FROM updates AS u
    WHERE u.policy_id = coalesce($policy, (SELECT last_policy_id FROM runs WHERE run_id = newest_run()))
      AND u.update_index = coalesce($update, u.update_index)
    ORDER BY u.update_index DESC
    LIMIT 1
)
SELECT
    m.position,
    m.kind,
    m.generated_round,
    m.age,
    m.reward,
    m.residual,
    m.log_ratio,
    m.root_value_gap,
    t.times_used,
    t.response_tokens,
    t.status,
    t.question,
    t.gold,
    t.answer,
    t.completion,
    m.trajectory_id,
    m.policy_id,
    m.update_index
FROM update_members AS m
JOIN chosen AS c ON c.policy_id = m.policy_id AND c.update_index = m.update_index
LEFT JOIN run_trajectories AS t ON t.run_id = c.run_id AND t.trajectory_id = m.trajectory_id
ORDER BY m.position;
