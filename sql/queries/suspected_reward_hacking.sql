-- Which right answers look too good to be true: far too short, repeating themselves, or with several boxes?
-- $run: a run_id, by default the training that was active last. Short is a fifth of the problem's median response or less;
-- repeated is the share of words that stood in the text before (from 20 words on); read some before believing it.
WITH judged AS (
    SELECT
        *,
        median(response_tokens) OVER (PARTITION BY problem_id) AS tokens_median,
        regexp_extract_all(completion, '\S+') AS words,
        len(regexp_extract_all(completion, '\\boxed')) AS boxes
    FROM run_trajectories
    WHERE run_id = coalesce($run, newest_run()) AND status IS NOT NULL
),
measured AS (
    SELECT
        *,
        response_tokens <= tokens_median / 5 AS is_short,
        CASE WHEN len(words) >= 20 THEN 1 - len(list_distinct(words)) / len(words) ELSE 0 END AS repeated
    FROM judged
    WHERE correct
)
SELECT
    concat_ws(
        ', ',
        CASE WHEN is_short THEN 'short' END,
        CASE WHEN repeated > 0.7 THEN 'repeats' END,
        CASE WHEN boxes > 1 THEN 'many boxes' END
    ) AS suspicion,
    iteration,
    response_tokens,
    tokens_median,
    repeated,
    boxes,
    question,
    gold,
    answer,
    completion,
    trajectory_id
FROM measured
WHERE is_short OR repeated > 0.7 OR boxes > 1
ORDER BY is_short::INTEGER + (repeated > 0.7)::INTEGER + (boxes > 1)::INTEGER DESC, iteration DESC, trajectory_id;
