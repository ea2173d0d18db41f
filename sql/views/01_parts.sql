-- Building blocks of the public views below. They live in the schema "store" like the tables and may change with them.

-- Mean over groups of what is known of each: its mean and its size. Groups without a mean do not count.
CREATE OR REPLACE MACRO store.pooled_mean(mean, size) AS
    sum(mean * size) / sum(size) FILTER (mean IS NOT NULL);

-- One row per run and iteration along the chain whose learning made updates: the policy that it gave. A round without
-- updates keeps its parent's policy and has no row.
CREATE OR REPLACE VIEW store.chain_policies AS
SELECT run_id, owner_run_id, iteration, output ->> 'policy_id' AS policy_id
FROM store.chain_stages
WHERE stage = 'learn' AND (output ->> 'updates')::INTEGER > 0;

-- One row per run and trajectory that its chain trained on: memberships in updates, and the last round of one.
CREATE OR REPLACE VIEW store.chain_uses AS
SELECT p.run_id, m.trajectory_id, count(*) AS times_used, max(p.iteration) AS last_used_round
FROM store.chain_policies AS p
JOIN store.update_trajectories AS m USING (policy_id)
GROUP BY p.run_id, m.trajectory_id;

-- One row per run and graded iteration: the grading that its admission used, else the last one. A round has several
-- where a gold answer was mended before it was admitted.
CREATE OR REPLACE VIEW store.chain_gradings AS
SELECT
    v.run_id,
    v.iteration,
    arg_max(v.output, (p.stage_key IS NOT NULL, v.linked_at)) AS output
FROM store.chain_stages AS v
LEFT JOIN store.chain_stages AS p
  ON p.run_id = v.run_id
 AND p.iteration = v.iteration
 AND p.stage = 'persist'
 AND (p.inputs ->> 'verifier_id') = (v.output ->> 'verifier_id')
 AND (p.inputs ->> 'golds') = (v.output ->> 'golds_digest')
WHERE v.stage = 'verify'
GROUP BY v.run_id, v.iteration;

-- One row per trajectory that has a verdict: the newest by its own run's verifier where there is one, else the newest.
CREATE OR REPLACE VIEW store.chosen_verdicts AS
SELECT v.*
FROM store.verdicts AS v
JOIN store.trajectories AS t USING (trajectory_id)
LEFT JOIN store.runs AS r ON r.run_id = t.run_id
QUALIFY row_number() OVER (
    PARTITION BY v.trajectory_id
    ORDER BY v.verifier_id = r.verifier_id DESC NULLS LAST, v.graded_at DESC, v.verifier_id, v.gold_digest
) = 1;

-- One row per trajectory and verifier: the gold answer of its newest verdict.
CREATE OR REPLACE VIEW store.newest_verdicts AS
SELECT trajectory_id, verifier_id, arg_max(gold_digest, graded_at) AS gold_digest
FROM store.verdicts
GROUP BY trajectory_id, verifier_id;

-- One row per learned policy: the run and iteration that first gave it, and whether that run sampled the round (an offline
-- run samples none, so its iterations are no rounds in which anything was sampled).
CREATE OR REPLACE VIEW store.policy_rounds AS
SELECT
    policy_id,
    arg_min(run_id, linked_at) AS run_id,
    arg_min(iteration, linked_at) AS iteration,
    arg_min(samples, linked_at) AS samples
FROM (
    SELECT
        l.run_id,
        l.iteration,
        l.linked_at,
        s.output ->> 'policy_id' AS policy_id,
        r.samples
    FROM store.stage_links AS l
    JOIN store.stages AS s USING (stage_key)
    -- a configuration is read once a run, not once a round
    LEFT JOIN (SELECT run_id, (config ->> '$.offline') IS NULL AS samples FROM store.runs) AS r ON r.run_id = l.run_id
    WHERE l.stage = 'learn' AND (s.output ->> 'updates')::INTEGER > 0
)
GROUP BY policy_id;

-- One row per trajectory that was trained on: memberships in updates of any run, and the newest round of one. A round of an
-- offline run is counted apart from those in which responses are sampled, and so is no round of use.
CREATE OR REPLACE VIEW store.trajectory_uses AS
SELECT m.trajectory_id, count(*) AS times_used, max(l.iteration) FILTER (l.samples) AS last_used_round
FROM store.update_trajectories AS m
LEFT JOIN store.policy_rounds AS l USING (policy_id)
GROUP BY m.trajectory_id;

-- One row per policy: means over the members of all its updates, from the updates' own means.
CREATE OR REPLACE VIEW store.policy_updates AS
SELECT
    policy_id,
    avg(loss) AS loss,
    avg(grad_norm) AS grad_norm,
    store.pooled_mean(residual_mean, trajectories) AS residual_mean,
    -- the variance within the updates, and that of their means
    sqrt(greatest(0, store.pooled_mean(residual_std ** 2 + residual_mean ** 2, trajectories)
        - store.pooled_mean(residual_mean, trajectories) ** 2)) AS residual_std,
    store.pooled_mean(log_ratio_mean, trajectories) AS log_ratio_mean,
    store.pooled_mean(root_value_gap_mean, trajectories) AS root_value_gap_mean,
    store.pooled_mean(generated_round_mean, trajectories) AS generated_round_mean,
    store.pooled_mean(uses_mean, trajectories) AS uses_mean
FROM store.updates
GROUP BY policy_id;

-- One row per problem: the source that tells most of it, one with columns of its own before one without, the newest first.
CREATE OR REPLACE VIEW store.told_sources AS
SELECT DISTINCT ON (problem_id) problem_id, source, external_id, metadata
FROM store.problem_sources
ORDER BY problem_id, metadata::VARCHAR = '{}', recorded_at DESC, source, external_id;

-- One row per problem: the gold answer that counts now.
CREATE OR REPLACE VIEW store.current_golds AS
SELECT DISTINCT ON (problem_id) problem_id, gold_digest, gold, counts_since
FROM store.golds
ORDER BY problem_id, counts_since DESC, gold_digest;
