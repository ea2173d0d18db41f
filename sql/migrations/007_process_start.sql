-- The start of a process no longer follows the clock: where the kernel counts from its own start, so does the number here.

COMMENT ON COLUMN store.attempts.process_started IS 'Start of the process in seconds since that of its machine (Linux); tells it from a later one of its number.';
COMMENT ON COLUMN store.leases.process_started IS 'Its start in seconds since that of its machine (Linux).';
