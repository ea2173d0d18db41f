-- A row is one finished round of a run: an iteration whose learning is committed. A fork shows the rounds of its
-- ancestors before the fork as well; owner_run_id says whose they are.
-- Units: tokens are response tokens, residuals and log-ratios in nats, seconds of wall time, shares from 0 to 1.
CREATE OR REPLACE VIEW rounds AS
WITH pivoted AS (
    SELECT
        run_id,
        iteration,
        any_value(owner_run_id) AS owner_run_id,
        any_value(output) FILTER (stage = 'generate') AS generated,
        arg_max(output, linked_at) FILTER (stage = 'verify') AS verified,
        any_value(output) FILTER (stage = 'persist') AS persisted,
        any_value(output) FILTER (stage = 'learn') AS learned,
        sum(seconds) FILTER (stage = 'generate') AS seconds_generate,
        sum(seconds) FILTER (stage = 'verify') AS seconds_verify,
        sum(seconds) FILTER (stage IN ('score', 'rescore')) AS seconds_score,
        sum(seconds) FILTER (stage = 'persist') AS seconds_persist,
        sum(seconds) FILTER (stage = 'learn') AS seconds_learn,
        max(linked_at) FILTER (stage = 'learn') AS finished_at
    FROM store.chain_stages
    WHERE stage IN ('generate', 'verify', 'score', 'rescore', 'persist', 'learn')
    GROUP BY run_id, iteration
    HAVING bool_or(stage = 'learn')
),
figures AS (
    SELECT
        *,
        learned ->> 'policy_id' AS policy_id,
        (learned ->> 'updates')::INTEGER AS updates,
        (generated ->> 'trajectories')::INTEGER AS trajectories,
        (generated ->> 'tokens')::BIGINT AS tokens_generated,
        (generated ->> 'truncated')::INTEGER AS truncated,
        (verified -> 'statuses')::MAP(VARCHAR, INTEGER) AS statuses,
        list_sum(map_values((verified -> 'statuses')::MAP(VARCHAR, INTEGER))) AS graded
    FROM pivoted
)
SELECT
    f.run_id,
    r.name AS run_name,
    f.owner_run_id,
    f.iteration,
    f.policy_id,
    CASE WHEN f.updates > 0 THEN p.parent_policy_id ELSE f.policy_id END AS parent_policy_id,
    f.learned ->> 'reference_policy_id' AS reference_policy_id,
    f.generated ->> 'batch_id' AS batch_id,
    f.trajectories,
    f.tokens_generated,
    (f.persisted ->> 'accuracy')::DOUBLE AS accuracy,
    (f.persisted ->> 'reward')::DOUBLE AS reward_mean,
    u.loss,
    m.residual_mean,
    m.residual_std,
    m.log_ratio_mean,
    m.root_value_gap_mean,
    u.grad_norm,
    f.updates,
    (f.learned ->> 'skipped')::INTEGER AS skipped_updates,
    f.tokens_generated / nullif(f.trajectories, 0) AS response_tokens_mean,
    f.truncated / nullif(f.trajectories, 0) AS truncated_share,
    coalesce(f.statuses['correct'], 0) / f.graded AS correct_share,
    coalesce(f.statuses['incorrect'], 0) / f.graded AS incorrect_share,
    coalesce(f.statuses['no_answer'], 0) / f.graded AS no_answer_share,
    coalesce(f.statuses['timeout'], 0) / f.graded AS timeout_share,
    coalesce(f.statuses['error'], 0) / f.graded AS error_share,
    coalesce(f.statuses['rejected'], 0) / f.graded AS rejected_share,
    f.iteration - m.generated_round_mean AS staleness_mean,
    n.uses_mean,
    f.seconds_generate,
    f.seconds_verify,
    f.seconds_score,
    f.seconds_persist,
    f.seconds_learn,
    f.finished_at
FROM figures AS f
JOIN store.runs AS r ON r.run_id = f.run_id
LEFT JOIN store.policies AS p ON p.policy_id = f.policy_id
LEFT JOIN store.policy_members AS m ON m.policy_id = f.policy_id AND f.updates > 0
LEFT JOIN store.round_uses AS n ON n.run_id = f.run_id AND n.iteration = f.iteration
LEFT JOIN (
    SELECT policy_id, avg(loss) AS loss, avg(grad_norm) AS grad_norm
    FROM store.updates
    GROUP BY policy_id
) AS u
  ON u.policy_id = f.policy_id AND f.updates > 0;

COMMENT ON VIEW rounds IS 'One row per finished round of a run, its ancestors'' rounds before the fork included.';
COMMENT ON COLUMN rounds.owner_run_id IS 'The run whose round it is: this one, or an ancestor before the fork.';
COMMENT ON COLUMN rounds.policy_id IS 'The policy that the round gave.';
COMMENT ON COLUMN rounds.parent_policy_id IS 'The policy that the round started from and sampled with.';
COMMENT ON COLUMN rounds.tokens_generated IS 'Response tokens sampled for the round, whichever run paid for them.';
COMMENT ON COLUMN rounds.accuracy IS 'Share of correct responses of the round''s batch, before its updates.';
COMMENT ON COLUMN rounds.reward_mean IS 'Mean reward used, over the admitted responses.';
COMMENT ON COLUMN rounds.loss IS 'Mean over the round''s updates, each before its step.';
COMMENT ON COLUMN rounds.residual_mean IS 'Bellman residual in nats, over the members of the round''s updates.';
COMMENT ON COLUMN rounds.log_ratio_mean IS 'log pi - log pi_ref in nats, over the members of the round''s updates.';
COMMENT ON COLUMN rounds.root_value_gap_mean IS 'V(s1) - V_ref(s1) in nats, over the members of the round''s updates.';
COMMENT ON COLUMN rounds.grad_norm IS 'Mean global norm before clipping.';
COMMENT ON COLUMN rounds.staleness_mean IS 'Rounds since sampling, over the members of the round''s updates.';
COMMENT ON COLUMN rounds.uses_mean IS 'Uses so far, along the chain, of the trajectories that the round''s updates drew.';
COMMENT ON COLUMN rounds.seconds_generate IS 'Wall seconds of whoever executed the stage.';
COMMENT ON COLUMN rounds.seconds_score IS 'Wall seconds, scoring the window again after a reference reset included.';
COMMENT ON COLUMN rounds.finished_at IS 'UTC; when learning was committed or linked.';
