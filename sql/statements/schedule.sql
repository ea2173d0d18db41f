-- The order of problems: which a run may draw, the epochs that are planned, and the slice of each iteration.

-- name: round
SELECT first_position, until_position
FROM store.chain_rounds
WHERE run_id = $run_id AND iteration = $iteration;

-- name: planned
-- Where the next round starts, how far the schedule reaches, and its newest epoch, along the chain.
SELECT
    (SELECT coalesce(max(until_position), 0)
     FROM store.chain_rounds
     WHERE run_id = $run_id AND iteration < $iteration) AS first_position,
    coalesce(max(position) + 1, 0) AS reach,
    coalesce(max(epoch) + 1, 0) AS next_epoch
FROM store.chain_schedule
WHERE run_id = $run_id;

-- name: plan_epoch
-- "epoch_order" is an Arrow table (offset_, problem_id).
INSERT INTO store.problem_schedule BY NAME
SELECT
    $run_id AS run_id,
    $first_position + offset_ AS position,
    $epoch AS epoch,
    problem_id,
    $iteration AS planned_at
FROM epoch_order;

-- name: add_round
INSERT INTO store.rounds (run_id, iteration, first_position, until_position)
VALUES ($run_id, $iteration, $first_position, $until_position);

-- name: scheduled
SELECT problem_id
FROM store.chain_schedule
WHERE run_id = $run_id AND position >= $first_position AND position < $until_position
ORDER BY position;

-- name: next_round
-- The first iteration along the chain that is not planned yet.
SELECT coalesce(max(iteration) + 1, 0) AS iteration FROM store.chain_rounds WHERE run_id = $run_id;

-- name: knows_problems
SELECT 1 AS found FROM store.chain_problems WHERE run_id = $run_id LIMIT 1;

-- name: unknown_problems
-- Those of "part" that the run's sources have not had before.
SELECT problem_id
FROM part
WHERE NOT EXISTS (
    SELECT 1 FROM store.chain_problems AS c WHERE c.run_id = $run_id AND c.problem_id = part.problem_id
)
ORDER BY problem_id;

-- name: add_problems
-- What came to the parent at or after the fork comes to the fork in the same round: as far as nothing else differs, the
-- fork's rounds ask what the parent's asked. Gives the problems that come in now.
INSERT INTO store.run_problems BY NAME
SELECT $run_id AS run_id, part.problem_id, coalesce(p.since, $since) AS since
FROM part
LEFT JOIN (
    SELECT c.problem_id, c.since
    FROM store.runs AS r
    JOIN store.chain_problems AS c ON c.run_id = r.parent_run_id
    WHERE r.run_id = $run_id AND c.since >= r.fork_iteration
) AS p USING (problem_id)
ON CONFLICT DO NOTHING
RETURNING problem_id, since;

-- name: drawn
-- The problems that rounds before $iteration have drawn, along the chain.
SELECT DISTINCT s.problem_id
FROM store.chain_rounds AS r
JOIN store.chain_schedule AS s
  ON s.run_id = r.run_id AND s.position >= r.first_position AND s.position < r.until_position
WHERE r.run_id = $run_id AND r.iteration < $iteration;

-- name: since
SELECT problem_id, since FROM store.chain_problems WHERE run_id = $run_id;
