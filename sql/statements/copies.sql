-- Copies of the database: snapshots and backups. The copy is attached as "copy".

-- name: tables
-- The base tables that hold rows, payloads last.
SELECT table_name
FROM duckdb_tables()
WHERE schema_name = 'store' AND database_name = current_database()
ORDER BY table_name = 'payloads', table_name;

-- name: payloads
-- How many there are, the last of them by its place in the table, and how many bytes they are about: four for the id of a
-- token, and as many for its text.
SELECT
    (SELECT count(*) FROM store.payloads) AS rows,
    (SELECT coalesce(max(rowid), -1) FROM store.payloads) AS last,
    (
        SELECT coalesce(sum(response_tokens), 0)::BIGINT * 8
        FROM store.trajectories
        SEMI JOIN store.payloads USING (trajectory_id)
    ) AS bytes;

-- name: copy_payloads
INSERT INTO copy.store.payloads BY NAME
SELECT * FROM store.payloads WHERE rowid BETWEEN $first AND $last;

-- name: mark
CREATE TABLE copy.store.snapshot AS
SELECT $taken_at::TIMESTAMP AS taken_at, $payloads::BOOLEAN AS payloads, $source::VARCHAR AS source;

-- name: without_payloads
-- In the place of the table: who asks for a token or a text is told that there is none, instead of seeing NULL.
DROP TABLE copy.store.payloads;
CREATE VIEW copy.store.payloads AS
SELECT
    trajectory_id,
    error('This snapshot has no tokens and texts: `reval store snapshot --payloads` makes one.')::INTEGER[] AS response_ids,
    error('This snapshot has no tokens and texts: `reval store snapshot --payloads` makes one.')::VARCHAR AS completion
FROM store.trajectories;

-- name: snapshot
SELECT taken_at, payloads, source FROM store.snapshot;
