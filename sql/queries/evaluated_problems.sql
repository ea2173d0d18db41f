-- Which problems does an evaluation consist of, and how often was each solved?
-- $policy: a policy_id, by default the one that was evaluated last; $benchmark: by default all of its own. With a cap
-- (evaluation.limit, limits) these are the fixed subset that was taken: the first by problem id. A policy that was evaluated
-- several times has rows for each evaluation, the oldest first.
WITH asked AS (
    SELECT DISTINCT evaluation_id, policy_id, benchmark, verifier_id, batch_id, created_at
    FROM evaluations
    WHERE policy_id = coalesce($policy, (SELECT arg_max(policy_id, created_at) FROM evaluations))
      AND ($benchmark IS NULL OR benchmark = $benchmark)
),
solved AS (
    SELECT
        a.evaluation_id, a.created_at, a.policy_id, a.benchmark, a.verifier_id, t.problem_id,
        count(*) AS samples,
        avg((v.status = 'correct')::INTEGER) AS share_right,
        avg(t.response_tokens) AS response_tokens_mean,
        any_value(v.gold_digest) AS gold_digest
    FROM asked AS a
    JOIN store.trajectories AS t USING (batch_id)
    JOIN (
        SELECT
            trajectory_id, verifier_id, arg_max(status, graded_at) AS status, arg_max(gold_digest, graded_at) AS gold_digest
        FROM store.verdicts
        WHERE verifier_id IN (SELECT verifier_id FROM asked)
        GROUP BY trajectory_id, verifier_id
    ) AS v ON v.trajectory_id = t.trajectory_id AND v.verifier_id = a.verifier_id
    GROUP BY a.evaluation_id, a.created_at, a.policy_id, a.benchmark, a.verifier_id, t.problem_id
)
SELECT
    s.benchmark, s.problem_id, s.samples, s.share_right, s.response_tokens_mean, g.gold, p.question, s.verifier_id, s.policy_id,
    s.evaluation_id
FROM solved AS s
JOIN store.problems AS p USING (problem_id)
LEFT JOIN store.golds AS g ON g.problem_id = s.problem_id AND g.gold_digest = s.gold_digest
ORDER BY s.benchmark, s.created_at, s.evaluation_id, s.share_right, s.problem_id;
