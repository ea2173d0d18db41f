-- Upkeep: what the database holds, who works on it, and what a copy of it must have.

-- name: size
-- Blocks of the database file; free ones are inside it and are written to before it grows.
SELECT block_size, used_blocks, free_blocks FROM pragma_database_size() WHERE database_name = current_database();

-- name: blocks
-- The blocks that hold a table's columns. Long texts lie in further blocks that are listed nowhere, and so do indexes.
SELECT DISTINCT unnest(list_prepend(block_id, additional_block_ids)) AS block
FROM pragma_storage_info($table_name);

-- name: at_work
SELECT run_id, attempt, pid, host, process_started FROM store.attempts WHERE status = 'running' ORDER BY ALL;

-- name: folders
-- Where policies are saved, relative to the root; a base model outside of it by its full path.
SELECT DISTINCT folder FROM store.policies WHERE folder IS NOT NULL ORDER BY folder;

-- name: strays
-- Payloads that no trajectory asks for, or that are there twice.
SELECT
    (SELECT count(*) FROM store.payloads ANTI JOIN store.trajectories USING (trajectory_id))
    + (SELECT count(*) - count(DISTINCT trajectory_id) FROM store.payloads) AS strays;

-- name: views
SELECT view_name
FROM duckdb_views()
WHERE schema_name = 'main' AND NOT internal AND database_name = current_database()
ORDER BY view_name;

-- name: unknown_here
-- What the database that is attached as "earlier" has and this one has not: nothing, if it is an earlier state of this one.
SELECT 'run ' || run_id AS name
FROM (
    SELECT run_id, created_at FROM earlier.store.runs EXCEPT SELECT run_id, created_at FROM store.runs
)
UNION ALL
SELECT 'attempt ' || attempt || ' at run ' || run_id
FROM (
    SELECT run_id, attempt, pid, host, process_started FROM earlier.store.attempts
    EXCEPT
    SELECT run_id, attempt, pid, host, process_started FROM store.attempts
)
UNION ALL
SELECT 'batch ' || batch_id
FROM (SELECT batch_id FROM earlier.store.batches EXCEPT SELECT batch_id FROM store.batches)
ORDER BY name
LIMIT 1;
