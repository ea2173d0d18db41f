-- Responses on their way out of the store and back. "chosen" and "wanted" are Arrow tables made by
-- reval_core.store.exchange.selection; "part" holds rows of an exported file (reval_core.store.exchange.columns).

-- name: places
-- Where the chosen responses lie, about how many bytes each will be, and in which order they are exported: within a round as
-- they were stored, so that a slice is a piece of the table.
SELECT
    c.run_id,
    c.iteration,
    c.trajectory_id,
    c.gold,
    c.status,
    c.reward,
    c.answer,
    c.reward_used,
    y.rowid AS payload,
    y.rowid IS NOT NULL OR z.archive_id IS NOT NULL AS kept,
    $bytes_a_row + $bytes_a_token * (t.prompt_tokens + t.response_tokens) + coalesce(s.size, 0) AS size
FROM chosen AS c
JOIN store.trajectories AS t USING (trajectory_id)
LEFT JOIN store.payloads AS y USING (trajectory_id)
LEFT JOIN store.archived_payloads AS z USING (trajectory_id)
LEFT JOIN (
    SELECT problem_id, sum(strlen(metadata::VARCHAR))::BIGINT AS size FROM store.problem_sources GROUP BY problem_id
) AS s USING (problem_id)
ORDER BY c.run_id NULLS LAST, c.iteration NULLS LAST, payload;

-- name: responses
-- All that is known of the responses at some places, groups together. Payloads are found by their row: by id the whole table
-- would be read for every slice. "archived" has those that lie in files beside the database.
WITH graded AS (
    SELECT
        v.trajectory_id,
        list(
            {
                verifier_id: v.verifier_id,
                verifier: f.name,
                verifier_version: f.version,
                verifier_settings: f.settings::VARCHAR,
                gold_digest: v.gold_digest,
                status: v.status,
                reward: v.reward,
                answer: v.answer,
                tier: v.tier,
                seconds: v.seconds,
                details: v.details,
                graded_at: v.graded_at
            }
            ORDER BY v.graded_at, v.verifier_id, v.gold_digest
        ) AS verdicts
    FROM wanted
    JOIN store.verdicts AS v USING (trajectory_id)
    LEFT JOIN store.verifiers AS f USING (verifier_id)
    GROUP BY v.trajectory_id
),
scored AS (
    SELECT
        r.trajectory_id,
        list(
            {
                reference_policy_id: r.reference_policy_id,
                scoring_id: r.scoring_id,
                logprob: r.logprob,
                root_value: r.root_value
            }
            ORDER BY r.reference_policy_id, r.scoring_id
        ) AS reference_scores
    FROM wanted
    JOIN store.reference_scores AS r USING (trajectory_id)
    GROUP BY r.trajectory_id
),
asked AS (
    SELECT DISTINCT t.problem_id
    FROM wanted
    JOIN store.trajectories AS t USING (trajectory_id)
),
answered AS (
    SELECT
        g.problem_id,
        list(
            {
                gold_digest: g.gold_digest,
                gold: g.gold,
                recorded_at: g.recorded_at,
                counts_since: g.counts_since
            }
            ORDER BY g.counts_since, g.gold_digest
        ) AS golds
    FROM store.golds AS g
    SEMI JOIN asked USING (problem_id)
    GROUP BY g.problem_id
),
read_in AS (
    SELECT
        s.problem_id,
        list(
            {
                source: s.source,
                external_id: s.external_id,
                metadata: s.metadata::VARCHAR,
                recorded_at: s.recorded_at
            }
            ORDER BY s.recorded_at, s.source, s.external_id
        ) AS sources
    FROM store.problem_sources AS s
    SEMI JOIN asked USING (problem_id)
    GROUP BY s.problem_id
)
SELECT
    w.run_id,
    w.iteration,
    t.trajectory_id,
    t.batch_id,
    t.problem_id,
    t.prompt_id,
    t.sample_index,
    b.purpose,
    b.policy_id,
    b.weights_checksum,
    b.tokenizer_id,
    b.engine,
    b.sampling::VARCHAR AS sampling,
    b.round,
    b.generation,
    b.prompt_count,
    b.trajectory_count,
    p.question,
    p.messages::STRUCT(role VARCHAR, content VARCHAR)[] AS messages,
    w.gold,
    q.text AS prompt,
    q.token_ids AS prompt_ids,
    coalesce(y.response_ids, a.response_ids) AS response_ids,
    coalesce(y.completion, a.completion) AS completion,
    t.finish_reason,
    t.finish_reason <> 'stop' AS truncated,
    t.prompt_tokens,
    t.response_tokens,
    t.seed,
    t.behaviour_logprob,
    w.status,
    w.status = 'correct' AS correct,
    w.reward,
    w.answer,
    w.reward_used,
    coalesce(v.verdicts, []) AS verdicts,
    coalesce(r.reference_scores, []) AS reference_scores,
    coalesce(g.golds, []) AS golds,
    coalesce(s.sources, []) AS sources,
    {
        run_id: t.run_id,
        attempt: t.attempt,
        created_at: t.created_at,
        batch_run_id: b.run_id,
        batch_attempt: b.attempt,
        batch_created_at: b.created_at,
        problem_recorded_at: p.recorded_at
    } AS provenance
