-- What do the best and the worst responses to a problem look like?
-- $problem: a problem_id, by default the one with the most mixed results. $run: a run_id, by default the training that was
-- active last. Five of each; behaviour_logprob in nats says how likely the sampler found them.
WITH graded AS (
    SELECT *
    FROM run_trajectories
    WHERE run_id = coalesce($run, newest_run()) AND status IS NOT NULL
),
chosen AS (
    SELECT coalesce($problem, (
        SELECT problem_id
        FROM graded
        GROUP BY problem_id
        ORDER BY abs(avg(correct::INTEGER) - 0.5), count(*) DESC, problem_id
        LIMIT 1
    )) AS problem_id
),
ranked AS (
    SELECT
        g.*,
        row_number() OVER (ORDER BY g.reward DESC, g.behaviour_logprob DESC, g.trajectory_id) AS from_best,
        row_number() OVER (ORDER BY g.reward, g.behaviour_logprob DESC, g.trajectory_id) AS from_worst
    FROM graded AS g
    JOIN chosen USING (problem_id)
)
SELECT
    CASE WHEN from_best <= from_worst THEN 'best' ELSE 'worst' END AS kind,
    iteration,
    reward,
    status,
    behaviour_logprob,
    response_tokens,
    truncated,
    question,
    gold,
    answer,
    completion,
    trajectory_id,
    problem_id
FROM ranked
WHERE least(from_best, from_worst) <= 5
ORDER BY kind, least(from_best, from_worst);
