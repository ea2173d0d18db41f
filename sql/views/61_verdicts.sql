-- A row is one verdict: a trajectory graded by one verifier against one version of its gold answer. All of them, also
-- those that rescoring superseded. Seconds of grading time, times in UTC.
CREATE OR REPLACE VIEW verdicts AS
SELECT
    v.trajectory_id,
    t.problem_id,
    t.run_id,
    v.verifier_id,
    w.name AS verifier,
    w.version AS verifier_version,
    v.gold_digest,
    g.gold,
    v.answer,
    v.status,
    v.status = 'correct' AS correct,
    v.reward,
    v.tier,
    v.details,
    v.seconds,
    v.graded_at
FROM store.verdicts AS v
JOIN store.trajectories AS t ON t.trajectory_id = v.trajectory_id
LEFT JOIN store.golds AS g ON g.problem_id = t.problem_id AND g.gold_digest = v.gold_digest
LEFT JOIN store.verifiers AS w ON w.verifier_id = v.verifier_id;

COMMENT ON VIEW verdicts IS 'One row per trajectory, verifier and version of the gold answer.';
COMMENT ON COLUMN verdicts.run_id IS 'The run that sampled the trajectory.';
