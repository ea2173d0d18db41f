-- Where did a run's time go, and how many tokens a second did its stages handle?
-- $run: a run_id, by default the training that was active last. Seconds and tokens of the stages that this run executed
-- itself: response tokens, sampled by generate, trained on by learn; NULL for the others.
SELECT
    s.stage,
    count(*) FILTER (s.executed) AS executed,
    count(*) FILTER (NOT s.executed) AS found_done,
    sum(s.seconds) FILTER (s.executed) AS seconds,
    avg(s.seconds) FILTER (s.executed) AS seconds_mean,
    max(s.seconds) FILTER (s.executed) AS seconds_most,
    sum(s.seconds) FILTER (s.executed) / sum(sum(s.seconds) FILTER (s.executed)) OVER () AS share,
    (sum(coalesce((s.output ->> 'tokens')::BIGINT, u.trained)) FILTER (s.executed))::BIGINT AS tokens,
    tokens / nullif(sum(s.seconds) FILTER (s.executed), 0) AS tokens_per_second
FROM stages AS s
LEFT JOIN (SELECT policy_id, sum(tokens)::BIGINT AS trained FROM updates GROUP BY policy_id) AS u
  ON s.stage = 'learn' AND u.policy_id = (s.output ->> 'policy_id') AND (s.output ->> 'updates')::INTEGER > 0
WHERE s.run_id = coalesce($run, newest_run())
GROUP BY s.stage
ORDER BY seconds DESC NULLS LAST, s.stage;
