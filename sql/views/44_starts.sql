-- A row is one start by a schedule, a form or a command of the server: what was asked for, and what that stood for when it
-- first began. A retry has the same flow run and means the same. Times in UTC.
CREATE OR REPLACE VIEW starts AS
SELECT flow_run_id, flow, asked, meant, recorded_at
FROM store.starts;

COMMENT ON VIEW starts IS 'One row per start by a schedule or a form: what was asked for, and what it meant then.';
COMMENT ON COLUMN starts.flow_run_id IS 'The Prefect flow run; joins to attempts.flow_run_id.';
COMMENT ON COLUMN starts.flow IS 'Name of the flow: train, learn, generate, evaluate, compare, rerun.';
COMMENT ON COLUMN starts.asked IS 'Parameters as given: asked ->> ''continue_from''.';
COMMENT ON COLUMN starts.meant IS 'What they stood for: meant ->> ''run_id''; the whole configuration is in it.';
COMMENT ON COLUMN starts.recorded_at IS 'UTC; when it was resolved.';
