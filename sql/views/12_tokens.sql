-- A row is the token ids of one sampled response and how they were drawn: with reference_scores and update_members all that
-- learning reads. Apart from trajectories, since lists are long.
CREATE OR REPLACE VIEW tokens AS
SELECT
    t.trajectory_id,
    t.batch_id,
    t.problem_id,
    q.token_ids AS prompt_ids,
    y.response_ids,
    t.finish_reason <> 'stop' AS truncated,
    t.behaviour_logprob,
    t.seed,
    b.sampling,
    b.engine,
    b.policy_id,
    b.weights_checksum,
    b.tokenizer_id,
    coalesce(z.place, 'stored') AS payload
FROM store.trajectories AS t
JOIN store.batches AS b USING (batch_id)
JOIN store.prompts AS q USING (prompt_id)
LEFT JOIN store.payloads AS y USING (trajectory_id)
LEFT JOIN store.payload_places AS z USING (trajectory_id);

COMMENT ON VIEW tokens IS 'One row per sampled response: its token ids, its seed and how it was sampled.';
COMMENT ON COLUMN tokens.trajectory_id IS 'The response.';
COMMENT ON COLUMN tokens.batch_id IS 'Its batch; responses of one batch and problem are a group.';
COMMENT ON COLUMN tokens.problem_id IS 'Its problem.';
COMMENT ON COLUMN tokens.prompt_ids IS 'Token ids of the prompt.';
COMMENT ON COLUMN tokens.response_ids IS 'Token ids of the response, EOS included when it was generated; NULL where they were archived or dropped (see payload).';
COMMENT ON COLUMN tokens.truncated IS 'Whether it was cut: it ends without EOS.';
COMMENT ON COLUMN tokens.behaviour_logprob IS 'Summed log-probability of the response by the rollout engine, in nats.';
COMMENT ON COLUMN tokens.seed IS 'Seed of its sampling; 0 in imports, whose seed nobody knows.';
COMMENT ON COLUMN tokens.sampling IS 'temperature, top_p, top_k, max_new_tokens, stop_ids, seed, ROLLOUT_VERSION, engine''s own settings. In imports: source, model, tokenizer_id, completions (their digest).';
COMMENT ON COLUMN tokens.engine IS 'Rollout engine with its precision.';
COMMENT ON COLUMN tokens.policy_id IS 'The policy that sampled it.';
COMMENT ON COLUMN tokens.weights_checksum IS 'Digest of the weights that sampled the first part of its batch; unknown in imports.';
COMMENT ON COLUMN tokens.tokenizer_id IS 'Digest of the tokenizer''s files; in imports of the one that the text was put into tokens with here.';
COMMENT ON COLUMN tokens.payload IS 'stored; archived: tokens and text lie in a Parquet file of the folder archive; dropped: they were removed for good.';
