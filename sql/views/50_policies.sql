-- A row is one policy: base weights, what a round's updates made of its parent, or a model of another system of which nothing
-- but its name is known and whose responses were imported. Times in UTC.
CREATE OR REPLACE VIEW policies AS
SELECT
    p.policy_id,
    p.kind,
    coalesce(l.run_id, p.run_id) AS run_id,
    l.iteration,
    p.parent_policy_id,
    p.reference_policy_id,
    p.updates_done,
    p.settings,
    p.tokenizer_id,
    p.weights_checksum,
    p.folder,
    coalesce(b.batches, 0) AS batches,
    coalesce(z.realisations, 0) AS realisations,
    p.created_at
FROM store.policies AS p
LEFT JOIN store.policy_rounds AS l USING (policy_id)
LEFT JOIN (SELECT policy_id, count(*) AS batches FROM store.batches GROUP BY policy_id) AS b USING (policy_id)
LEFT JOIN (SELECT policy_id, count(*) AS realisations FROM store.realisations GROUP BY policy_id) AS z USING (policy_id);

COMMENT ON VIEW policies IS 'One row per policy: its parent, its reference, where it is saved.';
COMMENT ON COLUMN policies.policy_id IS 'Digest of the base files, of the learning step that made it, or of a foreign model''s name and source.';
COMMENT ON COLUMN policies.kind IS 'base, learned, or foreign: a model of another system.';
COMMENT ON COLUMN policies.run_id IS 'The run that first made it; other runs may share it.';
COMMENT ON COLUMN policies.iteration IS 'The round that gave it; NULL for a base policy.';
COMMENT ON COLUMN policies.parent_policy_id IS 'The policy that was updated; NULL for a base.';
COMMENT ON COLUMN policies.reference_policy_id IS 'The reference of the objective; NULL where it has none.';
COMMENT ON COLUMN policies.updates_done IS 'Optimizer steps since the base policy.';
COMMENT ON COLUMN policies.settings IS 'Objective, optimizer and compute precision; of a foreign one its model and source: settings ->> ''model''.';
COMMENT ON COLUMN policies.tokenizer_id IS 'Digest of the tokenizer''s files; unknown of a foreign one.';
COMMENT ON COLUMN policies.weights_checksum IS 'Digest of the weights when it was first made; unknown of a foreign one.';
COMMENT ON COLUMN policies.folder IS 'Relative to REVAL_HOME; NULL while the policy exists only as its lineage.';
COMMENT ON COLUMN policies.batches IS 'Batches sampled from it: training, evaluation, imported.';
COMMENT ON COLUMN policies.realisations IS 'Other weights that learning it again elsewhere gave.';
COMMENT ON COLUMN policies.created_at IS 'UTC.';
