-- What the pages of `reval browse` read. Statements over many trajectories touch narrow tables only, never payloads: one that
-- takes too long is asked of the snapshot, which need not have them.

-- name: listed
-- A page of trajectories behind a row ($key, $after). A run's are the batches that its chain sampled, its evaluations and what it
-- admitted; the verdict is the newest by the verifier of the run that is asked for, else of the run that sampled.
WITH of_run AS (
    SELECT output ->> 'batch_id' AS batch_id
    FROM store.chain_stages
    WHERE run_id = $run AND stage = 'generate'
    UNION
    SELECT e.batch_id
    FROM store.stage_links AS l
    JOIN store.stages AS s USING (stage_key)
    JOIN store.evaluations AS e ON e.evaluation_id = s.output ->> 'evaluation_id'
    WHERE l.stage = 'evaluate' AND (
        l.run_id = $run
        OR l.run_id IN (
            SELECT c.owner_run_id
            FROM store.run_chain AS c
            WHERE c.run_id = $run AND store.on_chain(l.iteration, c.first_iteration, c.until_iteration)
        )
    )
),
found AS (
    SELECT
        t.trajectory_id,
        t.run_id,
        CASE $sort
            WHEN 'newest' THEN -epoch_us(t.created_at)
            WHEN 'oldest' THEN epoch_us(t.created_at)
            WHEN 'longest' THEN -t.response_tokens
            ELSE t.response_tokens
        END::DOUBLE AS key
    FROM store.trajectories AS t
    JOIN store.batches AS b USING (batch_id)
    WHERE (
            $run IS NULL
            OR t.batch_id IN (SELECT batch_id FROM of_run)
            OR t.trajectory_id IN (SELECT trajectory_id FROM store.chain_entries WHERE run_id = $run)
        )
        AND ($purpose IS NULL OR b.purpose = $purpose)
        AND ($policy IS NULL OR starts_with(b.policy_id, $policy))
        AND (($first IS NULL AND $last IS NULL) OR b.purpose = 'training')
        AND b.round BETWEEN coalesce($first, b.round) AND coalesce($last, b.round)
        AND t.response_tokens BETWEEN coalesce($least, 0) AND coalesce($most, 2147483647)
        AND ($problem IS NULL OR t.problem_id IN (
            SELECT problem_id
            FROM store.problems
            WHERE starts_with(problem_id, $problem) OR contains(lower(question), lower($problem))
        ))
),
judged AS (
    SELECT v.trajectory_id
    FROM store.verdicts AS v
    JOIN found AS t USING (trajectory_id)
    LEFT JOIN store.runs AS r ON r.run_id = coalesce($run, t.run_id)
    GROUP BY v.trajectory_id
    HAVING $status = 'ungraded'
        OR arg_max(v.status, (v.verifier_id IS NOT DISTINCT FROM r.verifier_id, v.graded_at, v.verifier_id, v.gold_digest)) = $status
),
wanted AS (
    SELECT trajectory_id, key
    FROM found
    WHERE $status IS NULL OR (trajectory_id IN (SELECT trajectory_id FROM judged)) = ($status <> 'ungraded')
),
page AS (
    SELECT *
    FROM wanted
    WHERE $after IS NULL OR key > $key OR (key = $key AND trajectory_id > $after)
    ORDER BY key, trajectory_id
    LIMIT $size
)
SELECT
    p.key, t.trajectory_id, t.problem_id, t.run_id, t.sample_index, t.response_tokens, t.finish_reason, b.purpose, b.policy_id,
    b.round, q.question, v.status, v.answer, v.reward,
    (SELECT count(*) FROM wanted) AS matches
FROM page AS p
JOIN store.trajectories AS t USING (trajectory_id)
JOIN store.batches AS b USING (batch_id)
LEFT JOIN store.problems AS q ON q.problem_id = t.problem_id
LEFT JOIN (
    SELECT v.*
    FROM store.verdicts AS v
    JOIN page AS p USING (trajectory_id)
    JOIN store.trajectories AS t USING (trajectory_id)
    LEFT JOIN store.runs AS r ON r.run_id = coalesce($run, t.run_id)
    QUALIFY row_number() OVER (
        PARTITION BY v.trajectory_id
        ORDER BY v.verifier_id IS NOT DISTINCT FROM r.verifier_id DESC, v.graded_at DESC, v.verifier_id DESC, v.gold_digest DESC
    ) = 1
) AS v ON v.trajectory_id = p.trajectory_id
ORDER BY p.key, p.trajectory_id;

