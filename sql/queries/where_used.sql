-- Where has a trajectory been used?
-- $trajectory: a trajectory_id, by default the one that was used most. A row is one membership in an update, by the run that
-- first made it; residual, log_ratio and root_value_gap in nats, before the step.
SELECT
    m.run_id,
    m.iteration,
    m.update_index,
    m.kind,
    m.age,
    row_number() OVER (PARTITION BY m.run_id ORDER BY m.iteration, m.update_index, m.position) AS use_number,
    m.reward,
    m.weight,
    m.residual,
    m.log_ratio,
    m.root_value_gap,
    m.policy_id,
    m.trajectory_id
FROM update_members AS m
WHERE m.trajectory_id = coalesce($trajectory, (
    SELECT trajectory_id FROM update_members GROUP BY trajectory_id ORDER BY count(*) DESC, trajectory_id LIMIT 1
))
ORDER BY m.run_id, m.iteration, m.update_index, m.position;
