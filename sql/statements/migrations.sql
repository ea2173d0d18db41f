-- The ledger of what the database has had: one row per migration, and row 0 for the views together.

-- name: ledger
CREATE SCHEMA IF NOT EXISTS store;
CREATE TABLE IF NOT EXISTS store.schema_migrations (
    version    INTEGER PRIMARY KEY,
    name       VARCHAR NOT NULL,
    checksum   VARCHAR NOT NULL,
    applied_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.schema_migrations IS 'What this database has had: one row per migration, and one for the views.';
COMMENT ON COLUMN store.schema_migrations.version IS 'Number of the migration; 0 stands for all views together.';
COMMENT ON COLUMN store.schema_migrations.name IS 'Its file without the ending.';
COMMENT ON COLUMN store.schema_migrations.checksum IS 'SHA-256 of its text.';
COMMENT ON COLUMN store.schema_migrations.applied_at IS 'UTC.';

-- name: record
INSERT OR REPLACE INTO store.schema_migrations (version, name, checksum, applied_at)
VALUES ($version, $name, $checksum, $applied_at);
