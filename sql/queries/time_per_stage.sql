-- Where did a run's time go?
-- $run: a run_id, by default the run that was active last. Seconds of the stages that this run executed itself.
SELECT
    stage,
    count(*) FILTER (executed) AS executed,
    count(*) FILTER (NOT executed) AS found_done,
    sum(seconds) FILTER (executed) AS seconds,
    avg(seconds) FILTER (executed) AS seconds_mean,
    max(seconds) FILTER (executed) AS seconds_most,
    sum(seconds) FILTER (executed) / sum(sum(seconds) FILTER (executed)) OVER () AS share
FROM stages
WHERE run_id = coalesce($run, newest_run())
GROUP BY stage
ORDER BY seconds DESC NULLS LAST, stage;
