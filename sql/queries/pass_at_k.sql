-- How does pass@j grow with the number of samples j, up to the k that were drawn?
-- $policy: a policy_id, by default the one that was evaluated last; $benchmark: by default all of its own. The unbiased
-- estimate 1 - C(k - c, j) / C(k, j) with c right ones of k, averaged over problems. Each evaluation by itself and by its own
-- verifier: a policy that was evaluated with other samples, settings or another verifier has rows for each.
WITH asked AS (
    SELECT DISTINCT evaluation_id, policy_id, benchmark, verifier_id, batch_id, samples_per_problem AS k, created_at
    FROM evaluations
    WHERE policy_id = coalesce($policy, (SELECT arg_max(policy_id, created_at) FROM evaluations))
      AND ($benchmark IS NULL OR benchmark = $benchmark)
),
solved AS (
    SELECT a.evaluation_id, t.problem_id, count(*) FILTER (v.status = 'correct') AS c
    FROM asked AS a
    JOIN store.trajectories AS t USING (batch_id)
    JOIN (
        SELECT trajectory_id, verifier_id, arg_max(status, graded_at) AS status
        FROM store.verdicts
        WHERE verifier_id IN (SELECT verifier_id FROM asked)
        GROUP BY trajectory_id, verifier_id
    ) AS v ON v.trajectory_id = t.trajectory_id AND v.verifier_id = a.verifier_id
    GROUP BY a.evaluation_id, t.problem_id
),
draws AS (
    SELECT a.*, unnest(range(1, a.k + 1)) AS j FROM asked AS a
),
-- the product over the first j draws of the chance that the next one is wrong, too
estimates AS (
    SELECT
        d.*,
        1 - list_product([greatest(d.k - s.c - i, 0)::DOUBLE / (d.k - i) FOR i IN range(0, d.j)]) AS pass
    FROM draws AS d
    JOIN solved AS s USING (evaluation_id)
)
SELECT
    benchmark, k AS samples_per_problem, j, avg(pass) AS pass_at_j, count(*) AS problems, verifier_id, policy_id, evaluation_id
FROM estimates
GROUP BY benchmark, k, j, verifier_id, policy_id, evaluation_id, created_at
ORDER BY benchmark, created_at, evaluation_id, j;
