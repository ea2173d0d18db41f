-- Payloads that leave the database and come back. "wanted" is an Arrow table (trajectory_id); $file and $files are Parquet files
-- with the columns of store.payloads. Payloads are taken by their row: by id all texts would be read for every slice.

-- name: standings
-- Every run with the settings of its window.
SELECT run_id, parent_run_id, fork_iteration, base_policy_id, config -> '$.replay' AS replay,
       coalesce(json_type(config, '$.offline'), 'NULL') <> 'NULL' AS offline
FROM store.runs
ORDER BY run_id;

-- name: learned
-- Every learned round of every run's chain.
SELECT run_id, iteration, output ->> 'policy_id' AS policy_id, output ->> 'reference_policy_id' AS reference_policy_id
FROM store.chain_stages
WHERE stage = 'learn'
ORDER BY run_id, iteration;

-- name: parents
SELECT policy_id, parent_policy_id FROM store.policies WHERE kind = 'learned';

-- name: outside
-- Responses whose payload no run needs: of batches that every run which has them has learned from (or evaluated), outside all
-- "windows" (run_id, first_iteration, first_position), and none that a policy of "relearned" (policy_id) was trained on. In the
-- order in which they were sampled.
WITH held AS (
    SELECT e.trajectory_id
    FROM windows AS w
    JOIN store.chain_entries AS e
      ON e.run_id = w.run_id
     AND (e.iteration > w.first_iteration OR (e.iteration = w.first_iteration AND e.position >= w.first_position))
    UNION ALL
    SELECT m.trajectory_id
    FROM relearned
    JOIN store.update_trajectories AS m USING (policy_id)
),
learned AS (
    SELECT run_id, iteration FROM store.stage_links WHERE stage = 'learn'
),
newest AS (
    SELECT run_id, max(iteration) AS iteration FROM store.chain_links WHERE stage = 'learn' GROUP BY run_id
),
rounds AS (
    SELECT l.run_id, l.iteration, s.output ->> 'batch_id' AS batch_id, n.run_id IS NOT NULL AS done
    FROM store.stage_links AS l
    JOIN store.stages AS s USING (stage_key)
    LEFT JOIN learned AS n ON n.run_id = l.run_id AND n.iteration = l.iteration
    WHERE l.stage = 'generate'
    UNION ALL
    SELECT l.run_id, l.iteration, e.batch_id, true AS done
    FROM store.stage_links AS l
    JOIN store.stages AS s USING (stage_key)
    JOIN store.evaluations AS e ON e.evaluation_id = (s.output ->> 'evaluation_id')
    WHERE l.stage = 'evaluate' AND $evaluations
),
done AS (
    SELECT r.batch_id, arg_min(r.run_id, r.iteration) AS run_id, min(r.iteration) AS iteration
    FROM rounds AS r
    LEFT JOIN newest AS n USING (run_id)
    GROUP BY r.batch_id
    HAVING bool_and(r.done)
       -- a run without rounds, as of an evaluation by itself, has no age
       AND coalesce(min(n.iteration - r.iteration), $after_rounds) >= $after_rounds
       AND bool_or($run_id IS NULL OR r.run_id = $run_id)
)
SELECT t.trajectory_id, d.run_id, d.iteration, b.purpose, t.response_tokens AS tokens, a.archive_id
FROM done AS d
JOIN store.batches AS b USING (batch_id)
JOIN store.trajectories AS t USING (batch_id)
LEFT JOIN store.archived_payloads AS a ON a.trajectory_id = t.trajectory_id
ANTI JOIN held ON held.trajectory_id = t.trajectory_id
WHERE a.trajectory_id IS NULL OR a.archive_id IS NOT NULL
ORDER BY b.created_at, t.batch_id, t.problem_id, t.sample_index;

-- name: payloads
WITH places AS MATERIALIZED (
    SELECT y.rowid AS place FROM wanted JOIN store.payloads AS y USING (trajectory_id)
)
SELECT y.trajectory_id, y.response_ids, y.completion
FROM places AS p
JOIN store.payloads AS y ON y.rowid = p.place
ORDER BY p.place;

