-- Problems, where they came from, and their gold answers. "part" is an Arrow table of problems.

-- name: add_problems
INSERT INTO store.problems BY NAME
SELECT DISTINCT ON (problem_id) problem_id, messages, question, $recorded_at AS recorded_at
FROM part
ON CONFLICT DO NOTHING;

-- name: add_sources
-- Columns that were mended in the file are mended here; when the problem was first read there stays.
INSERT INTO store.problem_sources BY NAME
SELECT DISTINCT ON (problem_id, source, external_id)
    problem_id, source, external_id, metadata, $recorded_at AS recorded_at
FROM part
ON CONFLICT DO UPDATE SET metadata = excluded.metadata
WHERE problem_sources.metadata::VARCHAR <> excluded.metadata::VARCHAR;

-- name: add_golds
-- An answer that counts already is left alone; a new one, and one that is put back, counts from now on.
INSERT INTO store.golds BY NAME
SELECT DISTINCT ON (part.problem_id, part.gold_digest)
    part.problem_id, part.gold_digest, part.gold, $recorded_at AS recorded_at, $recorded_at AS counts_since
FROM part
ANTI JOIN store.current_golds AS c ON c.problem_id = part.problem_id AND c.gold_digest = part.gold_digest
ON CONFLICT DO UPDATE SET counts_since = excluded.counts_since;
