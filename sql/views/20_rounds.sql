-- A row is one finished round of a run: an iteration whose learning is committed. A fork shows the rounds of its
-- ancestors before the fork as well; owner_run_id says whose they are. Only stages and updates are read, so a round costs
-- the same however many trajectories there are.
-- Units: tokens are response tokens, residuals and log-ratios in nats, seconds of wall time, shares from 0 to 1.
CREATE OR REPLACE VIEW rounds AS
WITH pivoted AS (
    SELECT
        run_id,
        iteration,
        any_value(owner_run_id) AS owner_run_id,
        any_value(output) FILTER (stage = 'generate') AS generated,
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
        p.*,
        p.learned ->> 'policy_id' AS policy_id,
        (p.learned ->> 'updates')::INTEGER AS updates,
        (p.generated ->> 'trajectories')::INTEGER AS trajectories,
        (p.generated ->> 'tokens')::BIGINT AS tokens_generated,
        (p.generated ->> 'truncated')::INTEGER AS truncated,
        (g.output -> 'statuses')::MAP(VARCHAR, INTEGER) AS statuses,
        list_sum(map_values((g.output -> 'statuses')::MAP(VARCHAR, INTEGER))) AS graded
    FROM pivoted AS p
    LEFT JOIN store.chain_gradings AS g ON g.run_id = p.run_id AND g.iteration = p.iteration
)
SELECT
    f.run_id,
    r.name AS run_name,
    f.owner_run_id,
    f.iteration,
    f.policy_id,
    coalesce(f.generated ->> 'policy_id', m.parent_policy_id) AS parent_policy_id,
    f.learned ->> 'reference_policy_id' AS reference_policy_id,
    f.generated ->> 'batch_id' AS batch_id,
    f.trajectories,
    f.tokens_generated,
    (f.persisted ->> 'accuracy')::DOUBLE AS accuracy,
    (f.persisted ->> 'reward')::DOUBLE AS reward_mean,
    u.loss,
    u.residual_mean,
    u.residual_std,
    u.log_ratio_mean,
    u.root_value_gap_mean,
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
    -- rounds of an offline run are none of those in which its trajectories were sampled
    CASE WHEN f.generated IS NOT NULL THEN f.iteration - u.generated_round_mean END AS staleness_mean,
    u.uses_mean,
    f.seconds_generate,
    f.seconds_verify,
    f.seconds_score,
    f.seconds_persist,
    f.seconds_learn,
    f.finished_at
FROM figures AS f
JOIN store.runs AS r ON r.run_id = f.run_id
LEFT JOIN store.policies AS m ON m.policy_id = f.policy_id
-- a round without updates keeps its parent's policy, whose updates are not its own
LEFT JOIN store.policy_updates AS u ON u.policy_id = f.policy_id AND f.updates > 0;

COMMENT ON VIEW rounds IS 'One row per finished round of a run, its ancestors'' rounds before the fork included.';
COMMENT ON COLUMN rounds.run_id IS 'The run.';
COMMENT ON COLUMN rounds.run_name IS 'Its name.';
COMMENT ON COLUMN rounds.owner_run_id IS 'The run whose round it is: this one, or an ancestor before the fork.';
COMMENT ON COLUMN rounds.iteration IS 'Round, from 0.';
COMMENT ON COLUMN rounds.policy_id IS 'The policy that the round gave.';
COMMENT ON COLUMN rounds.parent_policy_id IS 'The policy that the round started from and sampled with.';
COMMENT ON COLUMN rounds.reference_policy_id IS 'The reference of its objective; NULL where it has none.';
COMMENT ON COLUMN rounds.batch_id IS 'The batch that it sampled.';
COMMENT ON COLUMN rounds.trajectories IS 'Responses sampled for the round.';
COMMENT ON COLUMN rounds.tokens_generated IS 'Response tokens sampled for the round, whichever run paid for them.';
COMMENT ON COLUMN rounds.accuracy IS 'Share of correct responses of the round''s batch, before its updates; in an offline run, of what it admitted, which tells nothing of its policy.';
COMMENT ON COLUMN rounds.reward_mean IS 'Mean reward used, over the admitted responses.';
COMMENT ON COLUMN rounds.loss IS 'Mean over the round''s updates, each before its step; in squared nats for the residual objectives.';
COMMENT ON COLUMN rounds.residual_mean IS 'Mean Bellman residual in nats, over the members of the round''s updates.';
COMMENT ON COLUMN rounds.residual_std IS 'Population standard deviation of it, pooled over the members of the round''s updates.';
COMMENT ON COLUMN rounds.log_ratio_mean IS 'Mean log pi - log pi_ref in nats, over the members of the round''s updates.';
COMMENT ON COLUMN rounds.root_value_gap_mean IS 'Mean V(s1) - V_ref(s1) in nats, over the members of the round''s updates.';
COMMENT ON COLUMN rounds.grad_norm IS 'Mean global norm before clipping.';
COMMENT ON COLUMN rounds.updates IS 'Optimizer steps of the round.';
COMMENT ON COLUMN rounds.skipped_updates IS 'Those of them that were not finite and changed nothing.';
COMMENT ON COLUMN rounds.response_tokens_mean IS 'Mean tokens of a response of the round''s batch.';
COMMENT ON COLUMN rounds.truncated_share IS 'Share of the batch that was cut.';
COMMENT ON COLUMN rounds.correct_share IS 'Share of the batch with this verdict, by the grading that was admitted.';
COMMENT ON COLUMN rounds.incorrect_share IS 'Share of the batch with this verdict.';
COMMENT ON COLUMN rounds.no_answer_share IS 'Share of the batch in which no answer was found.';
COMMENT ON COLUMN rounds.timeout_share IS 'Share of the batch whose grading took too long.';
COMMENT ON COLUMN rounds.error_share IS 'Share of the batch whose grading failed.';
COMMENT ON COLUMN rounds.rejected_share IS 'Share of the batch whose answer broke a static limit and was not graded.';
COMMENT ON COLUMN rounds.staleness_mean IS 'Mean rounds since sampling, over the members of the round''s updates.';
COMMENT ON COLUMN rounds.uses_mean IS 'Mean uses so far of a member when it was drawn, that one included, along the policy''s lineage.';
COMMENT ON COLUMN rounds.seconds_generate IS 'Wall seconds of whoever executed the stage.';
COMMENT ON COLUMN rounds.seconds_verify IS 'Wall seconds of whoever executed the stage, gradings that were superseded included.';
COMMENT ON COLUMN rounds.seconds_score IS 'Wall seconds, scoring the window again after a reference reset included.';
COMMENT ON COLUMN rounds.seconds_persist IS 'Wall seconds of whoever executed the stage.';
COMMENT ON COLUMN rounds.seconds_learn IS 'Wall seconds of whoever executed the stage.';
COMMENT ON COLUMN rounds.finished_at IS 'UTC; when learning was committed or linked.';
