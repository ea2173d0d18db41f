-- A row is one response of a run's rounds with the verdict and the reward that THIS run used, its ancestors' rounds before
-- the fork included. A response that two runs share has a row for each: a fork at another reward shows its own verdicts.
-- Units: lengths in tokens, times in UTC, ages in rounds.
CREATE OR REPLACE VIEW run_trajectories AS
WITH sampled AS (
    SELECT
        s.run_id,
        s.owner_run_id,
        s.iteration,
        s.output ->> 'batch_id' AS batch_id,
        g.output ->> 'verifier_id' AS verifier_id
    FROM store.chain_stages AS s
    LEFT JOIN store.chain_gradings AS g ON g.run_id = s.run_id AND g.iteration = s.iteration
    WHERE s.stage = 'generate'
),
-- what each round sampled; an offline run has its admissions instead
members AS (
    SELECT
        s.run_id, s.owner_run_id, s.iteration, s.verifier_id, t.trajectory_id, t.batch_id, t.problem_id, t.prompt_id,
        t.sample_index, t.prompt_tokens, t.response_tokens, t.finish_reason, t.behaviour_logprob, t.created_at
    FROM sampled AS s
    JOIN store.trajectories AS t ON t.batch_id = s.batch_id
    UNION ALL BY NAME
    SELECT
        e.run_id, e.owner_run_id, e.iteration, e.verifier_id, t.trajectory_id, t.batch_id, t.problem_id, t.prompt_id,
        t.sample_index, t.prompt_tokens, t.response_tokens, t.finish_reason, t.behaviour_logprob, t.created_at
    FROM store.chain_entries AS e
    JOIN store.trajectories AS t ON t.trajectory_id = e.trajectory_id
    ANTI JOIN sampled AS s ON s.run_id = e.run_id AND s.iteration = e.iteration
)
SELECT
    t.run_id,
    r.name AS run_name,
    r.config,
    t.owner_run_id,
    t.iteration,
    t.trajectory_id,
    t.batch_id,
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
    e.trajectory_id IS NOT NULL AS admitted,
    v.verifier_id,
    v.tier,
    v.details,
    v.seconds AS grading_seconds,
    t.finish_reason,
    t.finish_reason <> 'stop' AS truncated,
    t.prompt_tokens,
    t.response_tokens,
    t.sample_index,
    t.behaviour_logprob,
    coalesce(u.times_used, 0) AS times_used,
    u.last_used_round,
    u.last_used_round - t.iteration AS staleness,
    t.created_at,
    coalesce(z.place, 'stored') AS payload
FROM members AS t
JOIN store.runs AS r ON r.run_id = t.run_id
JOIN store.batches AS b ON b.batch_id = t.batch_id
LEFT JOIN store.problems AS p ON p.problem_id = t.problem_id
LEFT JOIN store.told_sources AS s ON s.problem_id = t.problem_id
LEFT JOIN store.prompts AS q ON q.prompt_id = t.prompt_id
LEFT JOIN store.payloads AS y ON y.trajectory_id = t.trajectory_id
LEFT JOIN store.replay_entries AS e
  ON e.run_id = t.owner_run_id AND e.iteration = t.iteration AND e.trajectory_id = t.trajectory_id
-- the very verdict that was admitted; of a response that was left out, the newest of the verifier that graded the round
LEFT JOIN store.newest_verdicts AS n ON n.trajectory_id = t.trajectory_id AND n.verifier_id = t.verifier_id
LEFT JOIN store.verdicts AS v
  ON v.trajectory_id = t.trajectory_id
 AND v.verifier_id = coalesce(e.verifier_id, t.verifier_id)
 AND v.gold_digest = coalesce(e.gold_digest, n.gold_digest)
LEFT JOIN store.golds AS g ON g.problem_id = t.problem_id AND g.gold_digest = v.gold_digest
LEFT JOIN store.payload_places AS z ON z.trajectory_id = t.trajectory_id
LEFT JOIN store.chain_uses AS u ON u.run_id = t.run_id AND u.trajectory_id = t.trajectory_id;

