-- Starts from outside: what a flow run was asked for and what that meant then, so that its retry means the same. And the
-- problems that a run may draw, since which round: what is new at a start is told from them.

CREATE TABLE store.starts (
    flow_run_id VARCHAR PRIMARY KEY,
    flow        VARCHAR NOT NULL,
    asked       JSON NOT NULL,
    meant       JSON NOT NULL,
    recorded_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.starts IS 'Starts by a schedule, a form or a retry: what was asked for, and what it meant when it first began.';
COMMENT ON COLUMN store.starts.flow_run_id IS 'The Prefect flow run; a retry has the same.';
COMMENT ON COLUMN store.starts.flow IS 'Name of the flow.';
COMMENT ON COLUMN store.starts.asked IS 'Parameters as they were given, such as continue_from: latest.';
COMMENT ON COLUMN store.starts.meant IS 'What they stood for at that moment: run, round, policy, configuration.';
COMMENT ON COLUMN store.starts.recorded_at IS 'UTC; when it was resolved.';

CREATE TABLE store.run_problems (
    run_id      VARCHAR NOT NULL,
    problem_id  VARCHAR NOT NULL,
    since       INTEGER NOT NULL,
    PRIMARY KEY (run_id, problem_id)
);
COMMENT ON TABLE store.run_problems IS 'Problems that the sources of a run have had, and from which round on it may draw them.';
COMMENT ON COLUMN store.run_problems.run_id IS 'The run whose start found them; its forks share those before the fork.';
COMMENT ON COLUMN store.run_problems.problem_id IS 'The problem.';
COMMENT ON COLUMN store.run_problems.since IS 'First round that may draw it; above 0: it came into the sources while the run was under way.';
