-- How many responses were cut in each round, by what, and what did that cost?
-- $run: a run_id, by default the training that was active last. Lengths in tokens; p95 is the length that 95 % stay within.
SELECT
    iteration,
    count(*) AS responses,
    count(*) FILTER (truncated) AS truncated,
    avg(truncated::INTEGER) AS truncated_share,
    avg(correct::INTEGER) FILTER (truncated) AS correct_share_truncated,
    avg(correct::INTEGER) FILTER (NOT truncated) AS correct_share_others,
    count(*) FILTER (truncated AND admitted) AS truncated_learned_from,
    avg(response_tokens) AS tokens_mean,
    quantile_disc(response_tokens, 0.95) AS tokens_p95,
    max(response_tokens) AS tokens_most,
    count(*) FILTER (finish_reason = 'length') AS cut_at_max_new_tokens,
    count(*) FILTER (finish_reason = 'budget') AS cut_by_budget,
    count(*) FILTER (finish_reason = 'deadline') AS cut_by_deadline
FROM run_trajectories
WHERE run_id = coalesce($run, newest_run())
GROUP BY iteration
ORDER BY iteration;
