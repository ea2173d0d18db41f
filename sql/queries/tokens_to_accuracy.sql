-- How many tokens did each run generate before its policy first reached an accuracy?
-- All runs side by side, but for offline ones, which generate nothing; levels that a run never reached have no row. Counted up to the beginning of the round whose batch
-- reached it, as in sample_efficiency. A fork counts its ancestors' tokens too.
WITH curve AS (
    SELECT
        run_name,
        run_id,
        iteration,
        accuracy,
        coalesce(sum(tokens_generated) OVER before, 0)::BIGINT AS tokens_before,
        coalesce(sum(trajectories) OVER before, 0)::BIGINT AS trajectories_before
    FROM rounds
    WHERE batch_id IS NOT NULL
    WINDOW before AS (PARTITION BY run_id ORDER BY iteration ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT
    l.level / 10 AS accuracy_at_least,
    c.run_name,
    c.run_id,
    min(c.tokens_before) AS tokens,
    min(c.trajectories_before) AS trajectories,
    min(c.iteration) AS iteration
FROM range(1, 11) AS l (level)
JOIN curve AS c ON c.accuracy >= l.level / 10
GROUP BY l.level, c.run_name, c.run_id
ORDER BY l.level, tokens, c.run_id;
