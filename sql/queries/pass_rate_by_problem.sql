-- Which training problems are hard, and are they becoming easier?
-- $run: a run_id, by default the run that was active last. first and last are the rounds that sampled the problem.
SELECT
    t.problem_id,
    any_value(t.question) AS question,
    arg_max(t.gold, t.created_at) AS gold,
    count(*) AS responses,
    avg(t.correct::INTEGER) AS pass_rate,
    arg_min(t.round_pass_rate, t.iteration) AS pass_rate_first,
    arg_max(t.round_pass_rate, t.iteration) AS pass_rate_last,
    min(t.iteration) AS first_round,
    max(t.iteration) AS last_round
FROM (
    SELECT s.*, avg(s.correct::INTEGER) OVER (PARTITION BY s.problem_id, s.batch_id) AS round_pass_rate
    FROM trajectories AS s
    SEMI JOIN rounds AS r ON r.batch_id = s.batch_id AND r.run_id = coalesce($run, newest_run())
) AS t
WHERE t.status IS NOT NULL
GROUP BY t.problem_id
ORDER BY pass_rate, responses DESC, t.problem_id;
