-- A row is one metric of one evaluation, for each run that made or found it: two runs that start from one base policy
-- share its evaluation. A fork shows its ancestors' evaluations before the fork as well. low and high are the ends of
-- the 95 % interval; the iteration -1 is the base policy, so iteration + 1 is the number of rounds learned. Times in UTC.
CREATE OR REPLACE VIEW evaluations AS
SELECT
    e.evaluation_id,
    l.run_id,
    r.name AS run_name,
    l.iteration,
    e.policy_id,
    e.benchmark,
    m.metric,
    m.value,
    m.low,
    m.high,
    e.samples_per_problem,
    e.problem_count,
    e.batch_id,
    e.verifier_id,
    e.settings,
    e.created_at
FROM store.evaluations AS e
JOIN store.evaluation_metrics AS m USING (evaluation_id)
LEFT JOIN (
    SELECT run_id, iteration, output ->> 'evaluation_id' AS evaluation_id
    FROM store.chain_stages
    WHERE stage = 'evaluate'
    UNION
    -- a run's own, also those that it made before the iteration at which it left its parent
    SELECT l.run_id, l.iteration, s.output ->> 'evaluation_id' AS evaluation_id
    FROM store.stage_links AS l
    JOIN store.stages AS s USING (stage_key)
    WHERE l.stage = 'evaluate'
) AS l ON l.evaluation_id = e.evaluation_id
LEFT JOIN store.runs AS r ON r.run_id = l.run_id;

COMMENT ON VIEW evaluations IS 'One row per run, evaluation and metric.';
COMMENT ON COLUMN evaluations.evaluation_id IS 'Digest of benchmark, batch and verifier.';
COMMENT ON COLUMN evaluations.run_id IS 'NULL when the policy was evaluated outside a run.';
COMMENT ON COLUMN evaluations.run_name IS 'Name of the run.';
COMMENT ON COLUMN evaluations.iteration IS 'Round after which it was made; -1 is the base policy.';
COMMENT ON COLUMN evaluations.policy_id IS 'The policy that was evaluated.';
COMMENT ON COLUMN evaluations.benchmark IS 'Name, or path of the problem file.';
COMMENT ON COLUMN evaluations.metric IS 'Name, such as avg@16.';
COMMENT ON COLUMN evaluations.value IS 'Point estimate; NULL where nothing was there to count.';
COMMENT ON COLUMN evaluations.low IS 'Lower end of the 95 % interval; NULL where there is none.';
COMMENT ON COLUMN evaluations.high IS 'Upper end of the 95 % interval; NULL where there is none.';
COMMENT ON COLUMN evaluations.samples_per_problem IS 'k: responses to each problem.';
COMMENT ON COLUMN evaluations.problem_count IS 'Problems.';
COMMENT ON COLUMN evaluations.batch_id IS 'The sampled responses.';
COMMENT ON COLUMN evaluations.verifier_id IS 'What graded them.';
COMMENT ON COLUMN evaluations.settings IS 'Sampling settings and seed.';
COMMENT ON COLUMN evaluations.created_at IS 'UTC.';
