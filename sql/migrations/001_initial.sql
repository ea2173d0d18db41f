-- The first schema. Base tables live in the schema "store" and may change with a migration; people read the views
-- of sql/views, which live in "main". Identifiers are content addresses (see docs/architecture.md), times are UTC,
-- paths are relative to the root (REVAL_HOME). Narrow tables carry keys; token payloads stand apart without a primary key.

CREATE SCHEMA IF NOT EXISTS store;

-- What a model is asked, and which answers count --------------------------------------------------------------------

CREATE TABLE store.problems (
    problem_id  VARCHAR PRIMARY KEY,
    messages    JSON NOT NULL,
    question    VARCHAR NOT NULL,
    recorded_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.problems IS 'One row per problem; the id is the digest of the messages.';
COMMENT ON COLUMN store.problems.problem_id IS 'Digest of the messages.';
COMMENT ON COLUMN store.problems.messages IS 'The conversation that the model is asked: a list of {role, content}.';
COMMENT ON COLUMN store.problems.question IS 'Text of the last user message, for people.';
COMMENT ON COLUMN store.problems.recorded_at IS 'UTC; when it was read first.';

CREATE TABLE store.problem_sources (
    problem_id  VARCHAR NOT NULL,
    source      VARCHAR NOT NULL,
    external_id VARCHAR NOT NULL,
    metadata    JSON NOT NULL,
    recorded_at TIMESTAMP NOT NULL,
    PRIMARY KEY (problem_id, source, external_id)
);
COMMENT ON TABLE store.problem_sources IS 'Where a problem was read: file, the file''s own id, extra columns.';
COMMENT ON COLUMN store.problem_sources.problem_id IS 'The problem.';
COMMENT ON COLUMN store.problem_sources.source IS 'File, data set or built-in set that has it.';
COMMENT ON COLUMN store.problem_sources.external_id IS 'The source''s own id of it.';
COMMENT ON COLUMN store.problem_sources.metadata IS 'The source''s further columns, as they were read last.';
COMMENT ON COLUMN store.problem_sources.recorded_at IS 'UTC; when it was read there first.';

CREATE TABLE store.golds (
    problem_id      VARCHAR NOT NULL,
    gold_digest     VARCHAR NOT NULL,
    gold            VARCHAR NOT NULL,
    recorded_at     TIMESTAMP NOT NULL,
    counts_since    TIMESTAMP NOT NULL,
    PRIMARY KEY (problem_id, gold_digest)
);
COMMENT ON TABLE store.golds IS 'Versions of a problem''s gold answer; mending one adds a row and regrades.';
COMMENT ON COLUMN store.golds.problem_id IS 'The problem.';
COMMENT ON COLUMN store.golds.gold_digest IS 'Digest of the text.';
COMMENT ON COLUMN store.golds.gold IS 'The gold answer, LaTeX or text.';
COMMENT ON COLUMN store.golds.recorded_at IS 'UTC; when it was read first.';
COMMENT ON COLUMN store.golds.counts_since IS 'UTC; since when it is the answer that counts; the latest of a problem counts.';

-- Policies ----------------------------------------------------------------------------------------------------------

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
COMMENT ON COLUMN store.policies.policy_id IS 'Digest of the base files, or of the learning step that made it.';
COMMENT ON COLUMN store.policies.kind IS 'base or learned.';
COMMENT ON COLUMN store.policies.parent_policy_id IS 'The policy that was updated; NULL for a base.';
COMMENT ON COLUMN store.policies.reference_policy_id IS 'The reference of the objective; NULL where it has none.';
COMMENT ON COLUMN store.policies.settings IS 'Objective, optimizer and compute precision; all that an update depends on.';
COMMENT ON COLUMN store.policies.updates_done IS 'Optimizer steps since the base policy.';
COMMENT ON COLUMN store.policies.tokenizer_id IS 'Digest of the tokenizer''s files.';
COMMENT ON COLUMN store.policies.weights_checksum IS 'Digest of the weights when it was first made.';
COMMENT ON COLUMN store.policies.folder IS 'Where it is saved, relative to REVAL_HOME; NULL while it exists only as its lineage.';
COMMENT ON COLUMN store.policies.created_at IS 'UTC.';
COMMENT ON COLUMN store.policies.run_id IS 'The run whose attempt wrote the row; provenance, not ownership.';
COMMENT ON COLUMN store.policies.attempt IS 'The attempt of that run that wrote the row.';

CREATE TABLE store.realisations (
    policy_id           VARCHAR NOT NULL,
    weights_checksum    VARCHAR NOT NULL,
    versions            JSON NOT NULL,
    logprob_drift       DOUBLE,
    recorded_at         TIMESTAMP NOT NULL,
    PRIMARY KEY (policy_id, weights_checksum)
);
COMMENT ON TABLE store.realisations IS 'Other weights that the same lineage gave when learned again elsewhere.';
COMMENT ON COLUMN store.realisations.policy_id IS 'The policy.';
COMMENT ON COLUMN store.realisations.weights_checksum IS 'Digest of these weights.';
COMMENT ON COLUMN store.realisations.versions IS 'Package versions, threads and device that gave them.';
COMMENT ON COLUMN store.realisations.logprob_drift IS 'Mean absolute log-prob difference on stored responses in nats; NULL where there were none.';
COMMENT ON COLUMN store.realisations.recorded_at IS 'UTC.';

-- Runs, attempts, stages --------------------------------------------------------------------------------------------

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
COMMENT ON TABLE store.runs IS 'A training run, a fork of one, or an evaluation; versions are pinned at its creation.';
COMMENT ON COLUMN store.runs.run_id IS 'Name and digest of what decides the run.';
COMMENT ON COLUMN store.runs.name IS 'run.name of the configuration, for people.';
COMMENT ON COLUMN store.runs.config IS 'The resolved configuration at its creation.';
COMMENT ON COLUMN store.runs.config_id IS 'Digest of the part of the configuration that decides what is learned.';
COMMENT ON COLUMN store.runs.seed IS 'run.seed: problem order, samples and draws derive from it.';
COMMENT ON COLUMN store.runs.parent_run_id IS 'The run that it was forked from; NULL where it was not.';
COMMENT ON COLUMN store.runs.fork_iteration IS 'First iteration of its own; NULL where it is no fork.';
COMMENT ON COLUMN store.runs.forced IS 'stage@iteration to the generation that replaces it.';
COMMENT ON COLUMN store.runs.base_policy_id IS 'The policy that it starts from.';
COMMENT ON COLUMN store.runs.verifier_id IS 'The verifier whose verdicts it learns from.';
COMMENT ON COLUMN store.runs.versions IS 'LEARNING, ROLLOUT and VERIFIER_VERSION and package versions at its creation.';
COMMENT ON COLUMN store.runs.mlflow_run_id IS 'The MLflow run that shows it; NULL until there is one.';
COMMENT ON COLUMN store.runs.created_at IS 'UTC.';

CREATE TABLE store.run_chain (
    run_id          VARCHAR NOT NULL,
    owner_run_id    VARCHAR NOT NULL,
    first_iteration INTEGER NOT NULL,
    until_iteration INTEGER,
    PRIMARY KEY (run_id, owner_run_id)
);
COMMENT ON TABLE store.run_chain IS 'Which run''s rows a run''s iterations are: its ancestors'' up to each fork, then its own.';
COMMENT ON COLUMN store.run_chain.run_id IS 'The run.';
COMMENT ON COLUMN store.run_chain.owner_run_id IS 'Itself, or an ancestor whose rows it shares.';
COMMENT ON COLUMN store.run_chain.first_iteration IS 'First iteration that is the owner''s; -1 is the time before the first round.';
COMMENT ON COLUMN store.run_chain.until_iteration IS 'First iteration that is the owner''s no more; NULL: no end.';

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
COMMENT ON COLUMN store.attempts.run_id IS 'The run.';
COMMENT ON COLUMN store.attempts.attempt IS 'Counts from 1 within the run.';
COMMENT ON COLUMN store.attempts.status IS 'running, completed, failed, cancelled or crashed.';
COMMENT ON COLUMN store.attempts.pid IS 'Process id.';
COMMENT ON COLUMN store.attempts.host IS 'Host name.';
COMMENT ON COLUMN store.attempts.process_started IS 'Start of the process in seconds since 1970; tells it from a later one of its number.';
COMMENT ON COLUMN store.attempts.git_commit IS 'Commit of the code, with +changes where files differ; NULL outside a checkout.';
COMMENT ON COLUMN store.attempts.versions IS 'Versions that it ran under.';
COMMENT ON COLUMN store.attempts.device IS 'cpu, or the name of the GPU.';
COMMENT ON COLUMN store.attempts.flow_run_id IS 'The Prefect flow run; NULL without Prefect.';
COMMENT ON COLUMN store.attempts.log_path IS 'Log file, relative to REVAL_HOME.';
COMMENT ON COLUMN store.attempts.message IS 'Why it ended, where it failed.';
COMMENT ON COLUMN store.attempts.started_at IS 'UTC.';
COMMENT ON COLUMN store.attempts.ended_at IS 'UTC; NULL while it runs.';

CREATE TABLE store.events (
    run_id      VARCHAR NOT NULL,
    attempt     INTEGER NOT NULL,
    iteration   INTEGER,
    kind        VARCHAR NOT NULL,
    message     VARCHAR NOT NULL,
    recorded_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.events IS 'Things worth knowing later: changed versions, skipped updates, rounds without an update.';
COMMENT ON COLUMN store.events.run_id IS 'The run.';
COMMENT ON COLUMN store.events.attempt IS 'The attempt that met it.';
COMMENT ON COLUMN store.events.iteration IS 'The round; NULL when it belongs to none.';
COMMENT ON COLUMN store.events.kind IS 'What it is, in two words.';
COMMENT ON COLUMN store.events.message IS 'What happened.';
COMMENT ON COLUMN store.events.recorded_at IS 'UTC.';

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
COMMENT ON COLUMN store.stages.stage_key IS 'The stage''s name and the digest of its inputs.';
COMMENT ON COLUMN store.stages.stage IS 'generate, verify, score, rescore, persist, learn, evaluate, checkpoint or report.';
COMMENT ON COLUMN store.stages.inputs IS 'What decides the output.';
COMMENT ON COLUMN store.stages.output IS 'The reference that passes on: ids, counts, paths.';
COMMENT ON COLUMN store.stages.seconds IS 'Wall seconds of the attempt that did it.';
COMMENT ON COLUMN store.stages.run_id IS 'The run whose attempt wrote the row; provenance, not ownership.';
COMMENT ON COLUMN store.stages.attempt IS 'The attempt of that run that wrote the row.';
COMMENT ON COLUMN store.stages.committed_at IS 'UTC.';

CREATE TABLE store.stage_links (
    run_id      VARCHAR NOT NULL,
    iteration   INTEGER NOT NULL,
    stage       VARCHAR NOT NULL,
    slot        VARCHAR NOT NULL,
    stage_key   VARCHAR NOT NULL,
    executed    BOOLEAN NOT NULL,
    attempt     INTEGER NOT NULL,
    linked_at   TIMESTAMP NOT NULL,
    PRIMARY KEY (run_id, iteration, stage, slot)
);
COMMENT ON TABLE store.stage_links IS 'The history of a run: which committed stage stands at which iteration.';
COMMENT ON COLUMN store.stage_links.run_id IS 'The run.';
COMMENT ON COLUMN store.stage_links.iteration IS 'Round from 0; -1 is the time before the first round.';
COMMENT ON COLUMN store.stage_links.stage IS 'Name of the stage.';
COMMENT ON COLUMN store.stage_links.slot IS 'Empty for what stands once in a round; the stage''s key where several may.';
COMMENT ON COLUMN store.stage_links.stage_key IS 'The committed stage.';
COMMENT ON COLUMN store.stage_links.executed IS 'Whether this run did the work; false where it found it done.';
COMMENT ON COLUMN store.stage_links.attempt IS 'The attempt that linked it.';
COMMENT ON COLUMN store.stage_links.linked_at IS 'UTC.';

CREATE TABLE store.leases (
    stage_key       VARCHAR PRIMARY KEY,
    epoch           BIGINT NOT NULL,
    pid             INTEGER NOT NULL,
    host            VARCHAR NOT NULL,
    process_started DOUBLE NOT NULL
);
COMMENT ON TABLE store.leases IS 'Who may write a stage; the epoch is checked inside the commit, no clock is.';
COMMENT ON COLUMN store.leases.stage_key IS 'The stage.';
COMMENT ON COLUMN store.leases.epoch IS 'Counts up with each taking; only the newest may commit.';
COMMENT ON COLUMN store.leases.pid IS 'Process that took it last; 0 when it was given back.';
COMMENT ON COLUMN store.leases.host IS 'Its host.';
COMMENT ON COLUMN store.leases.process_started IS 'Its start in seconds since 1970.';

-- Which problem comes when ------------------------------------------------------------------------------------------

CREATE TABLE store.problem_schedule (
    run_id      VARCHAR NOT NULL,
    position    BIGINT NOT NULL,
    epoch       INTEGER NOT NULL,
    problem_id  VARCHAR NOT NULL,
    planned_at  INTEGER NOT NULL,
    PRIMARY KEY (run_id, position)
);
COMMENT ON TABLE store.problem_schedule IS 'Order of problems, an epoch at a time, planned when its first problem is due.';
COMMENT ON COLUMN store.problem_schedule.run_id IS 'The run that planned it.';
COMMENT ON COLUMN store.problem_schedule.position IS 'Place in the run''s order, from 0.';
COMMENT ON COLUMN store.problem_schedule.epoch IS 'Pass over the problems, from 0.';
COMMENT ON COLUMN store.problem_schedule.problem_id IS 'The problem.';
COMMENT ON COLUMN store.problem_schedule.planned_at IS 'Iteration in which the epoch was planned.';

CREATE TABLE store.rounds (
    run_id          VARCHAR NOT NULL,
    iteration       INTEGER NOT NULL,
    first_position  BIGINT NOT NULL,
    until_position  BIGINT NOT NULL,
    PRIMARY KEY (run_id, iteration)
);
COMMENT ON TABLE store.rounds IS 'The slice of the schedule that an iteration draws.';
COMMENT ON COLUMN store.rounds.run_id IS 'The run that planned it.';
COMMENT ON COLUMN store.rounds.iteration IS 'Round from 0.';
COMMENT ON COLUMN store.rounds.first_position IS 'First place of the schedule that it draws.';
COMMENT ON COLUMN store.rounds.until_position IS 'First place that it draws no more.';

-- Trajectories ------------------------------------------------------------------------------------------------------

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
COMMENT ON COLUMN store.batches.batch_id IS 'Digest of policy, prompts, sampling settings, engine, round and generation.';
COMMENT ON COLUMN store.batches.purpose IS 'training or evaluation.';
COMMENT ON COLUMN store.batches.policy_id IS 'The policy that sampled.';
COMMENT ON COLUMN store.batches.weights_checksum IS 'Digest of the weights that sampled its first part.';
COMMENT ON COLUMN store.batches.tokenizer_id IS 'Digest of the tokenizer''s files.';
COMMENT ON COLUMN store.batches.round IS 'The round, from 0; 0 in evaluations.';
COMMENT ON COLUMN store.batches.generation IS 'Counts up with each forced regeneration, from 0.';
COMMENT ON COLUMN store.batches.engine IS 'Rollout engine with its precision.';
COMMENT ON COLUMN store.batches.sampling IS 'temperature, top_p, top_k, max_new_tokens, stop_ids, seed, ROLLOUT_VERSION, engine''s own settings.';
COMMENT ON COLUMN store.batches.prompt_count IS 'Prompts.';
COMMENT ON COLUMN store.batches.trajectory_count IS 'Responses of the whole batch, also while not all are stored.';
COMMENT ON COLUMN store.batches.run_id IS 'The run whose attempt wrote the row; provenance, not ownership.';
COMMENT ON COLUMN store.batches.attempt IS 'The attempt of that run that wrote the row.';
COMMENT ON COLUMN store.batches.created_at IS 'UTC; when its first part was stored.';

CREATE TABLE store.prompts (
    prompt_id   VARCHAR PRIMARY KEY,
    token_ids   INTEGER[] NOT NULL,
    text        VARCHAR NOT NULL
);
COMMENT ON TABLE store.prompts IS 'Rendered prompts; the id is the digest of the token ids.';
COMMENT ON COLUMN store.prompts.prompt_id IS 'Digest of the token ids.';
COMMENT ON COLUMN store.prompts.token_ids IS 'Token ids of the prompt.';
COMMENT ON COLUMN store.prompts.text IS 'The prompt as text, special tokens included.';

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
COMMENT ON TABLE store.trajectories IS 'One sampled response; its tokens and text stand in payloads.';
COMMENT ON COLUMN store.trajectories.trajectory_id IS 'Digest of batch, problem and sample index.';
COMMENT ON COLUMN store.trajectories.batch_id IS 'The batch that it belongs to.';
COMMENT ON COLUMN store.trajectories.problem_id IS 'The problem that it answers.';
COMMENT ON COLUMN store.trajectories.prompt_id IS 'The rendered prompt.';
COMMENT ON COLUMN store.trajectories.sample_index IS 'Which response to the problem in this batch, from 0.';
COMMENT ON COLUMN store.trajectories.prompt_tokens IS 'Tokens of the prompt.';
COMMENT ON COLUMN store.trajectories.response_tokens IS 'Tokens of the response, EOS included when it was generated.';
COMMENT ON COLUMN store.trajectories.finish_reason IS 'stop: it ended itself; length: it was cut.';
COMMENT ON COLUMN store.trajectories.behaviour_logprob IS 'Summed log-probability of the response by the rollout engine in nats, for diagnosis only.';
COMMENT ON COLUMN store.trajectories.seed IS 'Seed of its sampling.';
COMMENT ON COLUMN store.trajectories.run_id IS 'The run whose attempt wrote the row; provenance, not ownership.';
COMMENT ON COLUMN store.trajectories.attempt IS 'The attempt of that run that wrote the row.';
COMMENT ON COLUMN store.trajectories.created_at IS 'UTC; when its part was stored.';

CREATE TABLE store.payloads (
    trajectory_id   VARCHAR NOT NULL,
    response_ids    INTEGER[] NOT NULL,
    completion      VARCHAR NOT NULL
);
COMMENT ON TABLE store.payloads IS 'Tokens and text of responses, one row per trajectory.';
COMMENT ON COLUMN store.payloads.trajectory_id IS 'The trajectory.';
COMMENT ON COLUMN store.payloads.response_ids IS 'Token ids of the response, EOS included when it was generated.';
COMMENT ON COLUMN store.payloads.completion IS 'Text of the response without the token that ended it.';

-- Verdicts and scores -----------------------------------------------------------------------------------------------

CREATE TABLE store.verifiers (
    verifier_id VARCHAR PRIMARY KEY,
    name        VARCHAR NOT NULL,
    version     INTEGER NOT NULL,
    settings    JSON NOT NULL,
    recorded_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE store.verifiers IS 'What a verifier_id stands for.';
COMMENT ON COLUMN store.verifiers.verifier_id IS 'Digest of VERIFIER_VERSION, extraction and grading policy, or of a reward of one''s own.';
COMMENT ON COLUMN store.verifiers.name IS 'math, or package.module:attribute.';
COMMENT ON COLUMN store.verifiers.version IS 'VERIFIER_VERSION, or the reward''s own version.';
COMMENT ON COLUMN store.verifiers.settings IS 'Extraction, grading policy, arguments.';
COMMENT ON COLUMN store.verifiers.recorded_at IS 'UTC; when it was used first.';

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
COMMENT ON TABLE store.verdicts IS 'Gradings; another verifier or a mended gold adds rows and keeps these.';
COMMENT ON COLUMN store.verdicts.trajectory_id IS 'The graded response.';
COMMENT ON COLUMN store.verdicts.gold_digest IS 'The gold answer that it was graded against.';
COMMENT ON COLUMN store.verdicts.verifier_id IS 'What graded it.';
COMMENT ON COLUMN store.verdicts.status IS 'correct, incorrect, no_answer, timeout, error or rejected.';
COMMENT ON COLUMN store.verdicts.reward IS 'The verifier''s reward, before the run''s transform.';
COMMENT ON COLUMN store.verdicts.answer IS 'The extracted answer; NULL where none was found.';
COMMENT ON COLUMN store.verdicts.tier IS 'The tier of the verifier that decided.';
COMMENT ON COLUMN store.verdicts.seconds IS 'Seconds of grading.';
COMMENT ON COLUMN store.verdicts.details IS 'Why, in words; empty where the tier says it all.';
COMMENT ON COLUMN store.verdicts.graded_at IS 'UTC.';

CREATE TABLE store.reference_scores (
    trajectory_id       VARCHAR NOT NULL,
    reference_policy_id VARCHAR NOT NULL,
    scoring_id          VARCHAR NOT NULL,
    logprob             DOUBLE NOT NULL,
    root_value          DOUBLE NOT NULL,
    PRIMARY KEY (trajectory_id, reference_policy_id, scoring_id)
);
COMMENT ON TABLE store.reference_scores IS 'Two scalars of a response under a reference, by the trainer''s own forward pass.';
COMMENT ON COLUMN store.reference_scores.trajectory_id IS 'The response.';
COMMENT ON COLUMN store.reference_scores.reference_policy_id IS 'The reference.';
COMMENT ON COLUMN store.reference_scores.scoring_id IS 'Digest of LEARNING_VERSION, compute precision and policy temperature.';
COMMENT ON COLUMN store.reference_scores.logprob IS 'log pi_ref of the response in nats, summed over its tokens.';
COMMENT ON COLUMN store.reference_scores.root_value IS 'V_ref(s1) in nats: logsumexp of the logits at the last prompt position.';

-- Replay and learning -----------------------------------------------------------------------------------------------

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
COMMENT ON COLUMN store.replay_entries.run_id IS 'The run that admitted it.';
COMMENT ON COLUMN store.replay_entries.iteration IS 'The round that admitted it.';
COMMENT ON COLUMN store.replay_entries.position IS 'Place within the round, from 0.';
COMMENT ON COLUMN store.replay_entries.trajectory_id IS 'The admitted response.';
COMMENT ON COLUMN store.replay_entries.verifier_id IS 'The verifier of the verdict that was used.';
COMMENT ON COLUMN store.replay_entries.gold_digest IS 'The gold answer of the verdict that was used.';
COMMENT ON COLUMN store.replay_entries.reward_used IS 'The frozen reward that learning uses, after the transform.';

CREATE TABLE store.updates (
    policy_id               VARCHAR NOT NULL,
    update_index            INTEGER NOT NULL,
    kind                    VARCHAR NOT NULL CHECK (kind IN ('fresh', 'replay')),
    loss                    DOUBLE,
    grad_norm               DOUBLE,
    lr                      DOUBLE NOT NULL,
    skipped                 BOOLEAN NOT NULL,
    trajectories            INTEGER NOT NULL,
    tokens                  BIGINT NOT NULL,
    residual_mean           DOUBLE,
    residual_std            DOUBLE,
    log_ratio_mean          DOUBLE,
    root_value_gap_mean     DOUBLE,
    generated_round_mean    DOUBLE,
    uses_mean               DOUBLE,
    PRIMARY KEY (policy_id, update_index)
);
COMMENT ON TABLE store.updates IS 'Optimizer steps that made a policy of its parent. Statistics are over the members, before the step.';
COMMENT ON COLUMN store.updates.policy_id IS 'The policy that the round''s updates gave.';
COMMENT ON COLUMN store.updates.update_index IS 'Which step of the round, from 0.';
COMMENT ON COLUMN store.updates.kind IS 'fresh: the round''s own batch; replay: drawn from the window.';
COMMENT ON COLUMN store.updates.loss IS 'Before the step; NULL when it was not finite.';
COMMENT ON COLUMN store.updates.grad_norm IS 'Global norm before clipping; NULL when it was not finite.';
COMMENT ON COLUMN store.updates.lr IS 'Learning rate of the step.';
COMMENT ON COLUMN store.updates.skipped IS 'The step was not finite and changed nothing.';
COMMENT ON COLUMN store.updates.trajectories IS 'Members: responses that it was trained on.';
COMMENT ON COLUMN store.updates.tokens IS 'Response tokens of its members.';
COMMENT ON COLUMN store.updates.residual_mean IS 'Mean Bellman residual in nats; NULL where the objective has none.';
COMMENT ON COLUMN store.updates.residual_std IS 'Population standard deviation of the residual in nats.';
COMMENT ON COLUMN store.updates.log_ratio_mean IS 'Mean log pi - log pi_ref in nats; NULL where the objective has no reference.';
COMMENT ON COLUMN store.updates.root_value_gap_mean IS 'Mean V(s1) - V_ref(s1) in nats; NULL where the objective has none.';
COMMENT ON COLUMN store.updates.generated_round_mean IS 'Mean round in which its members were sampled.';
COMMENT ON COLUMN store.updates.uses_mean IS 'Mean uses of its members so far along the policy''s lineage, this one included.';

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
COMMENT ON TABLE store.update_trajectories IS 'What each update was trained on, in order. Values are before the step.';
COMMENT ON COLUMN store.update_trajectories.policy_id IS 'The policy that the round''s updates gave.';
COMMENT ON COLUMN store.update_trajectories.update_index IS 'Which step of the round, from 0.';
COMMENT ON COLUMN store.update_trajectories.position IS 'Place within the update, from 0.';
COMMENT ON COLUMN store.update_trajectories.trajectory_id IS 'The response that was trained on.';
COMMENT ON COLUMN store.update_trajectories.reward IS 'The reward used.';
COMMENT ON COLUMN store.update_trajectories.weight IS 'Importance weight of the draw.';
COMMENT ON COLUMN store.update_trajectories.residual IS 'Bellman residual in nats; NULL where the objective has none.';
COMMENT ON COLUMN store.update_trajectories.log_ratio IS 'log pi - log pi_ref in nats; NULL where the objective has no reference.';
COMMENT ON COLUMN store.update_trajectories.root_value_gap IS 'V(s1) - V_ref(s1) in nats; NULL where the objective has none.';

-- Evaluation --------------------------------------------------------------------------------------------------------

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
COMMENT ON COLUMN store.evaluations.evaluation_id IS 'Digest of benchmark, batch and verifier.';
COMMENT ON COLUMN store.evaluations.policy_id IS 'The policy.';
COMMENT ON COLUMN store.evaluations.benchmark IS 'Name, or path of the problem file.';
COMMENT ON COLUMN store.evaluations.benchmark_id IS 'Digest of its problems and gold answers.';
COMMENT ON COLUMN store.evaluations.batch_id IS 'The sampled responses.';
COMMENT ON COLUMN store.evaluations.verifier_id IS 'What graded them.';
COMMENT ON COLUMN store.evaluations.problem_count IS 'Problems.';
COMMENT ON COLUMN store.evaluations.samples_per_problem IS 'k: responses to each problem.';
COMMENT ON COLUMN store.evaluations.settings IS 'Sampling settings and seed.';
COMMENT ON COLUMN store.evaluations.created_at IS 'UTC.';

CREATE TABLE store.evaluation_metrics (
    evaluation_id   VARCHAR NOT NULL,
    metric          VARCHAR NOT NULL,
    value           DOUBLE,
    low             DOUBLE,
    high            DOUBLE,
    PRIMARY KEY (evaluation_id, metric)
);
COMMENT ON TABLE store.evaluation_metrics IS 'avg@k, pass@k, maj@k and shares, with 95 % bootstrap intervals over problems.';
COMMENT ON COLUMN store.evaluation_metrics.evaluation_id IS 'The evaluation.';
COMMENT ON COLUMN store.evaluation_metrics.metric IS 'Name, such as avg@16.';
COMMENT ON COLUMN store.evaluation_metrics.value IS 'Point estimate; NULL where nothing was there to count (0 of 0).';
COMMENT ON COLUMN store.evaluation_metrics.low IS 'Lower end of the 95 % interval; NULL where there is none.';
COMMENT ON COLUMN store.evaluation_metrics.high IS 'Upper end of the 95 % interval; NULL where there is none.';