FROM wanted AS w
JOIN store.trajectories AS t ON t.trajectory_id = w.trajectory_id
LEFT JOIN store.payloads AS y ON y.rowid = w.payload AND y.trajectory_id = w.trajectory_id
LEFT JOIN archived AS a ON a.trajectory_id = w.trajectory_id
JOIN store.batches AS b ON b.batch_id = t.batch_id
JOIN store.prompts AS q ON q.prompt_id = t.prompt_id
LEFT JOIN store.problems AS p ON p.problem_id = t.problem_id
LEFT JOIN graded AS v ON v.trajectory_id = t.trajectory_id
LEFT JOIN scored AS r ON r.trajectory_id = t.trajectory_id
LEFT JOIN answered AS g ON g.problem_id = t.problem_id
LEFT JOIN read_in AS s ON s.problem_id = t.problem_id
WHERE y.trajectory_id IS NOT NULL OR a.trajectory_id IS NOT NULL
ORDER BY w.run_id NULLS LAST, w.iteration NULLS LAST, t.batch_id, t.problem_id, t.sample_index;

-- name: origins
-- Who sampled the chosen responses: a run with its base model, or a model of another system.
SELECT
    b.purpose,
    c.run_id,
    coalesce(r.config ->> '$.model.path', p.settings ->> '$.model') AS model,
    p.settings ->> '$.source' AS source,
    count(*) AS responses,
    count(DISTINCT t.problem_id) AS problems,
    count(DISTINCT c.iteration) AS rounds,
    avg((c.status = 'correct')::INTEGER) AS correct_share,
    avg(t.response_tokens) AS response_tokens_mean
FROM chosen AS c
JOIN store.trajectories AS t USING (trajectory_id)
JOIN store.batches AS b USING (batch_id)
LEFT JOIN store.runs AS r ON r.run_id = c.run_id
LEFT JOIN store.policies AS p ON p.policy_id = b.policy_id AND p.kind = 'foreign'
GROUP BY ALL
ORDER BY b.purpose DESC, c.run_id, model, source;

-- name: counts
-- How many rows of "part" the store has already, and how many of these with another response. Payloads are found by their
-- row, as in "responses".
WITH known AS MATERIALIZED (
    SELECT part.trajectory_id, part.response_ids, y.rowid AS payload
    FROM part
    JOIN store.trajectories AS t USING (trajectory_id)
    LEFT JOIN store.payloads AS y USING (trajectory_id)
)
SELECT
    (SELECT count(*) FROM known) AS known,
    (
        SELECT count(*)
        FROM known AS k
        JOIN store.payloads AS y ON y.rowid = k.payload
        WHERE y.response_ids <> k.response_ids
    ) AS differing;

-- name: add_problems
INSERT INTO store.problems BY NAME
SELECT DISTINCT ON (problem_id)
    problem_id,
    to_json(messages) AS messages,
    coalesce(list_filter(messages, lambda m: m.role = 'user')[-1].content, '') AS question,
    provenance.problem_recorded_at AS recorded_at
FROM part
ON CONFLICT DO NOTHING;

