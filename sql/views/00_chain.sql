-- A run's history is its ancestors' up to each fork, then its own (store.run_chain). Here that rule is written, once, and
-- applied to the tables that carry an iteration. Like everything in the schema "store" these views may change.

CREATE OR REPLACE MACRO store.on_chain(iteration, first_iteration, until_iteration) AS
    iteration >= first_iteration AND (until_iteration IS NULL OR iteration < until_iteration);

-- One row per run, iteration, stage and slot. The iteration -1 is the time before the first round.
CREATE OR REPLACE VIEW store.chain_links AS
SELECT c.run_id, c.owner_run_id, l.* EXCLUDE (run_id)
FROM store.run_chain AS c
JOIN store.stage_links AS l
  ON l.run_id = c.owner_run_id AND store.on_chain(l.iteration, c.first_iteration, c.until_iteration);

-- The same with what the stage was given and gave.
CREATE OR REPLACE VIEW store.chain_stages AS
SELECT l.*, s.inputs, s.output, s.seconds
FROM store.chain_links AS l
JOIN store.stages AS s USING (stage_key);

-- One row per run and admission to its buffer.
CREATE OR REPLACE VIEW store.chain_entries AS
SELECT c.run_id, c.owner_run_id, e.* EXCLUDE (run_id)
FROM store.run_chain AS c
JOIN store.replay_entries AS e
  ON e.run_id = c.owner_run_id AND store.on_chain(e.iteration, c.first_iteration, c.until_iteration);

-- One row per run and planned round.
CREATE OR REPLACE VIEW store.chain_rounds AS
SELECT c.run_id, c.owner_run_id, r.* EXCLUDE (run_id)
FROM store.run_chain AS c
JOIN store.rounds AS r
  ON r.run_id = c.owner_run_id AND store.on_chain(r.iteration, c.first_iteration, c.until_iteration);

-- One row per run and scheduled problem.
CREATE OR REPLACE VIEW store.chain_schedule AS
SELECT c.run_id, c.owner_run_id, s.* EXCLUDE (run_id)
FROM store.run_chain AS c
JOIN store.problem_schedule AS s
  ON s.run_id = c.owner_run_id AND store.on_chain(s.planned_at, c.first_iteration, c.until_iteration);

-- One row per run and problem that its sources have had.
CREATE OR REPLACE VIEW store.chain_problems AS
SELECT c.run_id, c.owner_run_id, p.* EXCLUDE (run_id)
FROM store.run_chain AS c
JOIN store.run_problems AS p
  ON p.run_id = c.owner_run_id AND store.on_chain(p.since, c.first_iteration, c.until_iteration);
