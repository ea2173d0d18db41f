-- What lies in a run's replay window now: how old is it, and how often was it used?
-- $run: a run_id, by default the training that was active last. age is in rounds; the window is the last replay.capacity
-- entries, or rounds where replay.unit says so; of an offline run all that it admitted.
WITH held AS (
    SELECT p.*, max(p.iteration) OVER () - p.iteration AS age
    FROM replay AS p
    JOIN runs AS r USING (run_id)
    WHERE p.run_id = coalesce($run, newest_run())
    QUALIFY CASE
            WHEN (r.config ->> '$.replay.unit') = 'rounds' THEN dense_rank() OVER (ORDER BY p.iteration DESC)
            ELSE row_number() OVER (ORDER BY p.iteration DESC, p.position DESC)
        END <= coalesce((r.config ->> '$.replay.capacity')::BIGINT, 9223372036854775807)
        OR (r.config ->> '$.offline') IS NOT NULL
)
SELECT
    age,
    iteration AS generated_round,
    count(*) AS trajectories,
    avg(times_used) AS uses_mean,
    max(times_used) AS uses_most,
    count(*) FILTER (times_used = 0) AS never_used,
    avg(reward_used) AS reward_mean,
    avg(response_tokens) AS response_tokens_mean
FROM held
GROUP BY age, iteration
ORDER BY age;
