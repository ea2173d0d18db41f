-- The table of committed stages, its links to runs, and the leases that fence writers.

-- name: find
SELECT output FROM store.stages WHERE stage_key = $stage_key;

-- name: commit
INSERT INTO store.stages
VALUES ($stage_key, $stage, $inputs, $output, $seconds, $run_id, $attempt, $committed_at)
-- the same work done again because its folder or file was gone: the first row stands
ON CONFLICT DO NOTHING;

-- name: link
INSERT INTO store.stage_links
VALUES ($run_id, $iteration, $stage, $slot, $stage_key, $executed, $attempt, $linked_at)
ON CONFLICT DO NOTHING;

-- name: history
-- Every committed stage of a run's chain: its ancestors' up to each fork, then its own.
SELECT l.iteration, l.stage, l.slot, s.output
FROM store.run_chain AS c
JOIN store.stage_links AS l
  ON l.run_id = c.owner_run_id
 AND l.iteration >= c.first_iteration
 AND (c.until_iteration IS NULL OR l.iteration < c.until_iteration)
JOIN store.stages AS s USING (stage_key)
WHERE c.run_id = $run_id;

-- name: lease_holder
SELECT epoch, pid, host, process_started FROM store.leases WHERE stage_key = $stage_key;

-- name: take_lease
INSERT INTO store.leases VALUES ($stage_key, 1, $pid, $host, $process_started)
ON CONFLICT (stage_key) DO UPDATE
SET epoch = leases.epoch + 1, pid = excluded.pid, host = excluded.host, process_started = excluded.process_started
RETURNING epoch;

-- name: end_lease
-- The row stays, so that an epoch is never given twice; process 0 means that nobody holds it.
UPDATE store.leases SET pid = 0 WHERE stage_key = $stage_key AND epoch = $epoch;