-- name: add_sources
INSERT INTO store.problem_sources BY NAME
SELECT DISTINCT ON (problem_id, source, external_id) problem_id, source, external_id, metadata, recorded_at
FROM (SELECT problem_id, unnest(sources, recursive := true) FROM part)
ON CONFLICT DO NOTHING;

-- name: add_golds
-- Known versions stay as they are, so that an old file puts no mended answer back.
INSERT INTO store.golds BY NAME
SELECT DISTINCT ON (problem_id, gold_digest) problem_id, gold_digest, gold, recorded_at, counts_since
FROM (SELECT problem_id, unnest(golds, recursive := true) FROM part)
ON CONFLICT DO NOTHING;

-- name: add_batches
INSERT INTO store.batches BY NAME
SELECT DISTINCT ON (batch_id)
    batch_id,
    purpose,
    policy_id,
    weights_checksum,
    tokenizer_id,
    round,
    generation,
    engine,
    sampling,
    prompt_count,
    trajectory_count,
    provenance.batch_run_id AS run_id,
    provenance.batch_attempt AS attempt,
    provenance.batch_created_at AS created_at
FROM part
ON CONFLICT DO NOTHING;

-- name: add_foreign_policies
-- Of an imported batch all that is known of the policy stands in its sampling settings. Policies of runs are left out: their
-- lineage is not in the file.
INSERT INTO store.policies BY NAME
SELECT DISTINCT ON (policy_id)
    policy_id,
    'foreign' AS kind,
    json_object('model', sampling ->> '$.model', 'source', sampling ->> '$.source') AS settings,
    0 AS updates_done,
    'unknown' AS tokenizer_id,
    'unknown' AS weights_checksum,
    provenance.batch_created_at AS created_at
FROM part
WHERE purpose = 'imported'
ON CONFLICT DO NOTHING;

-- name: add_trajectories
INSERT INTO store.trajectories BY NAME
SELECT
    trajectory_id,
    batch_id,
    problem_id,
    prompt_id,
    sample_index,
    len(prompt_ids) AS prompt_tokens,
    len(response_ids) AS response_tokens,
    finish_reason,
    behaviour_logprob,
    seed,
    provenance.run_id AS run_id,
    provenance.attempt AS attempt,
    provenance.created_at AS created_at
FROM part
ON CONFLICT DO NOTHING;

-- name: add_verifiers
INSERT INTO store.verifiers BY NAME
SELECT
    verifier_id,
    any_value(verifier) AS name,
    any_value(verifier_version) AS version,
    any_value(verifier_settings) AS settings,
    min(graded_at) AS recorded_at
FROM (SELECT unnest(verdicts, recursive := true) FROM part)
WHERE verifier IS NOT NULL
GROUP BY verifier_id
ON CONFLICT DO NOTHING;

-- name: add_verdicts
-- A verdict stands for ever; that none could be found does not.
INSERT INTO store.verdicts BY NAME
SELECT
    trajectory_id, gold_digest, verifier_id, status, reward, answer, tier, seconds, details, graded_at
FROM (SELECT trajectory_id, unnest(verdicts, recursive := true) FROM part)
ON CONFLICT DO UPDATE
SET status = excluded.status, reward = excluded.reward, answer = excluded.answer, tier = excluded.tier,
    seconds = excluded.seconds, details = excluded.details, graded_at = excluded.graded_at
WHERE verdicts.status IN ('timeout', 'error') AND excluded.status NOT IN ('timeout', 'error');

-- name: add_reference_scores
INSERT INTO store.reference_scores BY NAME
SELECT trajectory_id, reference_policy_id, scoring_id, logprob, root_value
FROM (SELECT trajectory_id, unnest(reference_scores, recursive := true) FROM part)
ON CONFLICT DO NOTHING;

-- name: add_read_golds
-- Of a file of completions: a version that is new to the problem counts from now on, a known one stays as it is.
INSERT INTO store.golds BY NAME
SELECT DISTINCT ON (problem_id, gold_digest)
    problem_id, gold_digest, gold, $recorded_at AS recorded_at, $recorded_at AS counts_since
FROM part
ON CONFLICT DO NOTHING;
