-- How does a run learn, round by round?
-- $run: a run_id, by default the training that was active last. A row is a finished round: accuracy is that of its fresh
-- batch, before its updates (in an offline run of what it admitted); trajectories and tokens are counted with it.
SELECT
    iteration,
    accuracy,
    reward_mean,
    loss,
    residual_mean,
    grad_norm,
    response_tokens_mean,
    truncated_share,
    staleness_mean,
    uses_mean,
    (sum(trajectories) OVER so_far)::BIGINT AS trajectories_so_far,
    (sum(tokens_generated) OVER so_far)::BIGINT AS tokens_so_far,
    list_sum([seconds_generate, seconds_verify, seconds_score, seconds_persist, seconds_learn]) AS seconds
FROM rounds
WHERE run_id = coalesce($run, newest_run())
WINDOW so_far AS (ORDER BY iteration)
ORDER BY iteration;
