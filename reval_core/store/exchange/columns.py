"""The columns of an exported file: a row is one response with all that is known of it.

One row is whole: its batch, problem, tokens, verdicts and scores stand in it, so that any part of an export can be
learned from or imported back by itself. Two layouts have the same columns: ``parquet``, whose folders tell run and
iteration, and ``hf``, which names the conversation as TRL's trainers do (https://huggingface.co/docs/trl/dataset_formats).
"""

from __future__ import annotations

import pyarrow as pa

SLICE_BYTES = 32 * 2**20
"""Tokens and text that are read, written or appended at once, about: for so long others wait for the database."""

_TIME = pa.timestamp("us")
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_VERDICT = pa.struct(
    [
        ("verifier_id", pa.string()),
        ("verifier", pa.string()),
        ("verifier_version", pa.int32()),
        ("verifier_settings", pa.string()),
        ("gold_digest", pa.string()),
        ("status", pa.string()),
        ("reward", pa.float64()),
        ("answer", pa.string()),
        ("tier", pa.string()),
        ("seconds", pa.float64()),
        ("details", pa.string()),
        ("graded_at", _TIME),
    ]
)
_SCORE = pa.struct(
    [
        ("reference_policy_id", pa.string()),
        ("scoring_id", pa.string()),
        ("logprob", pa.float64()),
        ("root_value", pa.float64()),
    ]
)
_GOLD = pa.struct(
    [("gold_digest", pa.string()), ("gold", pa.string()), ("recorded_at", _TIME), ("counts_since", _TIME)]
)
_SOURCE = pa.struct(
    [("source", pa.string()), ("external_id", pa.string()), ("metadata", pa.string()), ("recorded_at", _TIME)]
)
_PROVENANCE = pa.struct(
    [
        ("run_id", pa.string()),
        ("attempt", pa.int32()),
        ("created_at", _TIME),
        ("batch_run_id", pa.string()),
        ("batch_attempt", pa.int32()),
        ("batch_created_at", _TIME),
        ("problem_recorded_at", _TIME),
    ]
)

COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("run_id", pa.string(), "The run that it is exported for; null where no run sampled it."),
    ("iteration", pa.int32(), "Round of that run, from 0; null in evaluations and imports."),
    ("trajectory_id", pa.string(), "Digest of batch, problem and sample index."),
    ("batch_id", pa.string(), "Its batch; responses of one batch and problem are a group."),
    ("problem_id", pa.string(), "Digest of the messages."),
    ("prompt_id", pa.string(), "Digest of prompt_ids."),
    ("sample_index", pa.int32(), "Which response to the problem in its batch, from 0."),
    ("purpose", pa.string(), "training, evaluation or imported."),
    ("policy_id", pa.string(), "The policy that sampled it."),
    ("weights_checksum", pa.string(), "Digest of the weights that sampled the first part of its batch."),
    ("tokenizer_id", pa.string(), "Digest of the tokenizer's files."),
    ("engine", pa.string(), "Rollout engine with its precision."),
    ("sampling", pa.string(), "JSON: temperature, top_p, top_k, max_new_tokens, stop_ids, seed and others."),
    ("round", pa.int32(), "Round that its batch was sampled in, from 0; 0 in evaluations and imports."),
    ("generation", pa.int32(), "Counts up with each forced regeneration of the round, from 0."),
    ("prompt_count", pa.int32(), "Prompts of its batch."),
    ("trajectory_count", pa.int32(), "Responses of its whole batch."),
    ("question", pa.string(), "Text of the last user message."),
    ("messages", _MESSAGES, "The conversation that was asked."),
    ("gold", pa.string(), "The gold answer that the verdict shown was given against; null before grading."),
    ("prompt", pa.string(), "The rendered prompt, special tokens included."),
    ("prompt_ids", pa.list_(pa.int32()), "Token ids of the prompt."),
    ("response_ids", pa.list_(pa.int32()), "Token ids of the response, EOS included when it was generated."),
    ("completion", pa.string(), "Text of the response without the token that ended it."),
    ("finish_reason", pa.string(), "stop: it ended itself; length, budget, deadline: what it was cut by."),
    ("truncated", pa.bool_(), "Whether it was cut."),
    ("prompt_tokens", pa.int32(), "Tokens of the prompt."),
    ("response_tokens", pa.int32(), "Tokens of the response."),
    ("seed", pa.uint64(), "Seed of its sampling; 0 in imports, whose seed nobody knows."),
    ("behaviour_logprob", pa.float64(), "Summed log-probability by the rollout engine, in nats; null when unknown."),
    ("status", pa.string(), "Of the verdict shown: the run's own, else the newest; null before grading."),
    ("correct", pa.bool_(), "Whether that status is correct."),
    ("reward", pa.float64(), "That verdict's reward."),
    ("answer", pa.string(), "The answer that it extracted."),
    ("reward_used", pa.float64(), "The reward that the run learned from; null where it was not admitted."),
    ("verdicts", pa.list_(_VERDICT), "All gradings, oldest first."),
    ("reference_scores", pa.list_(_SCORE), "log pi_ref and V_ref(s1) in nats, by reference and way of scoring."),
    ("golds", pa.list_(_GOLD), "All versions of the problem's gold answer, oldest first; times in UTC."),
    ("sources", pa.list_(_SOURCE), "Where the problem was read, with the further columns there as JSON."),
    ("provenance", _PROVENANCE, "Who wrote the response and its batch, and when (UTC)."),
)
"""Name, type and meaning of every column, in order."""