-- name: runs
SELECT
    r.run_id, r.run_name, r.parent_run_id, r.fork_iteration, r.status, r.rounds_done, r.trajectories, r.tokens_generated,
    r.last_active_at, a.accuracy
FROM runs AS r
LEFT JOIN (
    -- of what a run's policy said: an offline run has no batches
    SELECT run_id, arg_max(accuracy, iteration) AS accuracy FROM rounds WHERE batch_id IS NOT NULL GROUP BY run_id
) AS a USING (run_id)
ORDER BY r.last_active_at DESC NULLS LAST, r.run_id;

-- name: run_names
SELECT run_id FROM store.runs ORDER BY created_at DESC, run_id;

-- name: trajectory
-- One trajectory with what stands beside it, its text where that is in the database.
SELECT
    t.trajectory_id, t.batch_id, t.problem_id, t.run_id, t.sample_index, t.prompt_tokens, t.response_tokens, t.finish_reason,
    t.behaviour_logprob, t.seed, t.created_at,
    b.purpose, CASE WHEN b.purpose = 'training' THEN b.round END AS iteration, b.policy_id, b.engine, b.sampling, b.tokenizer_id,
    p.question, s.source, s.external_id, g.gold,
    q.text AS prompt,
    r.config, r.verifier_id, r.base_policy_id,
    y.completion, coalesce(z.place, 'stored') AS payload
FROM store.trajectories AS t
JOIN store.batches AS b USING (batch_id)
LEFT JOIN store.problems AS p USING (problem_id)
LEFT JOIN store.told_sources AS s USING (problem_id)
LEFT JOIN store.current_golds AS g USING (problem_id)
LEFT JOIN store.prompts AS q USING (prompt_id)
LEFT JOIN store.runs AS r ON r.run_id = t.run_id
LEFT JOIN store.payloads AS y USING (trajectory_id)
LEFT JOIN store.payload_places AS z USING (trajectory_id)
WHERE t.trajectory_id = $trajectory;

-- name: verdicts
-- All verdicts of a trajectory: first the newest by the verifier of the run that sampled it.
SELECT
    v.verifier_id, w.name AS verifier, w.version, g.gold, v.answer, v.status, v.reward, v.tier, v.details, v.seconds, v.graded_at
FROM store.verdicts AS v
JOIN store.trajectories AS t USING (trajectory_id)
LEFT JOIN store.runs AS r ON r.run_id = t.run_id
LEFT JOIN store.golds AS g ON g.problem_id = t.problem_id AND g.gold_digest = v.gold_digest
LEFT JOIN store.verifiers AS w ON w.verifier_id = v.verifier_id
WHERE v.trajectory_id = $trajectory
ORDER BY v.verifier_id IS NOT DISTINCT FROM r.verifier_id DESC, v.graded_at DESC, v.verifier_id DESC, v.gold_digest DESC;

-- name: admissions
SELECT run_id, iteration, position, reward_used, verifier_id
FROM store.replay_entries
WHERE trajectory_id = $trajectory
ORDER BY run_id, iteration;

-- name: uses
-- Rounds of an offline run are none of those in which something was sampled, so they give no staleness.
SELECT
    l.run_id, l.iteration, m.update_index, u.kind,
    CASE WHEN (r.config ->> '$.offline') IS NULL THEN l.iteration - $iteration END AS staleness,
    m.reward, m.weight, m.residual, m.log_ratio, m.root_value_gap, m.policy_id
FROM store.update_trajectories AS m
JOIN store.updates AS u USING (policy_id, update_index)
LEFT JOIN store.policy_rounds AS l USING (policy_id)
LEFT JOIN store.runs AS r ON r.run_id = l.run_id
WHERE m.trajectory_id = $trajectory
ORDER BY l.run_id, l.iteration, m.update_index
LIMIT 200;

