-- How many of the training problems has a run seen, and solved at least once, by each round?
-- $run: a run_id, by default the training that was active last.
WITH firsts AS (
    SELECT problem_id, min(iteration) AS seen, min(iteration) FILTER (correct) AS solved
    FROM run_trajectories
    WHERE run_id = coalesce($run, newest_run()) AND status IS NOT NULL
    GROUP BY problem_id
)
SELECT
    r.iteration,
    count(*) FILTER (f.seen <= r.iteration) AS problems_seen,
    count(*) FILTER (f.solved <= r.iteration) AS problems_solved,
    problems_solved / nullif(problems_seen, 0) AS solved_share,
    count(*) FILTER (f.seen = r.iteration) AS first_seen_now,
    count(*) FILTER (f.solved = r.iteration) AS first_solved_now
FROM rounds AS r
CROSS JOIN firsts AS f
WHERE r.run_id = coalesce($run, newest_run())
GROUP BY r.iteration
ORDER BY r.iteration;
