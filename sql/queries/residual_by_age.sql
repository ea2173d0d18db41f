-- Do residuals grow with the age of what is trained on?
-- $run: a run_id, by default the training that was active last. age is in rounds, residuals and log-ratios in nats; an
-- offline run has no ages, since its responses were sampled in rounds of other runs.
SELECT
    CASE WHEN r.batch_id IS NOT NULL THEN r.iteration - m.generated_round END AS age,
    count(*) AS members,
    avg(m.residual) AS residual_mean,
    avg(abs(m.residual)) AS residual_abs_mean,
    stddev_pop(m.residual) AS residual_std,
    avg(m.log_ratio) AS log_ratio_mean,
    avg(m.root_value_gap) AS root_value_gap_mean,
    avg(m.reward) AS reward_mean
FROM update_members AS m
-- a round without updates keeps its parent's policy, whose updates count once
JOIN rounds AS r ON r.policy_id = m.policy_id AND r.updates > 0
WHERE r.run_id = coalesce($run, newest_run())
GROUP BY ALL
ORDER BY 1;
