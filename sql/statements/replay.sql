-- Admission to the buffer and the window of an iteration.

-- name: add_entries
INSERT INTO store.replay_entries
SELECT $run_id, $iteration, position, trajectory_id, $verifier_id, gold_digest, reward_used FROM part
ON CONFLICT DO NOTHING;

-- name: entries
-- What one iteration of the run's chain admitted, in order.
SELECT e.iteration, e.position, e.trajectory_id, e.reward_used, t.batch_id || '/' || t.problem_id AS group_id
FROM store.run_chain AS c
JOIN store.replay_entries AS e
  ON e.run_id = c.owner_run_id
 AND e.iteration >= c.first_iteration
 AND (c.until_iteration IS NULL OR e.iteration < c.until_iteration)
JOIN store.trajectories AS t USING (trajectory_id)
WHERE c.run_id = $run_id AND e.iteration = $iteration
ORDER BY e.position;

-- name: window
-- The last M entries of the run's chain up to the iteration, oldest first: a pure function of what was admitted,
-- whatever the order of insertion.
SELECT w.iteration, w.position, w.trajectory_id, w.reward_used, t.batch_id || '/' || t.problem_id AS group_id
FROM (
    SELECT e.iteration, e.position, e.trajectory_id, e.reward_used
    FROM store.run_chain AS c
    JOIN store.replay_entries AS e
      ON e.run_id = c.owner_run_id
     AND e.iteration >= c.first_iteration
     AND (c.until_iteration IS NULL OR e.iteration < c.until_iteration)
    WHERE c.run_id = $run_id AND e.iteration <= $iteration
    ORDER BY e.iteration DESC, e.position DESC
    LIMIT $capacity
) AS w
JOIN store.trajectories AS t USING (trajectory_id)
ORDER BY w.iteration, w.position;
