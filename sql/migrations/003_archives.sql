-- Payloads that are no longer in the database: moved to Parquet files beside it, or dropped for good. Everything else that is
-- known of a trajectory stays where it is.

CREATE TABLE store.archives (
    archive_id  VARCHAR PRIMARY KEY,
    path        VARCHAR NOT NULL,
    payloads    BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    created_at  TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.archives IS 'Parquet files that payloads were moved to.';
COMMENT ON COLUMN store.archives.archive_id IS 'Digest of the ids of the trajectories whose payloads were put into it.';
COMMENT ON COLUMN store.archives.path IS 'The file, relative to the folder of the database.';
COMMENT ON COLUMN store.archives.payloads IS 'How many payloads it holds.';
COMMENT ON COLUMN store.archives.bytes IS 'Size of the file.';
COMMENT ON COLUMN store.archives.created_at IS 'UTC.';

CREATE TABLE store.archived_payloads (
    trajectory_id   VARCHAR PRIMARY KEY,
    archive_id      VARCHAR,
    recorded_at     TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.archived_payloads IS 'One row per trajectory whose payload is not in payloads: where it lies, or that it was dropped.';
COMMENT ON COLUMN store.archived_payloads.trajectory_id IS 'The trajectory.';
COMMENT ON COLUMN store.archived_payloads.archive_id IS 'The archive that holds it; NULL: it was dropped for good.';
COMMENT ON COLUMN store.archived_payloads.recorded_at IS 'UTC; when it left the database.';
