-- The table of committed stages, its links to runs, and the leases that fence writers.

-- name: find
SELECT output FROM store.stages WHERE stage_key = $stage_key;

-- name: commit
-- The same work done again because its folder or file was gone: the first row stands.
INSERT INTO store.stages (stage_key, stage, inputs, output, seconds, run_id, attempt, committed_at)
VALUES ($stage_key, $stage, $inputs, $output, $seconds, $run_id, $attempt, $committed_at)
ON CONFLICT DO NOTHING;

-- name: link
INSERT INTO store.stage_links (run_id, iteration, stage, slot, stage_key, executed, attempt, linked_at)
VALUES ($run_id, $iteration, $stage, $slot, $stage_key, $executed, $attempt, $linked_at)
ON CONFLICT DO NOTHING;

-- name: history
-- Every committed stage of a run's chain: its ancestors' up to each fork, then its own.
SELECT iteration, stage, slot, output
FROM store.chain_stages
WHERE run_id = $run_id
ORDER BY linked_at;

-- name: lease_holder
SELECT epoch, pid, host, process_started FROM store.leases WHERE stage_key = $stage_key;

-- name: take_lease
INSERT INTO store.leases (stage_key, epoch, pid, host, process_started)
VALUES ($stage_key, 1, $pid, $host, $process_started)
ON CONFLICT (stage_key) DO UPDATE
SET epoch = leases.epoch + 1, pid = excluded.pid, host = excluded.host, process_started = excluded.process_started
RETURNING epoch;

-- name: end_lease
-- The row stays, so that an epoch is never given twice; process 0 means that nobody holds it.
UPDATE store.leases SET pid = 0 WHERE stage_key = $stage_key AND epoch = $epoch;