SCHEMA = pa.schema([pa.field(name, kind, metadata={"comment": text}) for name, kind, text in COLUMNS])
PARTITIONS = ("run_id", "iteration")
"""Columns that the folders of the layout ``parquet`` tell."""
SHOWN = ("status", "correct", "reward", "answer", "reward_used", "gold", "question", "truncated")
"""What one view of the response says; the verdicts, golds and messages of its row say the same and more."""
RESTORED = tuple(name for name in SCHEMA.names if name not in (*PARTITIONS, *SHOWN, "prompt_tokens", "response_tokens"))
"""Columns that an import reads."""

HUB_NAMES = {"messages": "prompt", "prompt": "prompt_text", "completion": "completion_text"}
"""Our names to those of the layout ``hf``, where ``prompt`` and ``completion`` are messages."""
_HUB_COMMENTS = {
    "prompt": "The conversation that was asked: a list of {role, content}.",
    "completion": "The response as a message of the assistant.",
}


def for_hub(table: pa.Table) -> pa.Table:
    """The table of `SCHEMA` in the columns of the layout ``hf``."""
    text = table.column("completion").combine_chunks()
    roles = pa.array(["assistant"], pa.string()).take(pa.array([0] * len(text), pa.int64()))
    replies = pa.ListArray.from_arrays(
        pa.array(range(len(text) + 1), pa.int32()), pa.StructArray.from_arrays([roles, text], ["role", "content"])
    )
    renamed = table.rename_columns([HUB_NAMES.get(name, name) for name in table.column_names])
    return pa.table(
        [replies if name == "completion" else renamed.column(name) for name in HUB_SCHEMA.names], schema=HUB_SCHEMA
    )


def _hub_schema() -> pa.Schema:
    fields = [field.with_name(HUB_NAMES.get(field.name, field.name)) for field in SCHEMA]
    at = next(index for index, field in enumerate(fields) if field.name == "completion_text")
    fields.insert(at, pa.field("completion", _MESSAGES))
    return pa.schema(
        [f.with_metadata({"comment": _HUB_COMMENTS[f.name]}) if f.name in _HUB_COMMENTS else f for f in fields]
    )


HUB_SCHEMA = _hub_schema()


def from_hub(table: pa.Table) -> pa.Table:
    """A table of the layout ``hf`` under our names again; one of the other layout as it is."""
    if "prompt_text" not in table.column_names:
        return table
    ours = {theirs: name for name, theirs in HUB_NAMES.items()}
    kept = table.drop_columns(["completion"]) if "completion" in table.column_names else table
    return kept.rename_columns([ours.get(name, name) for name in kept.column_names])
