-- A row is one problem: what a model is asked, and the gold answer that counts now. Times in UTC.
CREATE OR REPLACE VIEW problems AS
SELECT
    p.problem_id,
    p.question,
    p.messages,
    g.gold,
    n.golds,
    f.source,
    f.external_id,
    f.metadata,
    s.sources,
    p.recorded_at
FROM store.problems AS p
LEFT JOIN store.told_sources AS f USING (problem_id)
LEFT JOIN store.current_golds AS g USING (problem_id)
LEFT JOIN (SELECT problem_id, count(*) AS golds FROM store.golds GROUP BY problem_id) AS n USING (problem_id)
LEFT JOIN (
    SELECT problem_id, list_sort(list(DISTINCT source)) AS sources
    FROM store.problem_sources
    GROUP BY problem_id
) AS s USING (problem_id);

COMMENT ON VIEW problems IS 'One row per problem with the gold answer that counts now.';
COMMENT ON COLUMN problems.problem_id IS 'Digest of the messages.';
COMMENT ON COLUMN problems.question IS 'Text of the last user message.';
COMMENT ON COLUMN problems.messages IS 'The conversation that the model is asked: a list of {role, content}.';
COMMENT ON COLUMN problems.gold IS 'The gold answer that counts: the one that was read last.';
COMMENT ON COLUMN problems.golds IS 'How many versions of the gold answer there are.';
COMMENT ON COLUMN problems.source IS 'The newest source that has columns of its own, else the newest; sources lists all.';
COMMENT ON COLUMN problems.external_id IS 'That source''s own id of it.';
COMMENT ON COLUMN problems.metadata IS 'That source''s further columns: metadata ->> ''level''.';
COMMENT ON COLUMN problems.sources IS 'All files and data sets that have it.';
COMMENT ON COLUMN problems.recorded_at IS 'UTC; when it was read first.';
