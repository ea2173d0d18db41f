-- How accurate is each run's policy after how many generated tokens and updates?
-- All runs side by side, but for offline ones, which sample nothing that would tell. A row is the moment at which a round begins: what was generated and learned before it, and the
-- accuracy of the policy that this gave, measured on the batch that the round then samples. A fork counts what its ancestors
-- generated before the fork.
SELECT
    run_name,
    run_id,
    iteration,
    coalesce(sum(tokens_generated) OVER before, 0)::BIGINT AS tokens_before,
    coalesce(sum(trajectories) OVER before, 0)::BIGINT AS trajectories_before,
    coalesce(sum(updates) OVER before, 0)::BIGINT AS updates_before,
    accuracy,
    avg(accuracy) OVER (PARTITION BY run_id ORDER BY iteration ROWS 4 PRECEDING) AS accuracy_of_last_five
FROM rounds
WHERE batch_id IS NOT NULL
WINDOW before AS (PARTITION BY run_id ORDER BY iteration ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
ORDER BY run_name, run_id, iteration;
