-- How do a run's policies do on the benchmarks, with 95 % intervals?
-- $run: a run_id, by default the training that was active last. rounds_learned = 0 is the base policy.
SELECT benchmark, metric, iteration + 1 AS rounds_learned, value, low, high, problem_count, policy_id
FROM evaluations
WHERE run_id = coalesce($run, newest_run())
ORDER BY benchmark, metric, rounds_learned;
