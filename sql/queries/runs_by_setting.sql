-- How do runs compare that differ in one configuration value?
-- $setting: its dotted key, by default objective.beta; one that no run has is an error. Accuracy and reward are means of
-- the last five rounds' batches; NULL in an offline run, which samples none.
WITH asked AS (
    SELECT
        coalesce($setting, 'objective.beta') AS setting,
        CASE
            WHEN NOT EXISTS (FROM runs) OR EXISTS (
                SELECT 1 FROM runs WHERE json_exists(config, '$.' || coalesce($setting, 'objective.beta'))
            )
            THEN '$.' || coalesce($setting, 'objective.beta')
            ELSE error('no run has a setting ' || $setting || '; docs/configuration.md lists the keys')
        END AS path
),
settled AS (
    SELECT run_id, batch_id, accuracy, reward_mean, residual_mean, response_tokens_mean
    FROM rounds
    QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY iteration DESC) <= 5
)
SELECT
    a.setting,
    r.config ->> a.path AS value,
    r.run_name,
    r.run_id,
    r.parent_run_id,
    r.rounds_done,
    r.trajectories,
    r.tokens_generated,
    avg(s.accuracy) FILTER (s.batch_id IS NOT NULL) AS accuracy,
    avg(s.reward_mean) FILTER (s.batch_id IS NOT NULL) AS reward_mean,
    avg(s.residual_mean) AS residual_mean,
    avg(s.response_tokens_mean) AS response_tokens_mean
FROM runs AS r
JOIN settled AS s USING (run_id)
CROSS JOIN asked AS a
GROUP BY a.setting, a.path, r.config, r.run_name, r.run_id, r.parent_run_id, r.rounds_done, r.trajectories, r.tokens_generated
ORDER BY try_cast(value AS DOUBLE), value, r.run_name, r.run_id;
