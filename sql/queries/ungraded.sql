-- Which answers could the verifier not grade, and why?
-- Timeouts, errors and rejected input over all runs, most frequent reason first, with one example each.
SELECT
    status,
    tier,
    details,
    count(*) AS responses,
    max(seconds) AS seconds_most,
    any_value(answer) AS example_answer,
    any_value(trajectory_id) AS example_trajectory_id
FROM verdicts
WHERE status IN ('timeout', 'error', 'rejected')
GROUP BY status, tier, details
ORDER BY responses DESC, status, tier, details;
