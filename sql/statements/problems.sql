-- Problems, where they came from, and their gold answers. "part" is an Arrow table of problems.

-- name: add_problems
INSERT INTO store.problems
SELECT DISTINCT ON (problem_id) problem_id, messages, question, $recorded_at FROM part
ON CONFLICT DO NOTHING;

-- name: add_sources
INSERT INTO store.problem_sources
SELECT DISTINCT ON (problem_id, source, external_id) problem_id, source, external_id, metadata, $recorded_at FROM part
ON CONFLICT DO NOTHING;

-- name: add_golds
INSERT INTO store.golds
SELECT DISTINCT ON (problem_id, gold_digest) problem_id, gold_digest, gold, $recorded_at FROM part
ON CONFLICT DO NOTHING;
