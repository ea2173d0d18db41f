-- Which training problems has a run never answered correctly, and what did it answer most often?
-- $run: a run_id, by default the training that was active last.
SELECT
    problem_id,
    any_value(question) AS question,
    arg_max(gold, iteration) AS gold,
    mode(answer ORDER BY answer) AS most_frequent_answer,
    count(*) AS responses,
    count(DISTINCT iteration) AS rounds,
    avg(truncated::INTEGER) AS truncated_share,
    any_value(problem_source) AS source
FROM run_trajectories
WHERE run_id = coalesce($run, newest_run()) AND status IS NOT NULL
GROUP BY problem_id
HAVING NOT bool_or(correct)
ORDER BY responses DESC, problem_id;
