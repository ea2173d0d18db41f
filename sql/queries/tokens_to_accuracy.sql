-- How many tokens did each run have to generate before a round's batch first reached an accuracy?
-- All runs side by side; levels that a run never reached have no row. A fork counts its ancestors' tokens too.
WITH curve AS (
    SELECT
        run_name,
        run_id,
        iteration,
        accuracy,
        (sum(tokens_generated) OVER so_far)::BIGINT AS tokens_so_far,
        (sum(trajectories) OVER so_far)::BIGINT AS trajectories_so_far
    FROM rounds
    WINDOW so_far AS (PARTITION BY run_id ORDER BY iteration)
)
SELECT
    l.level / 10 AS accuracy_at_least,
    c.run_name,
    c.run_id,
    min(c.tokens_so_far) AS tokens,
    min(c.trajectories_so_far) AS trajectories,
    min(c.iteration) AS iteration
FROM range(1, 11) AS l (level)
JOIN curve AS c ON c.accuracy >= l.level / 10
GROUP BY l.level, c.run_name, c.run_id
ORDER BY l.level, tokens, c.run_id;
