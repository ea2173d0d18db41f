-- newest_run() is the run_id of the training that was active last: SELECT * FROM rounds WHERE run_id = newest_run().
-- A run is known for a training by what it did: it planned a round (store.rounds, before its first response is sampled),
-- left a parent, or admitted stored responses (an offline run). One that only evaluated did none of these and comes last,
-- whatever its configuration says.
CREATE OR REPLACE MACRO newest_run() AS (
    SELECT run_id
    FROM runs
    ORDER BY
        parent_run_id IS NOT NULL
            OR run_id IN (SELECT p.run_id FROM store.rounds AS p)
            OR run_id IN (SELECT l.run_id FROM store.stage_links AS l WHERE l.stage = 'persist') DESC,
        last_active_at DESC,
        run_id
    LIMIT 1
);
COMMENT ON MACRO newest_run IS 'The run_id of the training that was active last.';
