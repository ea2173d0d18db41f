-- Building blocks of the public views below. They live in the schema "store" like the tables and may change with them.

-- One row per run, iteration, stage and slot along the run's chain: its ancestors' up to each fork, then its own.
-- The iteration -1 is the time before the first round, where the base policy is evaluated.
CREATE OR REPLACE VIEW store.chain_stages AS
SELECT
    c.run_id,
    c.owner_run_id,
    l.iteration,
    l.stage,
    l.slot,
    l.stage_key,
    l.executed,
    l.linked_at,
    s.output,
    s.seconds
FROM store.run_chain AS c
JOIN store.stage_links AS l
  ON l.run_id = c.owner_run_id
 AND l.iteration >= c.first_iteration
 AND (c.until_iteration IS NULL OR l.iteration < c.until_iteration)
JOIN store.stages AS s USING (stage_key);

-- One row per run and iteration along the chain whose learning made updates: the policy that it gave.
CREATE OR REPLACE VIEW store.chain_policies AS
SELECT run_id, owner_run_id, iteration, output ->> 'policy_id' AS policy_id
FROM store.chain_stages
WHERE stage = 'learn' AND (output ->> 'updates')::INTEGER > 0;

-- One row per learned policy: the run and iteration that first gave it.
CREATE OR REPLACE VIEW store.policy_rounds AS
SELECT policy_id, arg_min(run_id, linked_at) AS run_id, arg_min(iteration, linked_at) AS iteration
FROM (
    SELECT l.run_id, l.iteration, l.linked_at, s.output ->> 'policy_id' AS policy_id
    FROM store.stage_links AS l
    JOIN store.stages AS s USING (stage_key)
    WHERE l.stage = 'learn' AND (s.output ->> 'updates')::INTEGER > 0
)
GROUP BY policy_id;

-- One row per problem: the source that was recorded first.
CREATE OR REPLACE VIEW store.first_sources AS
SELECT
    problem_id,
    arg_min(source, (recorded_at, source, external_id)) AS source,
    arg_min(external_id, (recorded_at, source, external_id)) AS external_id,
    arg_min(metadata, (recorded_at, source, external_id)) AS metadata
FROM store.problem_sources
GROUP BY problem_id;

-- One row per trajectory that has a verdict: the one by its own run's verifier where there is one, else the newest;
-- among several gold answers the newest verdict.
CREATE OR REPLACE VIEW store.chosen_verdicts AS
SELECT v.*
FROM store.verdicts AS v
JOIN store.trajectories AS t USING (trajectory_id)
LEFT JOIN store.runs AS r ON r.run_id = t.run_id
QUALIFY row_number() OVER (
    PARTITION BY v.trajectory_id
    ORDER BY coalesce(v.verifier_id = r.verifier_id, false) DESC, v.graded_at DESC, v.verifier_id, v.gold_digest
) = 1;

-- One row per trajectory that was trained on: memberships in updates over all runs, and the newest round in which its
-- own run, or a fork of it, used it.
CREATE OR REPLACE VIEW store.trajectory_uses AS
SELECT u.trajectory_id, sum(u.uses)::BIGINT AS times_used, max(d.iteration) AS last_used_round
FROM (
    SELECT trajectory_id, policy_id, count(*) AS uses
    FROM store.update_trajectories
    GROUP BY trajectory_id, policy_id
) AS u
JOIN store.trajectories AS t USING (trajectory_id)
LEFT JOIN (
    SELECT c.owner_run_id AS run_id, p.policy_id, max(p.iteration) AS iteration
    FROM store.chain_policies AS p
    JOIN store.run_chain AS c ON c.run_id = p.run_id
    GROUP BY c.owner_run_id, p.policy_id
) AS d
  ON d.run_id = t.run_id AND d.policy_id = u.policy_id
GROUP BY u.trajectory_id;

-- One row per policy: what its updates were trained on, in means over the members of all its updates.
CREATE OR REPLACE VIEW store.policy_members AS
SELECT
    m.policy_id,
    avg(m.residual) AS residual_mean,
    stddev_pop(m.residual) AS residual_std,
    avg(m.log_ratio) AS log_ratio_mean,
    avg(m.root_value_gap) AS root_value_gap_mean,
    avg(b.round) AS generated_round_mean
FROM store.update_trajectories AS m
JOIN store.trajectories AS t USING (trajectory_id)
JOIN store.batches AS b USING (batch_id)
GROUP BY m.policy_id;

-- One row per run and iteration: uses so far, along the chain, of the trajectories that the round's updates drew.
CREATE OR REPLACE VIEW store.round_uses AS
SELECT run_id, iteration, avg(uses_so_far) AS uses_mean
FROM (
    SELECT
        c.run_id,
        c.iteration,
        sum(u.uses) OVER (PARTITION BY c.run_id, u.trajectory_id ORDER BY c.iteration) AS uses_so_far
    FROM store.chain_policies AS c
    JOIN (
        SELECT policy_id, trajectory_id, count(*) AS uses
        FROM store.update_trajectories
        GROUP BY policy_id, trajectory_id
    ) AS u USING (policy_id)
)
GROUP BY run_id, iteration;
