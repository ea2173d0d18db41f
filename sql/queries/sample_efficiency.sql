-- How accurate is each run after how many generated tokens?
-- All runs side by side; a fork counts what its ancestors generated before the fork.
SELECT
    run_name,
    run_id,
    iteration,
    (sum(tokens_generated) OVER so_far)::BIGINT AS tokens_so_far,
    (sum(trajectories) OVER so_far)::BIGINT AS trajectories_so_far,
    (sum(updates) OVER so_far - updates)::BIGINT AS updates_so_far,
    accuracy,
    avg(accuracy) OVER (PARTITION BY run_id ORDER BY iteration ROWS 4 PRECEDING) AS accuracy_of_last_five
FROM rounds
WINDOW so_far AS (PARTITION BY run_id ORDER BY iteration)
ORDER BY run_name, run_id, iteration;
