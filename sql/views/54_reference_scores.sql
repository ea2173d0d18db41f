-- A row is the two scalars of one response under one reference, in nats, by the trainer's own forward pass.
CREATE OR REPLACE VIEW reference_scores AS
SELECT trajectory_id, reference_policy_id, scoring_id, logprob, root_value
FROM store.reference_scores;

COMMENT ON VIEW reference_scores IS 'One row per response, reference and way of scoring.';
COMMENT ON COLUMN reference_scores.trajectory_id IS 'The response.';
COMMENT ON COLUMN reference_scores.reference_policy_id IS 'The reference.';
COMMENT ON COLUMN reference_scores.scoring_id IS 'Digest of LEARNING_VERSION, compute precision and policy temperature.';
COMMENT ON COLUMN reference_scores.logprob IS 'log pi_ref of the response in nats, summed over its tokens.';
COMMENT ON COLUMN reference_scores.root_value IS 'V_ref(s1) in nats: logsumexp of the logits at the last prompt position.';
