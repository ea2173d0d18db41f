-- Are long responses rewarded more or less than short ones?
-- $run: a run_id, by default the training that was active last. Rows are tenths of its graded responses by length.
WITH ranked AS (
    SELECT *, ntile(10) OVER (ORDER BY response_tokens, trajectory_id) AS tenth
    FROM run_trajectories
    WHERE run_id = coalesce($run, newest_run()) AND status IS NOT NULL
)
SELECT
    tenth,
    min(response_tokens) AS tokens_from,
    max(response_tokens) AS tokens_to,
    count(*) AS responses,
    avg(correct::INTEGER) AS correct_share,
    avg(reward) AS reward_mean,
    avg(truncated::INTEGER) AS truncated_share
FROM ranked
GROUP BY tenth
ORDER BY tenth;
