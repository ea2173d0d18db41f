-- Another root's store, attached as "other", taken into this one by id. What stands already stays, so doing it twice
-- changes nothing. Paths of the other store are relative to its own root; $under says where that lies in this one.

-- name: tables
-- Tables that can be taken over row by row: those with a key. The rest stands below, or belongs to its store alone.
SELECT table_name
FROM duckdb_constraints()
WHERE database_name = current_database()
  AND schema_name = 'store'
  AND constraint_type = 'PRIMARY KEY'
  AND table_name NOT IN
      ('policies', 'attempts', 'stages', 'leases', 'starts', 'archives', 'archived_payloads', 'schema_migrations')
ORDER BY table_name;

-- name: policies
-- A base model lies where both roots share it, or outside of both.
INSERT INTO store.policies BY NAME
SELECT * REPLACE (CASE WHEN kind = 'learned' THEN $under || '/' || folder ELSE folder END AS folder)
FROM other.store.policies
ON CONFLICT DO NOTHING;

-- name: attempts
-- An attempt's end is known later than its beginning.
INSERT INTO store.attempts BY NAME
SELECT * REPLACE ($under || '/' || log_path AS log_path) FROM other.store.attempts
ON CONFLICT (run_id, attempt) DO UPDATE
SET status = excluded.status, message = excluded.message, ended_at = excluded.ended_at;

-- name: stages
INSERT INTO store.stages BY NAME
SELECT * REPLACE (
    CASE
        WHEN stage = 'checkpoint' AND output ->> 'folder' NOT LIKE 'models/%' AND output ->> 'folder' NOT LIKE '/%'
            THEN json_merge_patch(output, json_object('folder', $under || '/' || (output ->> 'folder')))
        WHEN stage = 'report' THEN json_merge_patch(output, json_object('path', $under || '/' || (output ->> 'path')))
        ELSE output
    END AS output
)
FROM other.store.stages
ON CONFLICT DO NOTHING;

-- name: payloads
INSERT INTO store.payloads BY NAME
SELECT p.*
FROM other.store.payloads AS p
ANTI JOIN store.payloads AS here USING (trajectory_id)
ANTI JOIN store.archived_payloads AS gone USING (trajectory_id);

-- name: update_trajectories
-- All members of an update, or none.
INSERT INTO store.update_trajectories BY NAME
SELECT m.*
FROM other.store.update_trajectories AS m
ANTI JOIN store.update_trajectories AS here USING (policy_id, update_index);

-- name: events
INSERT INTO store.events BY NAME
SELECT e.*
FROM other.store.events AS e
ANTI JOIN store.events AS here USING (run_id, attempt, kind, message, recorded_at);

-- name: archived
SELECT count(*) FROM other.store.archived_payloads WHERE archive_id IS NOT NULL;
