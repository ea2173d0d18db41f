-- Are long responses rewarded more or less than short ones?
-- $run: a run_id, by default the run that was active last. Rows are tenths of its graded responses by length.
WITH ranked AS (
    SELECT t.*, ntile(10) OVER (ORDER BY t.response_tokens, t.trajectory_id) AS tenth
    FROM trajectories AS t
    SEMI JOIN rounds AS r ON r.batch_id = t.batch_id AND r.run_id = coalesce($run, newest_run())
    WHERE t.status IS NOT NULL
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
