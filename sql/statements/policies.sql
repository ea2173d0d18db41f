-- Policies, what made them, and what each update was trained on.

-- name: add_policy
INSERT INTO store.policies (
    policy_id, kind, parent_policy_id, reference_policy_id, settings, updates_done, tokenizer_id, weights_checksum, folder,
    created_at, run_id, attempt
)
VALUES (
    $policy_id, $kind, $parent_policy_id, $reference_policy_id, $settings, $updates_done, $tokenizer_id,
    $weights_checksum, $folder, $created_at, $run_id, $attempt
)
ON CONFLICT DO NOTHING;

-- name: policy
SELECT policy_id, kind, parent_policy_id, reference_policy_id, settings, updates_done, tokenizer_id, weights_checksum,
       folder
FROM store.policies
WHERE policy_id = $policy_id;

-- name: saved_by
-- The saved policies that a run's rounds gave first.
SELECT p.policy_id, r.iteration, p.folder
FROM store.policy_rounds AS r
JOIN store.policies AS p USING (policy_id)
WHERE r.run_id = $run_id AND p.kind = 'learned' AND p.folder IS NOT NULL
ORDER BY r.iteration;

-- name: set_folder
UPDATE store.policies SET folder = $folder WHERE policy_id = $policy_id;

-- name: add_update_trajectories
-- "part" is an Arrow table of the updates' members; this statement comes before add_updates, which counts them.
INSERT INTO store.update_trajectories BY NAME
SELECT
    $policy_id AS policy_id, p.update_index, p.position, p.trajectory_id, p.reward, p.weight, p.residual, p.log_ratio,
    p.root_value_gap
FROM part AS p
WHERE NOT EXISTS (
    SELECT 1 FROM store.updates AS known WHERE known.policy_id = $policy_id AND known.update_index = p.update_index
);

-- name: add_updates
-- The updates, an Arrow table "steps", with statistics of their members, "part".
INSERT INTO store.updates BY NAME
SELECT $policy_id AS policy_id, s.*, m.* EXCLUDE (update_index)
FROM steps AS s
JOIN (
    SELECT
        p.update_index,
        count(*) AS trajectories,
        -- in one order, so that the last bits of a sum are the same whenever it is made
        avg(p.residual ORDER BY p.position) AS residual_mean,
        stddev_pop(p.residual ORDER BY p.position) AS residual_std,
        avg(p.log_ratio ORDER BY p.position) AS log_ratio_mean,
        avg(p.root_value_gap ORDER BY p.position) AS root_value_gap_mean,
        avg(b.round ORDER BY p.position) AS generated_round_mean
    FROM part AS p
    LEFT JOIN store.trajectories AS t USING (trajectory_id)
    LEFT JOIN store.batches AS b USING (batch_id)
    GROUP BY p.update_index
) AS m USING (update_index)
ON CONFLICT DO NOTHING;

-- name: uses
-- How often each trajectory of "wanted" was trained on along a policy's lineage. The lineage never changes, so that the count is
-- made once for each policy and kept in "updates".
WITH RECURSIVE lineage (policy_id) AS (
    SELECT $policy_id::VARCHAR
    UNION ALL
    SELECT p.parent_policy_id
    FROM lineage
    JOIN store.policies AS p USING (policy_id)
    WHERE p.parent_policy_id IS NOT NULL
)
SELECT m.trajectory_id, count(*) AS uses
FROM store.update_trajectories AS m
SEMI JOIN wanted USING (trajectory_id)
SEMI JOIN lineage USING (policy_id)
GROUP BY m.trajectory_id;

-- name: updates_of
SELECT u.update_index, u.kind, m.trajectory_id, m.reward, m.weight, t.batch_id || '/' || t.problem_id AS group_id
FROM store.updates AS u
JOIN store.update_trajectories AS m USING (policy_id, update_index)
JOIN store.trajectories AS t USING (trajectory_id)
WHERE u.policy_id = $policy_id
ORDER BY u.update_index, m.position;

-- name: add_realisation
INSERT INTO store.realisations (policy_id, weights_checksum, versions, logprob_drift, recorded_at)
VALUES ($policy_id, $weights_checksum, $versions, $logprob_drift, $recorded_at)
ON CONFLICT DO NOTHING;

-- name: versions_of
SELECT a.versions
FROM store.policies AS p
JOIN store.attempts AS a USING (run_id, attempt)
WHERE p.policy_id = $policy_id;

-- name: behaviour_logprobs
SELECT t.trajectory_id, t.behaviour_logprob
FROM store.batches AS b
JOIN store.trajectories AS t USING (batch_id)
WHERE b.policy_id = $policy_id AND b.purpose = 'training' AND t.behaviour_logprob IS NOT NULL
ORDER BY t.trajectory_id
LIMIT $most;

-- name: made_in
-- The run and the round that gave a policy.
SELECT run_id, iteration FROM policies WHERE policy_id = $policy_id AND run_id IS NOT NULL AND iteration IS NOT NULL;

-- name: learned_from
-- What a run's chain had admitted up to an iteration.
SELECT count(DISTINCT e.trajectory_id) AS responses, count(DISTINCT t.problem_id) AS problems
FROM store.chain_entries AS e
JOIN store.trajectories AS t USING (trajectory_id)
WHERE e.run_id = $run_id AND e.iteration <= $iteration;

-- name: results
-- The newest figure of each metric of a policy.
SELECT benchmark, metric, value, low, high, problem_count, samples_per_problem, verifier_id
FROM (SELECT DISTINCT ON (evaluation_id, metric) * FROM evaluations WHERE policy_id = $policy_id)
QUALIFY row_number() OVER (PARTITION BY benchmark, metric ORDER BY created_at DESC, evaluation_id) = 1
ORDER BY benchmark, metric;
