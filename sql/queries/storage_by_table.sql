-- How many rows does each table hold, and how much of the database file?
-- A block of the file (256 KiB) that several tables share is divided evenly among them; indexes and free
-- blocks are not counted, so this is less than the file: `reval store stats` has them, and all else under the root.
WITH segments AS (
    SELECT 'archived_payloads' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.archived_payloads') UNION ALL
    SELECT 'archives' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.archives') UNION ALL
    SELECT 'attempts' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.attempts') UNION ALL
    SELECT 'batches' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.batches') UNION ALL
    SELECT 'breaches' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.breaches') UNION ALL
    SELECT 'evaluation_metrics' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.evaluation_metrics') UNION ALL
    SELECT 'evaluations' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.evaluations') UNION ALL
    SELECT 'events' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.events') UNION ALL
    SELECT 'golds' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.golds') UNION ALL
    SELECT 'leases' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.leases') UNION ALL
    SELECT 'payloads' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.payloads') UNION ALL
    SELECT 'policies' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.policies') UNION ALL
    SELECT 'problem_schedule' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.problem_schedule') UNION ALL
    SELECT 'problem_sources' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.problem_sources') UNION ALL
    SELECT 'problems' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.problems') UNION ALL
    SELECT 'prompts' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.prompts') UNION ALL
    SELECT 'realisations' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.realisations') UNION ALL
    SELECT 'reference_scores' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.reference_scores') UNION ALL
    SELECT 'replay_entries' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.replay_entries') UNION ALL
    SELECT 'rounds' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.rounds') UNION ALL
    SELECT 'run_chain' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.run_chain') UNION ALL
    SELECT 'run_problems' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.run_problems') UNION ALL
    SELECT 'runs' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.runs') UNION ALL
    SELECT 'stage_links' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.stage_links') UNION ALL
    SELECT 'stages' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.stages') UNION ALL
    SELECT 'schema_migrations' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.schema_migrations') UNION ALL
    SELECT 'starts' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.starts') UNION ALL
    SELECT 'trajectories' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.trajectories') UNION ALL
    SELECT 'update_trajectories' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.update_trajectories') UNION ALL
    SELECT 'updates' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.updates') UNION ALL
    SELECT 'verdicts' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.verdicts') UNION ALL
    SELECT 'verifiers' AS table_name, block_id, additional_block_ids FROM pragma_storage_info('store.verifiers')
),
blocks AS (
    SELECT DISTINCT table_name, unnest(list_prepend(block_id, additional_block_ids)) AS block
    FROM segments
),
shares AS (
    SELECT table_name, 0.25 / count(*) OVER (PARTITION BY block) AS mib
    FROM blocks
    WHERE block >= 0
)
SELECT
    t.table_name,
    t.estimated_size AS row_count,
    coalesce(s.mib, 0) AS mib,
    s.mib / sum(s.mib) OVER () AS share,
    t.comment
FROM duckdb_tables() AS t
LEFT JOIN (SELECT table_name, sum(mib)::DOUBLE AS mib FROM shares GROUP BY table_name) AS s USING (table_name)
WHERE t.schema_name = 'store'
ORDER BY mib DESC, row_count DESC, t.table_name;
