-- Which training problems has a run never answered correctly, and what did it answer most often?
-- $run: a run_id, by default the run that was active last.
SELECT
    t.problem_id,
    any_value(t.question) AS question,
    arg_max(t.gold, t.created_at) AS gold,
    mode(t.answer ORDER BY t.answer) AS most_frequent_answer,
    count(*) AS responses,
    count(DISTINCT t.iteration) AS rounds,
    avg(t.truncated::INTEGER) AS truncated_share,
    any_value(t.problem_source) AS source
FROM trajectories AS t
SEMI JOIN rounds AS r ON r.batch_id = t.batch_id AND r.run_id = coalesce($run, newest_run())
WHERE t.status IS NOT NULL
GROUP BY t.problem_id
HAVING NOT bool_or(t.correct)
ORDER BY responses DESC, t.problem_id;
