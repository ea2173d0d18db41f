-- How accurate is a run on each of its problem sources, and how long are right and wrong responses, round by round?
-- $run: a run_id, by default the training that was active last. A source is a file or data set; a problem that several have
-- counts for the newest that has columns of its own. Lengths in tokens.
SELECT
    problem_source AS source,
    iteration,
    count(*) AS responses,
    count(DISTINCT problem_id) AS problems,
    avg(correct::INTEGER) AS accuracy,
    avg(reward) AS reward_mean,
    avg(response_tokens) FILTER (correct) AS tokens_mean_right,
    avg(response_tokens) FILTER (NOT correct) AS tokens_mean_wrong
FROM run_trajectories
WHERE run_id = coalesce($run, newest_run()) AND status IS NOT NULL
GROUP BY problem_source, iteration
ORDER BY source, iteration;
