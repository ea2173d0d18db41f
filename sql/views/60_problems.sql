-- A row is one problem: what a model is asked, and the gold answer that counts now. Times in UTC.
CREATE OR REPLACE VIEW problems AS
SELECT
    p.problem_id,
    p.question,
    p.messages,
    g.gold,
    g.golds,
    f.source,
    f.external_id,
    f.metadata,
    s.sources,
    p.recorded_at
FROM store.problems AS p
LEFT JOIN store.first_sources AS f USING (problem_id)
LEFT JOIN (
    SELECT problem_id, arg_max(gold, (recorded_at, gold_digest)) AS gold, count(*) AS golds
    FROM store.golds
    GROUP BY problem_id
) AS g USING (problem_id)
LEFT JOIN (
    SELECT problem_id, list_sort(list(DISTINCT source)) AS sources
    FROM store.problem_sources
    GROUP BY problem_id
) AS s USING (problem_id);

COMMENT ON VIEW problems IS 'One row per problem with its newest gold answer.';
COMMENT ON COLUMN problems.gold IS 'The newest version of the gold answer.';
COMMENT ON COLUMN problems.golds IS 'How many versions of the gold answer there are.';
COMMENT ON COLUMN problems.source IS 'The source that was recorded first; sources lists all.';
