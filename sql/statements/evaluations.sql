-- Evaluations and their metrics.

-- name: add_evaluation
INSERT INTO store.evaluations (
    evaluation_id, policy_id, benchmark, benchmark_id, batch_id, verifier_id, problem_count, samples_per_problem, settings,
    created_at
)
VALUES (
    $evaluation_id, $policy_id, $benchmark, $benchmark_id, $batch_id, $verifier_id, $problem_count, $samples_per_problem,
    $settings, $created_at
)
ON CONFLICT DO NOTHING;

-- name: add_metric
INSERT INTO store.evaluation_metrics (evaluation_id, metric, value, low, high)
VALUES ($evaluation_id, $metric, $value, $low, $high)
ON CONFLICT DO NOTHING;

-- name: current
-- A run's evaluations under the settings that hold now; others stay in the store and are not mixed with them.
SELECT v.evaluation_id, v.policy_id, v.benchmark, v.metric, v.iteration, v.value, v.low, v.high, v.created_at
FROM evaluations AS v
JOIN store.evaluations AS e USING (evaluation_id)
WHERE v.run_id = $run_id
  AND e.samples_per_problem = $samples_per_problem
  AND e.settings::VARCHAR = $settings
  AND list_contains($verifier_ids, e.verifier_id)
  AND list_contains($benchmark_ids, e.benchmark_id)
ORDER BY v.benchmark, v.metric, v.iteration;

-- name: newest
-- Of each run, benchmark and metric the evaluation of the policy that had learned most.
SELECT run_id, benchmark, metric, iteration, value, low, high
FROM evaluations
WHERE list_contains($runs, run_id) AND iteration >= 0
QUALIFY row_number() OVER (PARTITION BY run_id, benchmark, metric ORDER BY iteration DESC, created_at DESC) = 1
ORDER BY ALL;

-- name: samples
-- Every sample of an evaluation with the newest verdict of its verifier.
SELECT e.benchmark_id, e.problem_count, e.samples_per_problem, v.status, v.answer
FROM store.evaluations AS e
JOIN store.trajectories AS t USING (batch_id)
LEFT JOIN store.newest_verdicts AS n ON n.trajectory_id = t.trajectory_id AND n.verifier_id = e.verifier_id
LEFT JOIN store.verdicts AS v
  ON v.trajectory_id = t.trajectory_id AND v.verifier_id = e.verifier_id AND v.gold_digest = n.gold_digest
WHERE e.evaluation_id = $evaluation_id
ORDER BY t.problem_id, t.sample_index;

-- name: most_different
-- Problems on which two evaluations of one benchmark differ most, with a response of each: of the one that is better a
-- right one, of the other a wrong one. So many in each direction, by the share of right samples.
WITH graded AS (
    SELECT
        e.evaluation_id = $second AS is_second,
        t.problem_id, t.sample_index, t.trajectory_id, t.response_tokens, t.finish_reason = 'length' AS truncated,
        v.status, v.status = 'correct' AS correct, v.answer, v.tier, v.details, v.gold_digest
    FROM store.evaluations AS e
    JOIN store.trajectories AS t USING (batch_id)
    JOIN store.newest_verdicts AS n ON n.trajectory_id = t.trajectory_id AND n.verifier_id = e.verifier_id
    JOIN store.verdicts AS v
      ON v.trajectory_id = t.trajectory_id AND v.verifier_id = e.verifier_id AND v.gold_digest = n.gold_digest
    WHERE e.evaluation_id IN ($first, $second)
),
problems AS (
    SELECT
        problem_id,
        avg(correct::INTEGER) FILTER (NOT is_second) AS first_share,
        avg(correct::INTEGER) FILTER (is_second) AS second_share
    FROM graded
    GROUP BY problem_id
),
chosen AS (
    SELECT *, second_share > first_share AS better
    FROM problems
    WHERE second_share <> first_share
    QUALIFY row_number() OVER (
        PARTITION BY second_share > first_share ORDER BY abs(second_share - first_share) DESC, problem_id
    ) <= $most
)
SELECT c.better, c.first_share, c.second_share, p.question, o.gold, y.completion, g.*
FROM chosen AS c
JOIN graded AS g USING (problem_id)
JOIN store.problems AS p USING (problem_id)
LEFT JOIN store.golds AS o ON o.problem_id = g.problem_id AND o.gold_digest = g.gold_digest
LEFT JOIN store.payloads AS y ON y.trajectory_id = g.trajectory_id
-- the side that is better shows a right one, the other a wrong one
QUALIFY row_number() OVER (
    PARTITION BY g.problem_id, g.is_second
    ORDER BY (g.correct = (g.is_second = c.better)) DESC, g.sample_index
) = 1
ORDER BY c.better, abs(c.second_share - c.first_share) DESC, g.problem_id, g.is_second;

-- name: settings
SELECT samples_per_problem, settings::VARCHAR FROM store.evaluations WHERE evaluation_id = $evaluation_id;
