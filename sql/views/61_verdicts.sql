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
COMMENT ON COLUMN verdicts.trajectory_id IS 'The graded response.';
COMMENT ON COLUMN verdicts.problem_id IS 'Its problem.';
COMMENT ON COLUMN verdicts.run_id IS 'The run that sampled the response; NULL where no run did.';
COMMENT ON COLUMN verdicts.verifier_id IS 'What graded it; the view verifiers has its settings.';
COMMENT ON COLUMN verdicts.verifier IS 'math, the reward''s package.module:attribute, or label of SOURCE for what came with an import.';
COMMENT ON COLUMN verdicts.verifier_version IS 'VERIFIER_VERSION, or the reward''s own version.';
COMMENT ON COLUMN verdicts.gold_digest IS 'The gold answer that it was graded against, by digest.';
COMMENT ON COLUMN verdicts.gold IS 'The gold answer that it was graded against.';
COMMENT ON COLUMN verdicts.answer IS 'The extracted answer; NULL where none was found.';
COMMENT ON COLUMN verdicts.status IS 'correct, incorrect, no_answer, timeout, error or rejected.';
COMMENT ON COLUMN verdicts.correct IS 'Whether the status is correct.';
COMMENT ON COLUMN verdicts.reward IS 'The verifier''s reward, before the run''s transform.';
COMMENT ON COLUMN verdicts.tier IS 'The tier of the verifier that decided.';
COMMENT ON COLUMN verdicts.details IS 'Why, in words.';
COMMENT ON COLUMN verdicts.seconds IS 'Seconds of grading.';
COMMENT ON COLUMN verdicts.graded_at IS 'UTC.';
