-- Which training problems are hard, and did they become easier over the run?
-- $run: a run_id, by default the training that was active last. first and last are the rounds that sampled the problem;
-- change is the pass rate of the last less that of the first, NULL where one round alone sampled it.
WITH by_round AS (
    SELECT
        problem_id,
        iteration,
        any_value(question) AS question,
        any_value(gold) AS gold,
        count(*) AS responses,
        count(*) FILTER (correct) AS correct
    FROM run_trajectories
    WHERE run_id = coalesce($run, newest_run()) AND status IS NOT NULL
    GROUP BY problem_id, iteration
)
SELECT
    problem_id,
    any_value(question) AS question,
    arg_max(gold, iteration) AS gold,
    sum(responses)::BIGINT AS responses,
    sum(correct) / sum(responses) AS pass_rate,
    arg_min(correct / responses, iteration) AS pass_rate_first,
    arg_max(correct / responses, iteration) AS pass_rate_last,
    CASE WHEN count(*) > 1 THEN pass_rate_last - pass_rate_first END AS change,
    min(iteration) AS first_round,
    max(iteration) AS last_round
FROM by_round
GROUP BY problem_id
ORDER BY pass_rate, responses DESC, problem_id;
