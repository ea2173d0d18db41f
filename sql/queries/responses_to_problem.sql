-- What were all the responses to a problem, how was each judged, and how often did learning use it?
-- $problem: a problem_id, by default the one with the most mixed results of the training that was active last. Of all runs and
-- evaluations, each response once, with the run that sampled it and the newest verdict by that run's verifier.
WITH chosen AS (
    SELECT coalesce($problem, (
        SELECT problem_id
        FROM run_trajectories
        WHERE run_id = newest_run() AND status IS NOT NULL
        GROUP BY problem_id
        ORDER BY abs(avg(correct::INTEGER) - 0.5), count(*) DESC, problem_id
        LIMIT 1
    )) AS problem_id
)
SELECT
    t.question,
    t.gold,
    t.purpose,
    t.run_id,
    t.iteration,
    t.sample_index,
    t.status,
    t.answer,
    t.completion,
    t.reward,
    t.response_tokens,
    t.truncated,
    t.times_used,
    t.last_used_round,
    t.tier,
    t.details,
    t.policy_id,
    t.trajectory_id,
    t.problem_id
FROM trajectories AS t
JOIN chosen USING (problem_id)
ORDER BY t.purpose = 'training' DESC, t.iteration, t.created_at, t.policy_id, t.sample_index, t.trajectory_id;
