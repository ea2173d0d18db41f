-- What do a run's best and worst newest responses look like: the least likely successes and the likeliest failures?
-- $run: a run_id, by default the run that was active last. Ten of each, of its last round.
WITH newest AS (
    SELECT t.*
    FROM trajectories AS t
    JOIN rounds AS r USING (batch_id)
    WHERE r.run_id = coalesce($run, newest_run()) AND t.status IS NOT NULL
    QUALIFY r.iteration = max(r.iteration) OVER ()
),
ranked AS (
    SELECT
        *,
        row_number() OVER (ORDER BY reward DESC, behaviour_logprob, trajectory_id) AS from_best,
        row_number() OVER (ORDER BY reward, behaviour_logprob DESC, trajectory_id) AS from_worst
    FROM newest
)
SELECT
    CASE WHEN from_best <= from_worst THEN 'best' ELSE 'worst' END AS kind,
    reward,
    behaviour_logprob,
    response_tokens,
    status,
    question,
    gold,
    answer,
    completion,
    trajectory_id
FROM ranked
WHERE least(from_best, from_worst) <= 10
ORDER BY kind, least(from_best, from_worst);
