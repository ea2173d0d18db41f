-- How do our policies stand beside the paper's Table 1?
-- avg@k in percent by benchmark, one row each: the published figures (arXiv 2603.23355, Table 1, avg@16, no intervals given, at
-- most 100 problems of each benchmark) and ours with 95 % intervals: of each run the last policy that was evaluated on one of
-- these benchmarks, and the base it began with.
WITH published (model, method, aime24, aime25, amc, math500, minerva, olympiadbench, gpqa) AS (
    VALUES
        ('DeepSeek-R1-Distill-Qwen-1.5B', 'base', 19.8, 20.0, 50.7, 76.3, 22.9, 37.5, 15.8),
        ('DeepSeek-R1-Distill-Qwen-1.5B', 'grpo', 29.4, 24.4, 65.0, 82.6, 27.6, 46.3, 28.8),
        ('DeepSeek-R1-Distill-Qwen-1.5B', 'tbrm', 26.9, 22.1, 65.1, 81.3, 28.8, 44.6, 27.3),
        ('DeepSeek-R1-Distill-Qwen-1.5B', 'reval', 32.1, 23.8, 68.6, 84.6, 30.3, 46.6, 33.3),
        ('Qwen2.5-Math-7B', 'base', 19.0, 6.9, 43.6, 60.1, 10.9, 26.3, 12.8),
        ('Qwen2.5-Math-7B', 'grpo', 34.8, 12.3, 59.4, 74.0, 30.8, 37.0, 20.4),
        ('Qwen2.5-Math-7B', 'tbrm', 30.8, 10.0, 58.3, 74.4, 27.3, 37.8, 19.9),
        ('Qwen2.5-Math-7B', 'reval', 34.0, 13.3, 60.2, 75.2, 30.7, 39.2, 24.8)
),
figures AS (
    UNPIVOT published ON aime24, aime25, amc, math500, minerva, olympiadbench, gpqa INTO NAME benchmark VALUE value
),
benchmarks AS (
    SELECT unnest(['aime24', 'aime25', 'amc', 'math500', 'minerva', 'olympiadbench', 'gpqa']) AS benchmark,
           generate_subscripts(['aime24', 'aime25', 'amc', 'math500', 'minerva', 'olympiadbench', 'gpqa'], 1) AS place
),
-- the newest evaluation of each policy on each benchmark, whichever run asked for it
evaluated AS (
    SELECT
        e.policy_id, b.benchmark, e.evaluation_id, e.value, e.low, e.high, e.samples_per_problem, e.problem_count,
        r.config
    FROM evaluations AS e
    JOIN benchmarks AS b ON b.benchmark = regexp_replace(e.benchmark, '@hub$', '')
    LEFT JOIN runs AS r USING (run_id)
    WHERE e.metric LIKE 'avg@%'
    QUALIFY row_number() OVER (
        PARTITION BY e.policy_id, b.benchmark ORDER BY e.created_at DESC, e.evaluation_id, r.created_at
    ) = 1
),
-- of each run the last policy that was evaluated on any of them
ours AS (
    SELECT
        v.*,
        p.kind,
        p.run_id,
        p.iteration + 1 AS rounds_learned,
        coalesce(r.config, v.config) AS own_config
    FROM evaluated AS v
    JOIN policies AS p USING (policy_id)
    LEFT JOIN runs AS r ON r.run_id = p.run_id AND p.kind = 'learned'
    QUALIFY p.kind <> 'learned' OR p.iteration = max(p.iteration) OVER (PARTITION BY p.run_id, p.kind)
),
rows AS (
    SELECT
        'published' AS source, model, method, benchmark, value::DOUBLE AS value, NULL::DOUBLE AS low, NULL::DOUBLE AS high,
        16 AS samples_per_problem, NULL::INTEGER AS problem_count, NULL AS run_id, NULL::INTEGER AS rounds_learned,
        NULL AS policy_id, NULL AS evaluation_id
    FROM figures
    UNION ALL
    SELECT
        'ours',
        regexp_replace(own_config ->> '$.model.path', '^.*/', ''),
        CASE WHEN kind = 'learned' THEN own_config ->> '$.objective.use' ELSE 'base' END,
        benchmark, 100 * value, 100 * low, 100 * high, samples_per_problem, problem_count,
        CASE WHEN kind = 'learned' THEN run_id END, rounds_learned, policy_id, evaluation_id
    FROM ours
)
SELECT rows.*
FROM rows
JOIN benchmarks USING (benchmark)
ORDER BY source DESC, model, run_id NULLS FIRST, list_position(['base', 'grpo', 'tbrm', 'reval'], method), policy_id, place;
