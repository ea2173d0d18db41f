-- Appending and reading sampled responses. "part" is an Arrow table registered by reval_core.store.trajectories.

-- name: add_batch
INSERT INTO store.batches (
    batch_id, purpose, policy_id, weights_checksum, tokenizer_id, round, generation, engine, sampling, prompt_count,
    trajectory_count, run_id, attempt, created_at
)
VALUES (
    $batch_id, $purpose, $policy_id, $weights_checksum, $tokenizer_id, $round, $generation, $engine, $sampling,
    $prompt_count, $trajectory_count, $run_id, $attempt, $created_at
)
ON CONFLICT DO NOTHING;

-- name: add_prompts
INSERT INTO store.prompts BY NAME
SELECT DISTINCT ON (prompt_id) prompt_id, prompt_ids AS token_ids, prompt_text AS text
FROM part
ON CONFLICT DO NOTHING;

-- name: add_payloads
-- Payloads have no primary key: what is already there is left out by an anti-join on the narrow table, so this
-- statement comes before add_trajectories.
INSERT INTO store.payloads BY NAME
SELECT part.trajectory_id, part.response_ids, part.completion
FROM part
ANTI JOIN store.trajectories AS known ON known.trajectory_id = part.trajectory_id;

-- name: add_trajectories
INSERT INTO store.trajectories BY NAME
SELECT
    trajectory_id,
    $batch_id AS batch_id,
    problem_id,
    prompt_id,
    sample_index,
    len(prompt_ids) AS prompt_tokens,
    len(response_ids) AS response_tokens,
    finish_reason,
    behaviour_logprob,
    seed,
    $run_id AS run_id,
    $attempt AS attempt,
    $created_at AS created_at
FROM part
ON CONFLICT DO NOTHING;

-- name: row_group_bytes
-- About how many bytes of payloads a full row group (122,880 rows) holds: four for the id of a token, four for its text.
SELECT coalesce(sum(response_tokens) * 8 * least(1, 122880 / count(*)), 0) AS bytes FROM store.trajectories;

-- name: stored_samples
SELECT problem_id, sample_index FROM store.trajectories WHERE batch_id = $batch_id;

-- name: batch_rows
-- The responses of a batch in their canonical order, with what verification and admission need.
SELECT t.trajectory_id, t.problem_id, t.sample_index, t.response_tokens, t.finish_reason
FROM store.trajectories AS t
WHERE t.batch_id = $batch_id
ORDER BY t.problem_id, t.sample_index;

-- name: completions
SELECT t.trajectory_id, p.completion
FROM store.trajectories AS t
JOIN store.payloads AS p USING (trajectory_id)
WHERE t.batch_id = $batch_id;

-- name: tokens
-- Token ids of the trajectories named in "wanted" (an Arrow table with a column trajectory_id, each once).
SELECT t.trajectory_id, t.batch_id, t.problem_id, q.token_ids AS prompt_ids, p.response_ids, t.finish_reason
FROM wanted
JOIN store.trajectories AS t USING (trajectory_id)
JOIN store.payloads AS p USING (trajectory_id)
JOIN store.prompts AS q ON q.prompt_id = t.prompt_id;

-- name: archived_tokens
-- The same of payloads that were read from archives: "archived" (trajectory_id, response_ids).
SELECT t.trajectory_id, q.token_ids AS prompt_ids, a.response_ids, t.finish_reason
FROM archived AS a
JOIN store.trajectories AS t USING (trajectory_id)
JOIN store.prompts AS q ON q.prompt_id = t.prompt_id;

-- name: add_verifier
INSERT INTO store.verifiers (verifier_id, name, version, settings, recorded_at)
VALUES ($verifier_id, $name, $version, $settings, $recorded_at)
ON CONFLICT DO NOTHING;

-- name: add_verdicts
-- A verdict stands for ever; that none could be found does not.
INSERT INTO store.verdicts BY NAME
SELECT
    trajectory_id, gold_digest, $verifier_id AS verifier_id, status, reward, answer, tier, seconds, details,
    $graded_at AS graded_at
FROM part
ON CONFLICT DO UPDATE
SET status = excluded.status, reward = excluded.reward, answer = excluded.answer, tier = excluded.tier,
    seconds = excluded.seconds, details = excluded.details, graded_at = excluded.graded_at
WHERE verdicts.status IN ('timeout', 'error');

-- name: batch_verdicts
-- "golds_used" is an Arrow table (problem_id, gold_digest).
SELECT t.trajectory_id, t.problem_id, t.sample_index, t.finish_reason, v.gold_digest, v.status, v.reward, v.answer
FROM store.trajectories AS t
JOIN golds_used AS g ON g.problem_id = t.problem_id
JOIN store.verdicts AS v
  ON v.trajectory_id = t.trajectory_id AND v.gold_digest = g.gold_digest AND v.verifier_id = $verifier_id
WHERE t.batch_id = $batch_id
ORDER BY t.problem_id, t.sample_index;

-- name: about
-- What the trajectories named in "wanted" are: what an offline run is refused or graded by.
SELECT t.trajectory_id, t.problem_id, t.batch_id, t.sample_index, t.finish_reason, b.tokenizer_id, b.purpose
FROM wanted
JOIN store.trajectories AS t USING (trajectory_id)
JOIN store.batches AS b USING (batch_id)
ORDER BY t.trajectory_id;

-- name: known_verdicts
-- Of the trajectories of "wanted" (trajectory_id, gold_digest), those that one verifier has graded against that answer.
SELECT w.trajectory_id, v.status, v.reward, v.answer
FROM wanted AS w
JOIN store.verdicts AS v
  ON v.trajectory_id = w.trajectory_id AND v.gold_digest = w.gold_digest AND v.verifier_id = $verifier_id;

-- name: last_statuses
SELECT w.trajectory_id, arg_max(v.status, v.graded_at) AS status
FROM wanted AS w
JOIN store.verdicts AS v ON v.trajectory_id = w.trajectory_id AND v.gold_digest = w.gold_digest
GROUP BY w.trajectory_id;

-- name: changed_verdicts_of
-- Of the trajectories of "wanted" (trajectory_id, gold_digest): what one verifier says now, and what was said last before.
SELECT w.trajectory_id, b.status AS status_before, v.status, b.answer AS answer_before, v.answer, v.details
FROM wanted AS w
JOIN store.verdicts AS v
  ON v.trajectory_id = w.trajectory_id AND v.gold_digest = w.gold_digest AND v.verifier_id = $verifier_id
JOIN (
    SELECT trajectory_id, gold_digest, arg_max(status, graded_at) AS status, arg_max(answer, graded_at) AS answer
    FROM store.verdicts
    WHERE verifier_id <> $verifier_id
    GROUP BY trajectory_id, gold_digest
) AS b ON b.trajectory_id = w.trajectory_id AND b.gold_digest = w.gold_digest
ORDER BY w.trajectory_id;

-- name: completions_of
SELECT p.trajectory_id, p.completion FROM wanted JOIN store.payloads AS p USING (trajectory_id);

-- name: add_reference_scores
INSERT INTO store.reference_scores BY NAME
SELECT trajectory_id, $reference_policy_id AS reference_policy_id, $scoring_id AS scoring_id, logprob, root_value
FROM part
ON CONFLICT DO NOTHING;

-- name: reference_scores
SELECT s.trajectory_id, s.logprob, s.root_value
FROM wanted
JOIN store.reference_scores AS s USING (trajectory_id)
WHERE s.reference_policy_id = $reference_policy_id AND s.scoring_id = $scoring_id;
