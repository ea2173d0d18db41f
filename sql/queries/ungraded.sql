-- Which answers of a run could the verifier not grade (timeouts, errors, rejected input), and why?
-- $run: a run_id, by default the training that was active last. Most frequent reason first, with one example each.
SELECT
    status,
    tier,
    details,
    count(*) AS responses,
    count(DISTINCT problem_id) AS problems,
    max(grading_seconds) AS seconds_most,
    arg_min(answer, trajectory_id) AS example_answer,
    min(trajectory_id) AS example_trajectory_id
FROM run_trajectories
WHERE run_id = coalesce($run, newest_run()) AND status IN ('timeout', 'error', 'rejected')
GROUP BY status, tier, details
ORDER BY responses DESC, status, tier, details;
