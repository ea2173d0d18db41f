-- A row is one trajectory: a sampled response with its problem, its verdict and what learning made of it.
-- Units: log-probabilities in nats, lengths in tokens, times in UTC, ages in rounds.
CREATE OR REPLACE VIEW trajectories AS
SELECT
    t.trajectory_id,
    t.batch_id,
    b.purpose,
    t.run_id,
    r.name AS run_name,
    r.config,
    CASE WHEN b.purpose = 'training' THEN b.round END AS iteration,
    b.policy_id,
    t.problem_id,
    p.question,
    s.source AS problem_source,
    s.metadata AS problem_metadata,
    g.gold,
    q.text AS prompt,
    y.completion,
    v.answer,
    v.status,
    v.status = 'correct' AS correct,
    v.reward,
    e.reward_used,
    v.tier,
    v.details,
    t.finish_reason,
    t.finish_reason = 'length' AS truncated,
    t.prompt_tokens,
    t.response_tokens,
    t.sample_index,
    t.behaviour_logprob,
    coalesce(u.times_used, 0) AS times_used,
    u.last_used_round,
    u.last_used_round - b.round AS staleness,
    t.created_at
FROM store.trajectories AS t
JOIN store.batches AS b ON b.batch_id = t.batch_id
LEFT JOIN store.runs AS r ON r.run_id = t.run_id
LEFT JOIN store.problems AS p ON p.problem_id = t.problem_id
LEFT JOIN store.first_sources AS s ON s.problem_id = t.problem_id
LEFT JOIN store.prompts AS q ON q.prompt_id = t.prompt_id
LEFT JOIN store.payloads AS y ON y.trajectory_id = t.trajectory_id
LEFT JOIN store.chosen_verdicts AS v ON v.trajectory_id = t.trajectory_id
LEFT JOIN store.golds AS g ON g.problem_id = t.problem_id AND g.gold_digest = v.gold_digest
LEFT JOIN (
    SELECT run_id, trajectory_id, arg_max(reward_used, iteration) AS reward_used
    FROM store.replay_entries
    GROUP BY run_id, trajectory_id
) AS e
  ON e.run_id = t.run_id AND e.trajectory_id = t.trajectory_id
LEFT JOIN store.trajectory_uses AS u ON u.trajectory_id = t.trajectory_id;

COMMENT ON VIEW trajectories IS 'One row per sampled response: prompt, completion, verdict, rewards, and how often learning used it.';
COMMENT ON COLUMN trajectories.run_id IS 'The run that sampled it; forks and other runs may use it too.';
COMMENT ON COLUMN trajectories.iteration IS 'Round that sampled it, 0-based; NULL in evaluations.';
COMMENT ON COLUMN trajectories.policy_id IS 'The policy that sampled it.';
COMMENT ON COLUMN trajectories.gold IS 'The gold answer it was graded against; NULL before grading.';
COMMENT ON COLUMN trajectories.reward IS 'The verdict''s reward.';
COMMENT ON COLUMN trajectories.reward_used IS 'The reward that learning uses, as its own run admitted it; NULL when it was not admitted.';
COMMENT ON COLUMN trajectories.behaviour_logprob IS 'Log-probability of the response by the rollout engine, in nats.';
COMMENT ON COLUMN trajectories.times_used IS 'Memberships in updates, over all runs.';
COMMENT ON COLUMN trajectories.last_used_round IS 'Newest round in which its own run, or a fork of it, trained on it.';
COMMENT ON COLUMN trajectories.staleness IS 'Rounds between its sampling and its last use.';
COMMENT ON COLUMN trajectories.created_at IS 'UTC.';
