-- Where payloads are that are not in the database. A building block like those of 01_parts.sql.

-- One row per trajectory whose payload was archived or dropped.
CREATE OR REPLACE VIEW store.payload_places AS
SELECT trajectory_id, CASE WHEN archive_id IS NULL THEN 'dropped' ELSE 'archived' END AS place
FROM store.archived_payloads;