-- name: policy
SELECT policy_id, kind, run_id, iteration, parent_policy_id, reference_policy_id, updates_done, folder
FROM policies
WHERE policy_id = $policy;

-- name: saved_policies
-- Those that the tokens of a trajectory mean the same to: of the run first, the newest first.
SELECT p.policy_id, p.kind, p.run_id, p.iteration, p.updates_done, p.folder, p.reference_policy_id
FROM policies AS p
WHERE p.folder IS NOT NULL AND p.tokenizer_id = $tokenizer AND p.kind <> 'foreign'
ORDER BY
    p.policy_id IN (SELECT policy_id FROM store.chain_policies WHERE run_id = $run) DESC,
    p.kind = 'learned' DESC, p.created_at DESC, p.policy_id
LIMIT 100;

-- name: tokenizer
SELECT b.tokenizer_id
FROM store.trajectories AS t
JOIN store.batches AS b USING (batch_id)
WHERE t.trajectory_id = $trajectory;

-- name: problems
-- Problems that several policies answered: those with a text, or a beginning of the id; all where none is given.
SELECT p.problem_id, p.question, count(DISTINCT b.policy_id) AS policies, count(*) AS responses
FROM store.problems AS p
JOIN store.trajectories AS t USING (problem_id)
JOIN store.batches AS b USING (batch_id)
WHERE $problem IS NULL OR starts_with(p.problem_id, $problem) OR contains(lower(p.question), lower($problem))
GROUP BY p.problem_id, p.question
ORDER BY policies DESC, responses DESC, p.problem_id
LIMIT 50;

-- name: problem
SELECT p.problem_id, p.question, g.gold
FROM store.problems AS p
LEFT JOIN store.current_golds AS g USING (problem_id)
WHERE p.problem_id = $problem;

-- name: policies_on
-- The policies that answered a problem, newest first.
SELECT
    b.policy_id, l.run_id, l.iteration, p.kind, count(*) AS responses, count(*) FILTER (v.correct) AS correct,
    string_agg(DISTINCT b.purpose, ', ' ORDER BY b.purpose) AS purposes
FROM store.trajectories AS t
JOIN store.batches AS b USING (batch_id)
LEFT JOIN store.policies AS p USING (policy_id)
LEFT JOIN store.policy_rounds AS l USING (policy_id)
LEFT JOIN (
    SELECT v.trajectory_id, arg_max(v.status, (v.verifier_id IS NOT DISTINCT FROM r.verifier_id, v.graded_at)) = 'correct' AS correct
    FROM store.verdicts AS v
    JOIN store.trajectories AS t USING (trajectory_id)
    LEFT JOIN store.runs AS r ON r.run_id = t.run_id
    WHERE t.problem_id = $problem
    GROUP BY v.trajectory_id
) AS v USING (trajectory_id)
WHERE t.problem_id = $problem
GROUP BY b.policy_id, l.run_id, l.iteration, p.kind
ORDER BY max(b.created_at) DESC, b.policy_id;

-- name: responses
-- What a policy answered to a problem, with the text where it is in the database.
WITH wanted AS (
    SELECT t.trajectory_id, t.run_id, t.sample_index, t.response_tokens, t.finish_reason, b.purpose, b.round
    FROM store.trajectories AS t
    JOIN store.batches AS b USING (batch_id)
    WHERE t.problem_id = $problem AND b.policy_id = $policy
    ORDER BY b.purpose, b.round, t.batch_id, t.sample_index
    LIMIT $size
)
SELECT w.*, v.status, v.answer, v.details, y.completion
FROM wanted AS w
LEFT JOIN store.payloads AS y USING (trajectory_id)
LEFT JOIN (
    SELECT v.*
    FROM store.verdicts AS v
    JOIN wanted AS w USING (trajectory_id)
    LEFT JOIN store.runs AS r ON r.run_id = w.run_id
    QUALIFY row_number() OVER (
        PARTITION BY v.trajectory_id
        ORDER BY v.verifier_id IS NOT DISTINCT FROM r.verifier_id DESC, v.graded_at DESC, v.verifier_id DESC, v.gold_digest DESC
    ) = 1
) AS v USING (trajectory_id)
ORDER BY w.purpose, w.round, w.sample_index;
