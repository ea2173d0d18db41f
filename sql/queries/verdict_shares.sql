-- How were a run's responses judged in each round, and by which tier of the verifier?
-- $run: a run_id, by default the training that was active last.
SELECT
    iteration,
    status,
    tier,
    count(*) AS responses,
    count(*) / sum(count(*)) OVER (PARTITION BY iteration) AS share,
    avg(response_tokens) AS response_tokens_mean
FROM run_trajectories
WHERE run_id = coalesce($run, newest_run()) AND status IS NOT NULL
GROUP BY iteration, status, tier
ORDER BY iteration, responses DESC, status, tier;
