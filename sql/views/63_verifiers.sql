-- A row is one verifier: what a verifier_id in verdicts, runs and evaluations stands for. Two of one name and version differ in
-- their settings. Times in UTC.
CREATE OR REPLACE VIEW verifiers AS
SELECT
    w.verifier_id,
    w.name AS verifier,
    w.version AS verifier_version,
    w.settings,
    coalesce(v.verdicts, 0) AS verdicts,
    w.recorded_at
FROM store.verifiers AS w
LEFT JOIN (SELECT verifier_id, count(*) AS verdicts FROM store.verdicts GROUP BY verifier_id) AS v USING (verifier_id);

COMMENT ON VIEW verifiers IS 'One row per verifier: its name, version and settings.';
COMMENT ON COLUMN verifiers.verifier_id IS 'Digest of VERIFIER_VERSION, extraction and grading policy, of a reward of one''s own, or of a source and its labels.';
COMMENT ON COLUMN verifiers.verifier IS 'math, the reward''s package.module:attribute, or label of SOURCE for what came with an import.';
COMMENT ON COLUMN verifiers.verifier_version IS 'VERIFIER_VERSION, or the reward''s own version.';
COMMENT ON COLUMN verifiers.settings IS 'Extraction, grading policy, arguments: settings ->> ''extraction''.';
COMMENT ON COLUMN verifiers.verdicts IS 'Verdicts that it gave, over all responses.';
COMMENT ON COLUMN verifiers.recorded_at IS 'UTC; when it was used first.';
