-- Policies, what made them, and what each update was trained on.

-- name: add_policy
INSERT INTO store.policies
VALUES ($policy_id, $kind, $parent_policy_id, $reference_policy_id, $settings, $updates_done, $tokenizer_id,
        $weights_checksum, $folder, $created_at, $run_id, $attempt)
ON CONFLICT DO NOTHING;

-- name: policy
SELECT policy_id, kind, parent_policy_id, reference_policy_id, settings, updates_done, tokenizer_id, weights_checksum,
       folder
FROM store.policies
WHERE policy_id = $policy_id;

-- name: set_folder
UPDATE store.policies SET folder = $folder WHERE policy_id = $policy_id;

-- name: add_update
INSERT INTO store.updates
VALUES ($policy_id, $update_index, $kind, $loss, $grad_norm, $lr, $skipped, $trajectories, $tokens)
ON CONFLICT DO NOTHING;

-- name: add_update_trajectories
INSERT INTO store.update_trajectories
SELECT $policy_id, $update_index, position, trajectory_id, reward, weight, residual, log_ratio, root_value_gap
FROM part
WHERE NOT EXISTS (
    SELECT 1 FROM store.update_trajectories AS known
    WHERE known.policy_id = $policy_id AND known.update_index = $update_index
);

-- name: updates_of
SELECT u.update_index, u.kind, m.trajectory_id, m.reward, m.weight, t.batch_id || '/' || t.problem_id AS group_id
FROM store.updates AS u
JOIN store.update_trajectories AS m USING (policy_id, update_index)
JOIN store.trajectories AS t USING (trajectory_id)
WHERE u.policy_id = $policy_id
ORDER BY u.update_index, m.position;

-- name: add_realisation
INSERT INTO store.realisations VALUES ($policy_id, $weights_checksum, $versions, $logprob_drift, $recorded_at)
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