-- name: remove_moved
-- Only what the file has to the last token and letter.
DELETE FROM store.payloads
WHERE rowid IN (
    WITH places AS MATERIALIZED (
        SELECT y.rowid AS place
        FROM read_parquet([$file]) AS f
        JOIN store.payloads AS y ON y.trajectory_id = f.trajectory_id
    )
    SELECT p.place
    FROM places AS p
    JOIN store.payloads AS y ON y.rowid = p.place
    JOIN read_parquet([$file]) AS f
      ON f.trajectory_id = y.trajectory_id AND f.response_ids = y.response_ids AND f.completion = y.completion
);

-- name: add_archive
INSERT INTO store.archives (archive_id, path, payloads, bytes, created_at)
VALUES ($archive_id, $path, $payloads, $bytes, $created_at);

-- name: add_moved
INSERT INTO store.archived_payloads BY NAME
SELECT trajectory_id, $archive_id AS archive_id, $recorded_at AS recorded_at
FROM read_parquet([$file]);

-- name: remove_payloads
DELETE FROM store.payloads
WHERE rowid IN (SELECT y.rowid FROM wanted JOIN store.payloads AS y USING (trajectory_id));

-- name: add_dropped
-- Of one that lies in an archive the row is there already.
INSERT INTO store.archived_payloads BY NAME
SELECT trajectory_id, NULL AS archive_id, $recorded_at AS recorded_at
FROM wanted
ON CONFLICT DO UPDATE SET archive_id = NULL, recorded_at = excluded.recorded_at;

-- name: remove_archive
DELETE FROM store.archives WHERE archive_id = $archive_id;

-- name: archives
-- Every archive with the payloads that still lie in it.
SELECT f.archive_id, f.path, f.bytes, count(a.trajectory_id) AS payloads
FROM store.archives AS f
LEFT JOIN store.archived_payloads AS a USING (archive_id)
GROUP BY ALL
ORDER BY min(f.created_at), f.archive_id;

-- name: archived_of
-- What lies in one archive or in any, of all runs or of the rounds of one run's chain.
SELECT a.trajectory_id, t.response_tokens AS tokens
FROM store.archived_payloads AS a
JOIN store.trajectories AS t USING (trajectory_id)
WHERE a.archive_id = coalesce($archive_id, a.archive_id)
  AND ($run_id IS NULL OR t.batch_id IN (
      SELECT output ->> 'batch_id' FROM store.chain_stages WHERE run_id = $run_id AND stage = 'generate'
  ));

-- name: bring_back
INSERT INTO store.payloads BY NAME
SELECT f.trajectory_id, f.response_ids, f.completion
FROM read_parquet([$file]) AS f
SEMI JOIN wanted USING (trajectory_id);

-- name: forget_archived
DELETE FROM store.archived_payloads WHERE trajectory_id IN (SELECT trajectory_id FROM wanted);

-- name: whereabouts
-- Where payloads lie that are not in the database.
SELECT a.trajectory_id, a.archive_id, f.path, a.recorded_at
FROM wanted
JOIN store.archived_payloads AS a USING (trajectory_id)
LEFT JOIN store.archives AS f USING (archive_id);

-- name: archived
SELECT f.trajectory_id, f.response_ids, f.completion
FROM wanted
JOIN read_parquet($files) AS f USING (trajectory_id);

-- name: not_elsewhere
-- How many payloads of a file that no row names are in no other place; those that were dropped are to be in none.
SELECT count(*) AS payloads
FROM read_parquet([$file]) AS f
ANTI JOIN store.payloads AS y ON y.trajectory_id = f.trajectory_id
ANTI JOIN store.archived_payloads AS a ON a.trajectory_id = f.trajectory_id;

-- name: folder
SELECT path FROM duckdb_databases() WHERE database_name = current_database();

-- name: lost
-- Policies that cannot be learned again, or not be held against what they sampled: a payload was dropped, is about to be
-- ("dropping": trajectory_id), or its archive is among "gone" (archive_id).
WITH absent AS (
    SELECT trajectory_id
    FROM store.archived_payloads
    WHERE archive_id IS NULL OR archive_id IN (SELECT archive_id FROM gone)
    UNION
    SELECT trajectory_id FROM dropping
)
SELECT m.policy_id FROM absent JOIN store.update_trajectories AS m USING (trajectory_id)
UNION
SELECT b.policy_id
FROM absent
JOIN store.trajectories AS t USING (trajectory_id)
JOIN store.batches AS b USING (batch_id)
WHERE b.purpose = 'training';
