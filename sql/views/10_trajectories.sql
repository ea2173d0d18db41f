-- A row is one sampled response with its problem, one verdict and what learning made of it, whoever used it; also one that
-- another system sampled and that was imported. What a certain run saw of it stands in run_trajectories. Units:
-- log-probabilities in nats, lengths in tokens, times in UTC, ages in rounds.
CREATE OR REPLACE VIEW trajectories AS
SELECT
    t.trajectory_id,
    t.batch_id,
    b.purpose,
    t.run_id,
    -- of a run that an export comes from nothing is known but its id, which is its name and eight digits
    coalesce(r.name, regexp_replace(t.run_id, '-[0-9a-f]{8}$', '')) AS run_name,
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
    t.finish_reason <> 'stop' AS truncated,
    t.prompt_tokens,
    t.response_tokens,
    t.sample_index,
    t.behaviour_logprob,
    coalesce(u.times_used, 0) AS times_used,
    u.last_used_round,
    CASE WHEN b.purpose = 'training' THEN u.last_used_round - b.round END AS staleness,
    t.created_at,
    coalesce(z.place, 'stored') AS payload
FROM store.trajectories AS t
JOIN store.batches AS b ON b.batch_id = t.batch_id
LEFT JOIN store.runs AS r ON r.run_id = t.run_id
LEFT JOIN store.problems AS p ON p.problem_id = t.problem_id
LEFT JOIN store.told_sources AS s ON s.problem_id = t.problem_id
LEFT JOIN store.prompts AS q ON q.prompt_id = t.prompt_id
LEFT JOIN store.payloads AS y ON y.trajectory_id = t.trajectory_id
LEFT JOIN store.replay_entries AS e
  ON e.run_id = t.run_id AND e.iteration = b.round AND e.trajectory_id = t.trajectory_id
LEFT JOIN store.chosen_verdicts AS v ON v.trajectory_id = t.trajectory_id
LEFT JOIN store.golds AS g ON g.problem_id = t.problem_id AND g.gold_digest = v.gold_digest
LEFT JOIN store.payload_places AS z ON z.trajectory_id = t.trajectory_id
LEFT JOIN store.trajectory_uses AS u ON u.trajectory_id = t.trajectory_id;

COMMENT ON VIEW trajectories IS 'One row per sampled response: prompt, completion, verdict, rewards, and how often learning used it.';
COMMENT ON COLUMN trajectories.trajectory_id IS 'Digest of batch, problem and sample index.';
COMMENT ON COLUMN trajectories.batch_id IS 'The batch that it was sampled in.';
COMMENT ON COLUMN trajectories.purpose IS 'training, evaluation, or imported: sampled by another system.';
COMMENT ON COLUMN trajectories.run_id IS 'The run that sampled it; forks and other runs may use it too. NULL where no run did.';
COMMENT ON COLUMN trajectories.run_name IS 'Name of that run.';
COMMENT ON COLUMN trajectories.config IS 'Configuration of that run: (config ->> ''$.objective.beta'')::DOUBLE.';
COMMENT ON COLUMN trajectories.iteration IS 'Round that sampled it, from 0; NULL in evaluations and imports.';
COMMENT ON COLUMN trajectories.policy_id IS 'The policy that sampled it; of an import, the view policies tells its model and source.';
COMMENT ON COLUMN trajectories.problem_id IS 'The problem that it answers.';
COMMENT ON COLUMN trajectories.question IS 'Text of the last user message.';
COMMENT ON COLUMN trajectories.problem_source IS 'File or data set of the problem; of several the newest that has columns of its own.';
COMMENT ON COLUMN trajectories.problem_metadata IS 'Further columns of that source: problem_metadata ->> ''level''.';
COMMENT ON COLUMN trajectories.gold IS 'The gold answer it was graded against; NULL before grading.';
COMMENT ON COLUMN trajectories.prompt IS 'The rendered prompt, special tokens included.';
COMMENT ON COLUMN trajectories.completion IS 'Text of the response; NULL where it was archived or dropped (see payload).';
COMMENT ON COLUMN trajectories.answer IS 'The extracted answer; NULL where none was found.';
COMMENT ON COLUMN trajectories.status IS 'By the newest verdict of its own run''s verifier, else the newest: correct, incorrect, no_answer, ... (see verdicts).';
COMMENT ON COLUMN trajectories.correct IS 'Whether the status is correct.';
COMMENT ON COLUMN trajectories.reward IS 'The verdict''s reward.';
COMMENT ON COLUMN trajectories.reward_used IS 'The reward that learning uses, as its own run admitted it; NULL when it was not admitted.';
COMMENT ON COLUMN trajectories.tier IS 'The tier of the verifier that decided.';
COMMENT ON COLUMN trajectories.details IS 'The verifier''s reason in words.';
COMMENT ON COLUMN trajectories.finish_reason IS 'stop: it ended itself; length, budget, deadline: what it was cut by.';
COMMENT ON COLUMN trajectories.truncated IS 'Whether it was cut.';
COMMENT ON COLUMN trajectories.prompt_tokens IS 'Tokens of the prompt.';
COMMENT ON COLUMN trajectories.response_tokens IS 'Tokens of the response, EOS included when it was generated.';
COMMENT ON COLUMN trajectories.sample_index IS 'Which response to the problem in this batch, from 0.';
COMMENT ON COLUMN trajectories.behaviour_logprob IS 'Summed log-probability of the response by the rollout engine, in nats.';
COMMENT ON COLUMN trajectories.times_used IS 'Memberships in updates, over all runs.';
COMMENT ON COLUMN trajectories.last_used_round IS 'Newest round that trained on it, of any run that samples: rounds of an offline run do not count.';
COMMENT ON COLUMN trajectories.staleness IS 'Rounds between its sampling and last_used_round; NULL where no round sampled it.';
COMMENT ON COLUMN trajectories.created_at IS 'UTC; when it was stored.';
COMMENT ON COLUMN trajectories.payload IS 'stored; archived: tokens and text lie in a Parquet file of the folder archive; dropped: they were removed for good.';
