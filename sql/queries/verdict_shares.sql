-- How were a run's responses judged in each round, and by which tier of the verifier?
-- $run: a run_id, by default the run that was active last.
SELECT
    t.iteration,
    t.status,
    t.tier,
    count(*) AS responses,
    count(*) / sum(count(*)) OVER (PARTITION BY t.iteration) AS share,
    avg(t.response_tokens) AS response_tokens_mean
FROM trajectories AS t
SEMI JOIN rounds AS r ON r.batch_id = t.batch_id AND r.run_id = coalesce($run, newest_run())
WHERE t.status IS NOT NULL
GROUP BY t.iteration, t.status, t.tier
ORDER BY t.iteration, responses DESC, t.status, t.tier;
