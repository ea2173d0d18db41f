-- Responses of other systems: batches of the purpose 'imported', by policies of the kind 'foreign'. A CHECK cannot be changed,
-- so both tables are made anew with their rows, constraints and comments.

CREATE TABLE store.new_policies (
    policy_id           VARCHAR PRIMARY KEY,
    kind                VARCHAR NOT NULL CHECK (kind IN ('base', 'learned', 'foreign')),
    parent_policy_id    VARCHAR,
    reference_policy_id VARCHAR,
    settings            JSON NOT NULL,
    updates_done        INTEGER NOT NULL,
    tokenizer_id        VARCHAR NOT NULL,
    weights_checksum    VARCHAR NOT NULL,
    folder              VARCHAR,
    created_at          TIMESTAMP NOT NULL,
    run_id              VARCHAR,
    attempt             INTEGER
);
INSERT INTO store.new_policies BY NAME SELECT * FROM store.policies;
DROP TABLE store.policies;
ALTER TABLE store.new_policies RENAME TO policies;
COMMENT ON TABLE store.policies IS 'A policy names a lineage: base files, or parent, reference, settings and updates; or a model of another system.';
COMMENT ON COLUMN store.policies.policy_id IS 'Digest of the base files, of the learning step that made it, or of a foreign model''s name and source.';
COMMENT ON COLUMN store.policies.kind IS 'base, learned or foreign.';
COMMENT ON COLUMN store.policies.parent_policy_id IS 'The policy that was updated; NULL for a base.';
COMMENT ON COLUMN store.policies.reference_policy_id IS 'The reference of the objective; NULL where it has none.';
COMMENT ON COLUMN store.policies.settings IS 'Objective, optimizer and compute precision; all that an update depends on. Of a foreign one: model and source.';
COMMENT ON COLUMN store.policies.updates_done IS 'Optimizer steps since the base policy.';
COMMENT ON COLUMN store.policies.tokenizer_id IS 'Digest of the tokenizer''s files; unknown of a foreign one.';
COMMENT ON COLUMN store.policies.weights_checksum IS 'Digest of the weights when it was first made; unknown of a foreign one.';
COMMENT ON COLUMN store.policies.folder IS 'Where it is saved, relative to REVAL_HOME; NULL while it exists only as its lineage.';
COMMENT ON COLUMN store.policies.created_at IS 'UTC.';
COMMENT ON COLUMN store.policies.run_id IS 'The run whose attempt wrote the row; provenance, not ownership.';
COMMENT ON COLUMN store.policies.attempt IS 'The attempt of that run that wrote the row.';

CREATE TABLE store.new_batches (
    batch_id            VARCHAR PRIMARY KEY,
    purpose             VARCHAR NOT NULL CHECK (purpose IN ('training', 'evaluation', 'imported')),
    policy_id           VARCHAR NOT NULL,
    weights_checksum    VARCHAR NOT NULL,
    tokenizer_id        VARCHAR NOT NULL,
    round               INTEGER NOT NULL,
    generation          INTEGER NOT NULL,
    engine              VARCHAR NOT NULL,
    sampling            JSON NOT NULL,
    prompt_count        INTEGER NOT NULL,
    trajectory_count    INTEGER NOT NULL,
    run_id              VARCHAR,
    attempt             INTEGER,
    created_at          TIMESTAMP NOT NULL
);
INSERT INTO store.new_batches BY NAME SELECT * FROM store.batches;
DROP TABLE store.batches;
ALTER TABLE store.new_batches RENAME TO batches;
COMMENT ON TABLE store.batches IS 'One sampled set of responses: which policy, prompts, settings, round and generation.';
COMMENT ON COLUMN store.batches.batch_id IS 'Digest of policy, prompts, sampling settings, engine, round and generation.';
COMMENT ON COLUMN store.batches.purpose IS 'training, evaluation, or imported: sampled by another system.';
COMMENT ON COLUMN store.batches.policy_id IS 'The policy that sampled.';
COMMENT ON COLUMN store.batches.weights_checksum IS 'Digest of the weights that sampled its first part; unknown in imports.';
COMMENT ON COLUMN store.batches.tokenizer_id IS 'Digest of the tokenizer''s files; in imports of the one that the text was put into tokens with here.';
COMMENT ON COLUMN store.batches.round IS 'The round, from 0; 0 in evaluations and imports.';
COMMENT ON COLUMN store.batches.generation IS 'Counts up with each forced regeneration, from 0.';
COMMENT ON COLUMN store.batches.engine IS 'Rollout engine with its precision.';
COMMENT ON COLUMN store.batches.sampling IS 'temperature, top_p, top_k, max_new_tokens, stop_ids, seed, ROLLOUT_VERSION, engine''s own settings. In imports: source, model, tokenizer_id, completions (their digest).';
COMMENT ON COLUMN store.batches.prompt_count IS 'Prompts.';
COMMENT ON COLUMN store.batches.trajectory_count IS 'Responses of the whole batch, also while not all are stored.';
COMMENT ON COLUMN store.batches.run_id IS 'The run whose attempt wrote the row; provenance, not ownership.';
COMMENT ON COLUMN store.batches.attempt IS 'The attempt of that run that wrote the row.';
COMMENT ON COLUMN store.batches.created_at IS 'UTC; when its first part was stored.';

COMMENT ON COLUMN store.trajectories.seed IS 'Seed of its sampling; 0 in imports, whose seed nobody knows.';
COMMENT ON COLUMN store.verifiers.verifier_id IS 'Digest of VERIFIER_VERSION, extraction and grading policy, of a reward of one''s own, or of a source and its labels.';
COMMENT ON COLUMN store.verifiers.name IS 'math, package.module:attribute, or label of SOURCE for what came with an import.';
