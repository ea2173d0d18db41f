-- Admission to the buffer and the window of an iteration.

-- name: add_entries
INSERT INTO store.replay_entries BY NAME
SELECT
    $run_id AS run_id, $iteration AS iteration, position, trajectory_id, $verifier_id AS verifier_id, gold_digest,
    reward_used
FROM part
ON CONFLICT DO NOTHING;

-- name: entries
-- What one iteration of the run's chain admitted, in order.
SELECT
    e.iteration, e.position, e.trajectory_id, e.reward_used AS reward, t.batch_id || '/' || t.problem_id AS group_id,
    t.problem_id
FROM store.chain_entries AS e
JOIN store.trajectories AS t USING (trajectory_id)
WHERE e.run_id = $run_id AND e.iteration = $iteration
ORDER BY e.position;

-- name: admitted
-- How many entries each iteration of the run's chain admitted, up to one: what a window is cut from.
SELECT iteration, count(*) AS entries
FROM store.chain_entries
WHERE run_id = $run_id AND iteration <= $iteration
GROUP BY iteration
ORDER BY iteration;

-- name: entries_at
-- The entries at the iterations and positions of "wanted", in its order. Positions have no gap within an iteration.
SELECT
    e.iteration, e.position, e.trajectory_id, e.reward_used AS reward, t.batch_id || '/' || t.problem_id AS group_id,
    t.problem_id, w.weight
FROM wanted AS w
JOIN store.chain_entries AS e ON e.run_id = $run_id AND e.iteration = w.iteration AND e.position = w.position
JOIN store.trajectories AS t USING (trajectory_id)
ORDER BY w.place;

-- name: groups
-- Where the responses of one prompt of a batch stand within their iteration: together where they were sampled by the run,
-- anywhere in an offline selection.
SELECT e.iteration, list(e.position ORDER BY e.position) AS positions
FROM store.chain_entries AS e
JOIN store.trajectories AS t USING (trajectory_id)
WHERE e.run_id = $run_id AND e.iteration BETWEEN $first AND $last
GROUP BY e.iteration, t.batch_id, t.problem_id
ORDER BY e.iteration, min(e.position);

-- name: residuals
-- The residual of each entry's last use along the run's chain before an iteration; NULL for what was never used.
SELECT u.residual
FROM store.chain_entries AS e
LEFT JOIN (
    SELECT m.trajectory_id, arg_max(m.residual, (p.iteration, m.update_index)) AS residual
    FROM store.chain_policies AS p
    JOIN store.update_trajectories AS m USING (policy_id)
    WHERE p.run_id = $run_id AND p.iteration < $iteration AND p.iteration >= $first
    GROUP BY m.trajectory_id
) AS u USING (trajectory_id)
WHERE e.run_id = $run_id AND e.iteration BETWEEN $first AND $iteration
ORDER BY e.iteration, e.position;

-- name: problem_rewards
-- All rewards of each problem of "wanted" along the run's chain up to an iteration.
SELECT t.problem_id, list(e.reward_used) AS rewards
FROM store.chain_entries AS e
JOIN store.trajectories AS t USING (trajectory_id)
WHERE e.run_id = $run_id AND e.iteration <= $iteration AND t.problem_id IN (SELECT problem_id FROM wanted)
GROUP BY t.problem_id;

-- name: newest_rewards
-- The rewards of the newest round that the run's chain has admitted anything of, up to an iteration.
SELECT e.reward_used
FROM store.chain_entries AS e
WHERE
    e.run_id = $run_id
    AND e.iteration = (SELECT max(iteration) FROM store.chain_entries WHERE run_id = $run_id AND iteration <= $iteration);

-- name: wrong_groups
-- The groups of the problems of "wanted" in which no response has a reward above 0.
SELECT t.batch_id || '/' || t.problem_id AS group_id
FROM store.chain_entries AS e
JOIN store.trajectories AS t USING (trajectory_id)
WHERE e.run_id = $run_id AND e.iteration <= $iteration AND t.problem_id IN (SELECT problem_id FROM wanted)
GROUP BY t.batch_id, t.problem_id
HAVING max(e.reward_used) <= 0;

-- name: successes
-- The newest entries with a reward above 0 of each problem of "wanted", newest first.
SELECT
    e.iteration, e.position, e.trajectory_id, e.reward_used AS reward, t.batch_id || '/' || t.problem_id AS group_id,
    t.problem_id
FROM store.chain_entries AS e
JOIN store.trajectories AS t USING (trajectory_id)
WHERE
    e.run_id = $run_id AND e.iteration <= $iteration AND e.reward_used > 0
    AND t.problem_id IN (SELECT problem_id FROM wanted)
QUALIFY row_number() OVER (PARTITION BY t.problem_id ORDER BY e.iteration DESC, e.position DESC) <= $most
ORDER BY t.problem_id, e.iteration DESC, e.position DESC;
