-- Which responses are judged differently by two verifiers, or against two versions of a gold answer?
-- Over all runs; every verdict of such a response, oldest first. verifier_disagreement counts them.
SELECT
    v.trajectory_id,
    t.question,
    t.completion,
    v.verifier_id,
    v.verifier,
    v.verifier_version,
    v.gold,
    v.answer,
    v.status,
    v.reward,
    v.tier,
    v.details,
    v.graded_at
FROM verdicts AS v
JOIN (
    SELECT trajectory_id
    FROM verdicts
    GROUP BY trajectory_id
    HAVING count(DISTINCT status) > 1 OR count(DISTINCT reward) > 1
) AS d ON d.trajectory_id = v.trajectory_id
JOIN trajectories AS t ON t.trajectory_id = v.trajectory_id
ORDER BY v.trajectory_id, v.graded_at, v.verifier_id;
