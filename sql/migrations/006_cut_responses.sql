-- Responses that a round's budget of tokens or its deadline cut, told apart from those that came to their greatest length.
-- A CHECK cannot be changed, so the table is made anew with its rows, constraints and comments.

CREATE TABLE store.new_trajectories (
    trajectory_id       VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    problem_id          VARCHAR NOT NULL,
    prompt_id           VARCHAR NOT NULL,
    sample_index        INTEGER NOT NULL,
    prompt_tokens       INTEGER NOT NULL,
    response_tokens     INTEGER NOT NULL,
    finish_reason       VARCHAR NOT NULL CHECK (finish_reason IN ('stop', 'length', 'budget', 'deadline')),
    behaviour_logprob   DOUBLE,
    seed                UBIGINT NOT NULL,
    run_id              VARCHAR,
    attempt             INTEGER,
    created_at          TIMESTAMP NOT NULL
);
INSERT INTO store.new_trajectories BY NAME SELECT * FROM store.trajectories;
DROP TABLE store.trajectories;
ALTER TABLE store.new_trajectories RENAME TO trajectories;
COMMENT ON TABLE store.trajectories IS 'One sampled response; its tokens and text stand in payloads.';
COMMENT ON COLUMN store.trajectories.trajectory_id IS 'Digest of batch, problem and sample index.';
COMMENT ON COLUMN store.trajectories.batch_id IS 'The batch that it belongs to.';
COMMENT ON COLUMN store.trajectories.problem_id IS 'The problem that it answers.';
COMMENT ON COLUMN store.trajectories.prompt_id IS 'The rendered prompt.';
COMMENT ON COLUMN store.trajectories.sample_index IS 'Which response to the problem in this batch, from 0.';
COMMENT ON COLUMN store.trajectories.prompt_tokens IS 'Tokens of the prompt.';
COMMENT ON COLUMN store.trajectories.response_tokens IS 'Tokens of the response, EOS included when it was generated.';
COMMENT ON COLUMN store.trajectories.finish_reason IS 'stop: it ended itself; length, budget, deadline: what it was cut by.';
COMMENT ON COLUMN store.trajectories.behaviour_logprob IS 'Summed log-probability of the response by the rollout engine in nats, for diagnosis only.';
COMMENT ON COLUMN store.trajectories.seed IS 'Seed of its sampling; 0 in imports, whose seed nobody knows.';
COMMENT ON COLUMN store.trajectories.run_id IS 'The run whose attempt wrote the row; provenance, not ownership.';
COMMENT ON COLUMN store.trajectories.attempt IS 'The attempt of that run that wrote the row.';
COMMENT ON COLUMN store.trajectories.created_at IS 'UTC; when its part was stored.';
