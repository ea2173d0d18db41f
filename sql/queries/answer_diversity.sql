-- Does a run still explore: how many different answers does a problem get in a round?
-- $run: a run_id, by default the training that was active last. A group is the responses to one problem in one round;
-- repeated_share is the share of responses whose text another one of their group has.
WITH groups AS (
    SELECT
        iteration,
        problem_id,
        count(*) AS responses,
        count(DISTINCT answer) AS answers,
        count(DISTINCT completion) AS completions
    FROM run_trajectories
    WHERE run_id = coalesce($run, newest_run()) AND status IS NOT NULL
    GROUP BY iteration, problem_id
)
SELECT
    iteration,
    count(*) AS groups,
    avg(responses) AS responses_mean,
    avg(answers) AS answers_mean,
    avg((answers <= 1)::INTEGER) AS one_answer_share,
    1 - sum(completions) / sum(responses) AS repeated_share
FROM groups
GROUP BY iteration
ORDER BY iteration;
