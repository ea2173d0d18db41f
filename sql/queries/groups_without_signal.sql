-- In how many groups were all responses right or all wrong, so that a group baseline would learn nothing?
-- $run: a run_id, by default the training that was active last. A group is the responses to one problem in one round.
WITH groups AS (
    SELECT iteration, problem_id, count(*) AS responses, count(*) FILTER (correct) AS correct
    FROM run_trajectories
    WHERE run_id = coalesce($run, newest_run()) AND status IS NOT NULL
    GROUP BY iteration, problem_id
)
SELECT
    iteration,
    count(*) AS groups,
    count(*) FILTER (correct = responses) AS all_right,
    count(*) FILTER (correct = 0) AS all_wrong,
    (all_right + all_wrong) / count(*) AS without_signal_share,
    coalesce(sum(responses) FILTER (correct > 0 AND correct < responses), 0)::BIGINT AS responses_with_signal
FROM groups
GROUP BY iteration
ORDER BY iteration;
