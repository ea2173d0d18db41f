-- What the page of a run shows beside the view `rounds`. Everything is read along the run's chain.

-- name: created_at
SELECT created_at FROM store.runs WHERE run_id = $run_id;

-- name: lengths
-- Tokens of an admitted response by round: mean, and the tenth from below and from above, of right responses and of the
-- others, by the verdicts that were admitted.
SELECT
    e.iteration,
    avg(t.response_tokens) AS length_mean,
    quantile_cont(t.response_tokens, 0.1) AS length_low,
    quantile_cont(t.response_tokens, 0.9) AS length_high,
    avg(t.response_tokens) FILTER (v.status = 'correct') AS right_mean,
    avg(t.response_tokens) FILTER (v.status <> 'correct') AS wrong_mean,
    avg((t.finish_reason <> 'stop')::INTEGER) AS truncated_share
FROM store.chain_entries AS e
JOIN store.trajectories AS t ON t.trajectory_id = e.trajectory_id
LEFT JOIN store.verdicts AS v
  ON v.trajectory_id = e.trajectory_id AND v.gold_digest = e.gold_digest AND v.verifier_id = e.verifier_id
WHERE e.run_id = $run_id
GROUP BY e.iteration
ORDER BY e.iteration;

-- name: calibration
-- By round: the reward that the logits stand for, beta (log pi - log pi_ref + V - V_ref), of what was learned from, and
-- the reward itself; apart for responses with a reward above 0 and for the others.
SELECT
    r.iteration,
    avg(m.reward) FILTER (m.reward > 0) AS right_reward,
    avg(m.reward) FILTER (m.reward <= 0) AS wrong_reward,
    avg(m.predicted) FILTER (m.reward > 0) AS right_mean,
    quantile_cont(m.predicted, 0.1) FILTER (m.reward > 0) AS right_low,
    quantile_cont(m.predicted, 0.9) FILTER (m.reward > 0) AS right_high,
    avg(m.predicted) FILTER (m.reward <= 0) AS wrong_mean,
    quantile_cont(m.predicted, 0.1) FILTER (m.reward <= 0) AS wrong_low,
    quantile_cont(m.predicted, 0.9) FILTER (m.reward <= 0) AS wrong_high
FROM rounds AS r
JOIN (
    SELECT policy_id, reward, $beta * (log_ratio + root_value_gap) AS predicted
    FROM store.update_trajectories
) AS m ON m.policy_id = r.policy_id AND r.updates > 0
WHERE r.run_id = $run_id
GROUP BY r.iteration
ORDER BY r.iteration;

-- name: timeline
-- Each stage that the run's chain executed, by when it began: seconds since the first began.
WITH done AS (
    SELECT l.iteration, l.stage, s.seconds, epoch(s.committed_at) - s.seconds AS began
    FROM store.chain_links AS l
    JOIN store.stages AS s USING (stage_key)
    WHERE l.run_id = $run_id AND l.executed
)
SELECT iteration, stage, seconds, began - min(began) OVER () AS start
FROM done
ORDER BY began;

-- name: stages
-- Seconds and counts of each stage along the chain: what was executed, and what was found done.
SELECT
    l.stage,
    count(*) FILTER (l.executed) AS executed,
    count(*) FILTER (NOT l.executed) AS found,
    coalesce(sum(s.seconds) FILTER (l.executed), 0) AS seconds
FROM store.chain_links AS l
JOIN store.stages AS s USING (stage_key)
WHERE l.run_id = $run_id
GROUP BY l.stage
ORDER BY seconds DESC;

-- name: tokens
-- What was generated and what was learned from, along the chain. Seconds are those of the stages generate and learn.
SELECT
    coalesce(sum(r.trajectories), 0)::BIGINT AS responses,
    coalesce(sum(r.tokens_generated), 0)::BIGINT AS generated,
    coalesce(sum(u.tokens), 0)::BIGINT AS learned,
    coalesce(sum(u.members), 0)::BIGINT AS members,
    coalesce(sum(r.seconds_generate), 0) AS seconds_generate,
    coalesce(sum(r.seconds_learn), 0) AS seconds_learn
FROM rounds AS r
LEFT JOIN (
    SELECT policy_id, sum(tokens) AS tokens, sum(trajectories) AS members FROM store.updates GROUP BY policy_id
) AS u ON u.policy_id = r.policy_id AND r.updates > 0
WHERE r.run_id = $run_id;

-- name: attempts
-- How often the run was started, on what, and how each start ended.
SELECT attempt, status, strftime(started_at, '%Y-%m-%d %H:%M:%S') AS started_at, seconds, device, message
FROM attempts
WHERE run_id = $run_id
ORDER BY attempt;

-- name: events
SELECT iteration, kind, message, recorded_at
FROM events
WHERE run_id = $run_id
ORDER BY recorded_at DESC
LIMIT $most;

-- name: newest_responses
-- The best and the worst responses of the newest round that was graded, and those of the last $rounds whose grading
-- failed. Best: rewarded, those that the policy found least likely first, so what it has just learned to find. Worst: not
-- rewarded, those that it was surest of first. One response to each problem.
WITH newest AS (
    SELECT max(iteration) AS iteration
    FROM store.chain_entries
    WHERE run_id = $run_id
),
recent AS (
    SELECT r.*, r.iteration = n.iteration AS is_newest
    FROM run_trajectories AS r
    JOIN newest AS n ON r.iteration > n.iteration - $rounds
    WHERE r.run_id = $run_id AND r.status IS NOT NULL
      AND (r.iteration = n.iteration OR r.status IN ('timeout', 'error', 'rejected'))
),
chosen AS (
    SELECT 'best' AS kind, * FROM recent WHERE is_newest AND reward > 0
    QUALIFY row_number() OVER (PARTITION BY problem_id ORDER BY reward DESC, behaviour_logprob, trajectory_id) = 1
    UNION ALL
    SELECT 'worst' AS kind, * FROM recent
    WHERE is_newest AND reward <= 0 AND status IN ('correct', 'incorrect', 'no_answer')
    QUALIFY row_number() OVER (PARTITION BY problem_id ORDER BY reward, behaviour_logprob DESC, trajectory_id) = 1
    UNION ALL
    SELECT 'failed' AS kind, * FROM recent WHERE status IN ('timeout', 'error', 'rejected')
    QUALIFY row_number() OVER (PARTITION BY problem_id ORDER BY iteration DESC, trajectory_id) = 1
)
SELECT
    kind, iteration, trajectory_id, problem_id, question, gold, completion, answer, status, reward, tier, details,
    response_tokens, truncated, behaviour_logprob, times_used
FROM chosen
QUALIFY row_number() OVER (
    PARTITION BY kind
    ORDER BY
        CASE kind WHEN 'best' THEN -reward WHEN 'worst' THEN reward ELSE -iteration END,
        CASE kind WHEN 'best' THEN behaviour_logprob ELSE -behaviour_logprob END,
        trajectory_id
) <= $most
ORDER BY
    kind,
    CASE kind WHEN 'best' THEN -reward WHEN 'worst' THEN reward ELSE -iteration END,
    CASE kind WHEN 'best' THEN behaviour_logprob ELSE -behaviour_logprob END,
    trajectory_id;
