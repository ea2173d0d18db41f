-- Problems, where they came from, and their gold answers. "part" is an Arrow table of problems.

-- name: read
SELECT p.problem_id, p.messages, g.gold, s.source, s.external_id, s.metadata
FROM wanted
JOIN store.problems AS p USING (problem_id)
LEFT JOIN store.current_golds AS g USING (problem_id)
LEFT JOIN store.told_sources AS s USING (problem_id);

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
-- An answer that counts already is left alone; a new one, and one that is put back, counts from now on: after the one
-- that counted before, also where the clock was set back.
INSERT INTO store.golds BY NAME
SELECT DISTINCT ON (part.problem_id, part.gold_digest)
    part.problem_id, part.gold_digest, part.gold, $recorded_at AS recorded_at,
    greatest($recorded_at::TIMESTAMP, c.counts_since + INTERVAL 1 MICROSECOND) AS counts_since
FROM part
LEFT JOIN store.current_golds AS c ON c.problem_id = part.problem_id
WHERE c.gold_digest IS DISTINCT FROM part.gold_digest
ON CONFLICT DO UPDATE SET counts_since = excluded.counts_since;

-- name: add_other_golds
-- Answers that another one, given with them, counts before: they are recorded, since verdicts refer to them, and never counted.
INSERT INTO store.golds BY NAME
SELECT DISTINCT ON (problem_id, gold_digest)
    problem_id, gold_digest, gold, $recorded_at AS recorded_at, TIMESTAMP '1970-01-01' AS counts_since
FROM part
ON CONFLICT DO NOTHING;
