-- The first schema. Base tables live in the schema "store" and may change with a migration; people read the views
-- of sql/views, which live in "main". Identifiers are content addresses (see docs/architecture.md), times are UTC,
-- paths are relative to the root (REVAL_HOME). Narrow tables carry keys; token payloads stand apart without a primary key.

CREATE SCHEMA IF NOT EXISTS store;

-- What a model is asked, and which answers count ---------------------------------------------------------------

CREATE TABLE store.problems (
    problem_id      VARCHAR PRIMARY KEY,
    messages        JSON NOT NULL,
    question        VARCHAR NOT NULL,
    recorded_at     TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.problems IS 'One row per problem; the id is the digest of the messages.';

CREATE TABLE store.problem_sources (
    problem_id      VARCHAR NOT NULL,
    source          VARCHAR NOT NULL,
    external_id     VARCHAR NOT NULL,
    metadata        JSON NOT NULL,
    recorded_at     TIMESTAMP NOT NULL,
    PRIMARY KEY (problem_id, source, external_id)
);
COMMENT ON TABLE store.problem_sources IS 'Where a problem was read: file, the file''s own id, extra columns.';

CREATE TABLE store.golds (
    problem_id      VARCHAR NOT NULL,
    gold_digest     VARCHAR NOT NULL,
    gold            VARCHAR NOT NULL,
    recorded_at     TIMESTAMP NOT NULL,
    PRIMARY KEY (problem_id, gold_digest)
);
COMMENT ON TABLE store.golds IS 'Versions of a problem''s gold answer; mending one adds a row and regrades.';

-- Policies -----------------------------------------------------------------------------------------------------

CREATE TABLE store.policies (
    policy_id           VARCHAR PRIMARY KEY,
    kind                VARCHAR NOT NULL CHECK (kind IN ('base', 'learned')),
    parent_policy_id    VARCHAR,
    reference_policy_id VARCHAR,
    settings            JSON NOT NULL,
    updates_done        INTEGER NOT NULL,
    tokenizer_id        VARCHAR NOT NULL,
    weights_checksum    VARCHAR NOT NULL,
    folder              VARCHAR,
    created_at          TIMESTAMP NOT NULL,
    run_id              VARCHAR,
    attempt             INTEGER
);
COMMENT ON TABLE store.policies IS 'A policy names a lineage: base files, or parent, reference, settings and updates.';

CREATE TABLE store.realisations (
    policy_id           VARCHAR NOT NULL,
    weights_checksum    VARCHAR NOT NULL,
    versions            JSON NOT NULL,
    logprob_drift       DOUBLE,
    recorded_at         TIMESTAMP NOT NULL,
    PRIMARY KEY (policy_id, weights_checksum)
);
COMMENT ON TABLE store.realisations IS 'Other weights that the same lineage gave when learned again elsewhere.';

-- Runs, attempts, stages ---------------------------------------------------------------------------------------

CREATE TABLE store.runs (
    run_id          VARCHAR PRIMARY KEY,
    name            VARCHAR NOT NULL,
    config          JSON NOT NULL,
    config_id       VARCHAR NOT NULL,
    seed            BIGINT NOT NULL,
    parent_run_id   VARCHAR,
    fork_iteration  INTEGER,
    forced          JSON NOT NULL,
    base_policy_id  VARCHAR NOT NULL,
    verifier_id     VARCHAR NOT NULL,
    versions        JSON NOT NULL,
    mlflow_run_id   VARCHAR,
    created_at      TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.runs IS 'A training run, or a fork of one; versions are pinned at its creation.';

CREATE TABLE store.run_chain (
    run_id          VARCHAR NOT NULL,
    owner_run_id    VARCHAR NOT NULL,
    first_iteration INTEGER NOT NULL,
    until_iteration INTEGER,
    PRIMARY KEY (run_id, owner_run_id)
);
COMMENT ON TABLE store.run_chain IS 'Which run''s rows a run''s iterations are: its ancestors'' up to each fork, then its own.';

CREATE TABLE store.attempts (
    run_id          VARCHAR NOT NULL,
    attempt         INTEGER NOT NULL,
    status          VARCHAR NOT NULL,
    pid             INTEGER NOT NULL,
    host            VARCHAR NOT NULL,
    process_started DOUBLE NOT NULL,
    git_commit      VARCHAR,
    versions        JSON NOT NULL,
    device          VARCHAR NOT NULL,
    flow_run_id     VARCHAR,
    log_path        VARCHAR,
    message         VARCHAR,
    started_at      TIMESTAMP NOT NULL,
    ended_at        TIMESTAMP,
    PRIMARY KEY (run_id, attempt)
);
COMMENT ON TABLE store.attempts IS 'Each start of a run: process, code and package versions, device, log file, how it ended.';

CREATE TABLE store.events (
    run_id          VARCHAR NOT NULL,
    attempt         INTEGER NOT NULL,
    iteration       INTEGER,
    kind            VARCHAR NOT NULL,
    message         VARCHAR NOT NULL,
    recorded_at     TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.events IS 'Things worth knowing later: changed versions, skipped updates, rounds without an update.';

CREATE TABLE store.stages (
    stage_key       VARCHAR PRIMARY KEY,
    stage           VARCHAR NOT NULL,
    inputs          JSON NOT NULL,
    output          JSON NOT NULL,
    seconds         DOUBLE NOT NULL,
    run_id          VARCHAR,
    attempt         INTEGER,
    committed_at    TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.stages IS 'The only judge of what is done: a row stands here when a stage''s output is committed.';

CREATE TABLE store.stage_links (
    run_id          VARCHAR NOT NULL,
    iteration       INTEGER NOT NULL,
    stage           VARCHAR NOT NULL,
    slot            VARCHAR NOT NULL,
    stage_key       VARCHAR NOT NULL,
    executed        BOOLEAN NOT NULL,
    attempt         INTEGER NOT NULL,
    linked_at       TIMESTAMP NOT NULL,
    PRIMARY KEY (run_id, iteration, stage, slot)
);
COMMENT ON TABLE store.stage_links IS 'The history of a run: which committed stage stands at which iteration.';

CREATE TABLE store.leases (
    stage_key       VARCHAR PRIMARY KEY,
    epoch           BIGINT NOT NULL,
    pid             INTEGER NOT NULL,
    host            VARCHAR NOT NULL,
    process_started DOUBLE NOT NULL
);
COMMENT ON TABLE store.leases IS 'Who may write a stage; the epoch is checked inside the commit, no clock is.';

-- Which problem comes when -------------------------------------------------------------------------------------

CREATE TABLE store.problem_schedule (
    run_id          VARCHAR NOT NULL,
    position        BIGINT NOT NULL,
    epoch           INTEGER NOT NULL,
    problem_id      VARCHAR NOT NULL,
    planned_at      INTEGER NOT NULL,
    PRIMARY KEY (run_id, position)
);
COMMENT ON TABLE store.problem_schedule IS 'Order of problems, an epoch at a time, planned when its first problem is due.';

CREATE TABLE store.rounds (
    run_id          VARCHAR NOT NULL,
    iteration       INTEGER NOT NULL,
    first_position  BIGINT NOT NULL,
    until_position  BIGINT NOT NULL,
    PRIMARY KEY (run_id, iteration)
);
COMMENT ON TABLE store.rounds IS 'The slice of the schedule that an iteration draws.';

-- Trajectories -------------------------------------------------------------------------------------------------

CREATE TABLE store.batches (
    batch_id            VARCHAR PRIMARY KEY,
    purpose             VARCHAR NOT NULL CHECK (purpose IN ('training', 'evaluation')),
    policy_id           VARCHAR NOT NULL,
    weights_checksum    VARCHAR NOT NULL,
    tokenizer_id        VARCHAR NOT NULL,
    round               INTEGER NOT NULL,
    generation          INTEGER NOT NULL,
    engine              VARCHAR NOT NULL,
    sampling            JSON NOT NULL,
    prompt_count        INTEGER NOT NULL,
    trajectory_count    INTEGER NOT NULL,
    run_id              VARCHAR,
    attempt             INTEGER,
    created_at          TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.batches IS 'One sampled set of responses: which policy, prompts, settings, round and generation.';

CREATE TABLE store.prompts (
    prompt_id       VARCHAR PRIMARY KEY,
    token_ids       INTEGER[] NOT NULL,
    text            VARCHAR NOT NULL
);
COMMENT ON TABLE store.prompts IS 'Rendered prompts; the id is the digest of the token ids.';

CREATE TABLE store.trajectories (
    trajectory_id       VARCHAR PRIMARY KEY,
    batch_id            VARCHAR NOT NULL,
    problem_id          VARCHAR NOT NULL,
    prompt_id           VARCHAR NOT NULL,
    sample_index        INTEGER NOT NULL,
    prompt_tokens       INTEGER NOT NULL,
    response_tokens     INTEGER NOT NULL,
    finish_reason       VARCHAR NOT NULL CHECK (finish_reason IN ('stop', 'length')),
    behaviour_logprob   DOUBLE,
    seed                UBIGINT NOT NULL,
    run_id              VARCHAR,
    attempt             INTEGER,
    created_at          TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.trajectories IS 'One sampled response; behaviour_logprob in nats, for diagnosis only.';

CREATE TABLE store.payloads (
    trajectory_id   VARCHAR NOT NULL,
    response_ids    INTEGER[] NOT NULL,
    completion      VARCHAR NOT NULL
);
COMMENT ON TABLE store.payloads IS 'Tokens and text of responses; EOS is included when it was generated.';

-- Verdicts and scores ------------------------------------------------------------------------------------------

CREATE TABLE store.verifiers (
    verifier_id     VARCHAR PRIMARY KEY,
    name            VARCHAR NOT NULL,
    version         INTEGER NOT NULL,
    settings        JSON NOT NULL,
    recorded_at     TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.verifiers IS 'What a verifier_id stands for.';

CREATE TABLE store.verdicts (
    trajectory_id   VARCHAR NOT NULL,
    gold_digest     VARCHAR NOT NULL,
    verifier_id     VARCHAR NOT NULL,
    status          VARCHAR NOT NULL
                    CHECK (status IN ('correct', 'incorrect', 'no_answer', 'timeout', 'error', 'rejected')),
    reward          DOUBLE NOT NULL,
    answer          VARCHAR,
    tier            VARCHAR NOT NULL,
    seconds         DOUBLE NOT NULL,
    details         VARCHAR NOT NULL,
    graded_at       TIMESTAMP NOT NULL,
    PRIMARY KEY (trajectory_id, gold_digest, verifier_id)
);
COMMENT ON TABLE store.verdicts IS 'Rescoring with another verifier or a mended gold adds rows and keeps these.';

CREATE TABLE store.reference_scores (
    trajectory_id       VARCHAR NOT NULL,
    reference_policy_id VARCHAR NOT NULL,
    scoring_id          VARCHAR NOT NULL,
    logprob             DOUBLE NOT NULL,
    root_value          DOUBLE NOT NULL,
    PRIMARY KEY (trajectory_id, reference_policy_id, scoring_id)
);
COMMENT ON TABLE store.reference_scores IS 'log pi_ref(response) and V_ref(s1) in nats, by the trainer''s own forward pass.';

-- Replay and learning ------------------------------------------------------------------------------------------

CREATE TABLE store.replay_entries (
    run_id          VARCHAR NOT NULL,
    iteration       INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    trajectory_id   VARCHAR NOT NULL,
    verifier_id     VARCHAR NOT NULL,
    gold_digest     VARCHAR NOT NULL,
    reward_used     DOUBLE NOT NULL,
    PRIMARY KEY (run_id, iteration, position)
);
COMMENT ON TABLE store.replay_entries IS 'Admissions to a run''s buffer; the window is the last M by (iteration, position) of its chain.';

CREATE TABLE store.updates (
    policy_id       VARCHAR NOT NULL,
    update_index    INTEGER NOT NULL,
    kind            VARCHAR NOT NULL CHECK (kind IN ('fresh', 'replay')),
    loss            DOUBLE,
    grad_norm       DOUBLE,
    lr              DOUBLE NOT NULL,
    skipped         BOOLEAN NOT NULL,
    trajectories    INTEGER NOT NULL,
    tokens          BIGINT NOT NULL,
    PRIMARY KEY (policy_id, update_index)
);
COMMENT ON TABLE store.updates IS 'Optimizer steps that made a policy of its parent; grad_norm before clipping.';

CREATE TABLE store.update_trajectories (
    policy_id       VARCHAR NOT NULL,
    update_index    INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    trajectory_id   VARCHAR NOT NULL,
    reward          DOUBLE NOT NULL,
    weight          DOUBLE NOT NULL,
    residual        DOUBLE,
    log_ratio       DOUBLE,
    root_value_gap  DOUBLE
);
COMMENT ON TABLE store.update_trajectories IS 'What each update was trained on, in order, with its residual, log-ratio and root-value gap in nats.';

-- Evaluation ---------------------------------------------------------------------------------------------------

CREATE TABLE store.evaluations (
    evaluation_id       VARCHAR PRIMARY KEY,
    policy_id           VARCHAR NOT NULL,
    benchmark           VARCHAR NOT NULL,
    benchmark_id        VARCHAR NOT NULL,
    batch_id            VARCHAR NOT NULL,
    verifier_id         VARCHAR NOT NULL,
    problem_count       INTEGER NOT NULL,
    samples_per_problem INTEGER NOT NULL,
    settings            JSON NOT NULL,
    created_at          TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.evaluations IS 'A policy on a benchmark; its completions are trajectories of purpose evaluation.';

CREATE TABLE store.evaluation_metrics (
    evaluation_id   VARCHAR NOT NULL,
    metric          VARCHAR NOT NULL,
    value           DOUBLE NOT NULL,
    low             DOUBLE,
    high            DOUBLE,
    PRIMARY KEY (evaluation_id, metric)
);
COMMENT ON TABLE store.evaluation_metrics IS 'avg@k, pass@k, maj@k and shares, with 95 % bootstrap intervals over problems.';
