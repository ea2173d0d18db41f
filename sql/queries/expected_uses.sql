-- Was a round's batch used as often as uniform draws should use it?
-- $run: a run_id, by default the training that was active last. Expected: its updates on the fresh batch, and in each later
-- round drawn / pool for the part of the batch that the window still held. While the window fills (warm-up) the pool is
-- small and early batches are drawn more often; in the steady state a batch that has passed the window was used K times
-- (updates per round), which is what `steady_state` says. A batch that is still in the window has uses to come.
WITH run AS (
    SELECT
        run_id,
        -- an offline run draws from all that it admitted
        CASE
            WHEN (config ->> '$.offline') IS NULL
            THEN coalesce((config ->> '$.replay.capacity')::BIGINT, 9223372036854775807)
            ELSE 9223372036854775807
        END AS capacity,
        (config ->> '$.replay.unit') = 'rounds' AS in_rounds,
        coalesce((config ->> '$.replay.excludes_fresh')::BOOLEAN, false) AS excludes_fresh
    FROM runs
    WHERE run_id = coalesce($run, newest_run())
),
-- each batch; reach counts the entries up to it
batches AS (
    SELECT
        p.iteration,
        count(*) AS entries,
        avg(p.times_used) AS uses_mean,
        (sum(count(*)) OVER (ORDER BY p.iteration))::BIGINT AS reach,
        row_number() OVER (ORDER BY p.iteration) AS number
    FROM replay AS p
    JOIN run USING (run_id)
    GROUP BY p.iteration
),
-- the entries before the first one that the window of its round holds
admitted AS (
    SELECT
        b.*,
        CASE
            WHEN run.in_rounds
            THEN coalesce((SELECT o.reach FROM batches AS o WHERE o.number = b.number - run.capacity), 0)
            ELSE greatest(0, b.reach - run.capacity)
        END AS before_window
    FROM batches AS b
    CROSS JOIN run
),
drawn AS (
    SELECT
        r.iteration,
        count(*) FILTER (u.kind = 'fresh') AS fresh_updates,
        coalesce(sum(u.trajectories) FILTER (u.kind = 'replay'), 0) AS drawn,
        count(*) AS updates
    FROM rounds AS r
    JOIN run USING (run_id)
    JOIN updates AS u ON u.policy_id = r.policy_id
    WHERE r.updates > 0
    GROUP BY r.iteration
),
-- each round with its draws and its window; one that admitted nothing has the window of the last that did
windows AS (
    SELECT
        d.iteration,
        d.drawn,
        w.before_window,
        run.excludes_fresh AND w.iteration = d.iteration AS leaves_out_fresh,
        w.reach - w.before_window - CASE WHEN leaves_out_fresh THEN w.entries ELSE 0 END AS pool
    FROM drawn AS d
    ASOF JOIN admitted AS w ON w.iteration <= d.iteration
    CROSS JOIN run
),
-- each batch at its own and every later round: how much of it the window held, and how large the pool was
held AS (
    SELECT
        a.iteration,
        w.iteration AS at,
        greatest(0, a.reach - greatest(a.reach - a.entries, w.before_window)) AS entries_held,
        w.pool,
        w.leaves_out_fresh AND w.iteration = a.iteration AS left_out,
        w.drawn
    FROM admitted AS a
    JOIN windows AS w ON w.iteration >= a.iteration
)
SELECT
    a.iteration AS generated_round,
    a.entries AS trajectories,
    a.uses_mean,
    coalesce(any_value(f.fresh_updates), 0)
        + coalesce(sum(h.drawn / h.pool * h.entries_held / a.entries) FILTER (h.pool > 0 AND NOT h.left_out), 0)
        AS uses_expected,
    arg_max(h.entries_held, h.at) / a.entries AS still_held_share,
    (SELECT sum(updates) / count(*) FROM drawn) AS steady_state
FROM admitted AS a
LEFT JOIN drawn AS f ON f.iteration = a.iteration
LEFT JOIN held AS h ON h.iteration = a.iteration
GROUP BY a.iteration, a.entries, a.uses_mean
ORDER BY a.iteration;