COMMENT ON VIEW run_trajectories IS 'One row per run and response of its rounds: the verdict and the reward that this run used, and how often it learned from it.';
COMMENT ON COLUMN run_trajectories.run_id IS 'The run.';
COMMENT ON COLUMN run_trajectories.run_name IS 'Its name.';
COMMENT ON COLUMN run_trajectories.config IS 'Its configuration: (config ->> ''$.objective.beta'')::DOUBLE.';
COMMENT ON COLUMN run_trajectories.owner_run_id IS 'The run whose round it is: this one, or an ancestor before the fork.';
COMMENT ON COLUMN run_trajectories.iteration IS 'The round that sampled it, from 0; in an offline run the one that admitted it.';
COMMENT ON COLUMN run_trajectories.trajectory_id IS 'Digest of batch, problem and sample index.';
COMMENT ON COLUMN run_trajectories.batch_id IS 'The batch that it was sampled in.';
COMMENT ON COLUMN run_trajectories.policy_id IS 'The policy that sampled it.';
COMMENT ON COLUMN run_trajectories.problem_id IS 'The problem that it answers.';
COMMENT ON COLUMN run_trajectories.question IS 'Text of the last user message.';
COMMENT ON COLUMN run_trajectories.problem_source IS 'File or data set of the problem; of several the newest that has columns of its own.';
COMMENT ON COLUMN run_trajectories.problem_metadata IS 'Further columns of that source: problem_metadata ->> ''level''.';
COMMENT ON COLUMN run_trajectories.gold IS 'The gold answer that the verdict was given against; NULL before grading.';
COMMENT ON COLUMN run_trajectories.prompt IS 'The rendered prompt, special tokens included.';
COMMENT ON COLUMN run_trajectories.completion IS 'Text of the response; NULL where it was archived or dropped (see payload).';
COMMENT ON COLUMN run_trajectories.answer IS 'The extracted answer; NULL where none was found.';
COMMENT ON COLUMN run_trajectories.status IS 'Of the verdict that this run used: correct, incorrect, no_answer, timeout, error or rejected.';
COMMENT ON COLUMN run_trajectories.correct IS 'Whether the status is correct.';
COMMENT ON COLUMN run_trajectories.reward IS 'That verdict''s reward, before the transform.';
COMMENT ON COLUMN run_trajectories.reward_used IS 'The frozen reward that learning uses; NULL when it was not admitted.';
COMMENT ON COLUMN run_trajectories.admitted IS 'Whether the run admitted it to its buffer.';
COMMENT ON COLUMN run_trajectories.verifier_id IS 'The verifier of that verdict.';
COMMENT ON COLUMN run_trajectories.tier IS 'The tier of the verifier that decided.';
COMMENT ON COLUMN run_trajectories.details IS 'The verifier''s reason in words.';
COMMENT ON COLUMN run_trajectories.grading_seconds IS 'Seconds of grading.';
COMMENT ON COLUMN run_trajectories.finish_reason IS 'stop: it ended itself; length, budget, deadline: what it was cut by.';
COMMENT ON COLUMN run_trajectories.truncated IS 'Whether it was cut.';
COMMENT ON COLUMN run_trajectories.prompt_tokens IS 'Tokens of the prompt.';
COMMENT ON COLUMN run_trajectories.response_tokens IS 'Tokens of the response, EOS included when it was generated.';
COMMENT ON COLUMN run_trajectories.sample_index IS 'Which response to the problem in this batch, from 0.';
COMMENT ON COLUMN run_trajectories.behaviour_logprob IS 'Summed log-probability of the response by the rollout engine, in nats.';
COMMENT ON COLUMN run_trajectories.times_used IS 'Memberships in updates along this run''s chain.';
COMMENT ON COLUMN run_trajectories.last_used_round IS 'Newest round of this run''s chain that trained on it.';
COMMENT ON COLUMN run_trajectories.staleness IS 'Rounds between its sampling (in an offline run: its admission) and that use.';
COMMENT ON COLUMN run_trajectories.created_at IS 'UTC; when it was stored.';
COMMENT ON COLUMN run_trajectories.payload IS 'stored; archived: tokens and text lie in a Parquet file of the folder archive; dropped: they were removed for good.';
