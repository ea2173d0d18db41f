"""Policies in the store: what made them, what each update was trained on, where their folder is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from reval_core.errors import StoreError
from reval_core.identity import LEARNING_VERSION, digest
from reval_core.store import statements as sql
from reval_core.store.migrations import now


@dataclass(frozen=True)
class Draw:
    """One trajectory in an update: which, the reward used, its importance weight."""

    trajectory_id: str
    reward: float
    weight: float
    group_id: str


@dataclass(frozen=True)
class PlannedUpdate:
    """One optimizer step that is to be made, fully determined by what it is trained on."""

    kind: str
    draws: tuple[Draw, ...]


@dataclass(frozen=True)
class LearningStep:
    """Everything that makes a policy of its parent. Its digest is the new policy's id."""

    parent_policy_id: str
    reference_policy_id: str | None
    settings: Mapping[str, Any]
    """Objective and optimizer settings, compute precision."""
    updates_before: int
    """Position in the optimizer's schedule."""
    updates: tuple[PlannedUpdate, ...]

    @property
    def policy_id(self) -> str:
        """Name of the lineage; it can be told before learning."""
        return digest(
            "pol",
            {
                "parent": self.parent_policy_id,
                "reference": self.reference_policy_id,
                "settings": dict(self.settings),
                "updates_before": self.updates_before,
                "updates": [[[d.trajectory_id, d.reward, d.weight] for d in update.draws] for update in self.updates],
                "learning_version": LEARNING_VERSION,
            },
        )


@dataclass(frozen=True)
class PolicyRecord:
    """A row of ``policies``."""

    policy_id: str
    kind: str
    parent_policy_id: str | None
    reference_policy_id: str | None
    settings: Mapping[str, Any]
    updates_done: int
    tokenizer_id: str
    weights_checksum: str
    folder: str | None
    """Relative to the root; None while the policy exists only as its lineage."""


STEP_SCHEMA = pa.schema(
    [
        ("update_index", pa.int32()),
        ("kind", pa.string()),
        ("loss", pa.float64()),
        ("grad_norm", pa.float64()),
        ("lr", pa.float64()),
        ("skipped", pa.bool_()),
        ("tokens", pa.int64()),
        ("uses_mean", pa.float64()),
    ]
)

UPDATE_ROW_SCHEMA = pa.schema(
    [
        ("position", pa.int32()),
        ("trajectory_id", pa.string()),
        ("reward", pa.float64()),
        ("weight", pa.float64()),
        ("residual", pa.float64()),
        ("log_ratio", pa.float64()),
        ("root_value_gap", pa.float64()),
    ]
)


def add_policy(
    connection: duckdb.DuckDBPyConnection, policy: PolicyRecord, *, run_id: str | None, attempt: int | None
) -> None:
    """Record a policy; one that is known stays as it is."""
    sql.rows(
        connection,
        "policies",
        "add_policy",
        **sql.parameters(policy),
        created_at=now(),
        run_id=run_id,
        attempt=attempt,
    )


def policy(connection: duckdb.DuckDBPyConnection, policy_id: str) -> PolicyRecord:
    """The policy of that id.

    Raises:
        StoreError: it is unknown.
    """
    row = sql.record(connection, "policies", "policy", policy_id=policy_id)
    if row is None:
        raise StoreError(f"There is no policy {policy_id} in this store. `reval runs` lists what there is.")
    return PolicyRecord(**row | {"settings": json.loads(row["settings"])})


def set_folder(connection: duckdb.DuckDBPyConnection, policy_id: str, folder: str | None) -> None:
    """Record where a policy was saved, relative to the root."""
    sql.rows(connection, "policies", "set_folder", policy_id=policy_id, folder=folder)


def uses(connection: duckdb.DuckDBPyConnection, policy_id: str, names: Sequence[str]) -> Counter[str]:
    """How often each of the named trajectories was trained on along the policy's lineage."""
    wanted = pa.table({"trajectory_id": pa.array(names, pa.string())})
    return Counter(dict(sql.rows(connection, "policies", "uses", {"wanted": wanted}, policy_id=policy_id)))


@dataclass(frozen=True, eq=False)
class UpdateRecord:
    """One optimizer step that was made."""

    index: int
    kind: str
    loss: float | None
    grad_norm: float | None
    lr: float
    skipped: bool
    tokens: int
    rows: pa.Table
    """Its members, of `UPDATE_ROW_SCHEMA`."""


def add_updates(
    connection: duckdb.DuckDBPyConnection, policy_id: str, updates: Sequence[UpdateRecord], used: Counter[str]
) -> None:
    """Record optimizer steps, what they were trained on, and the members' statistics; a known step stays as it is.

    Args:
        connection: of a transaction.
        policy_id: the policy that they gave.
        updates: in the order in which they were made, at least one.
        used: how often their trajectories were used before along the policy's lineage (`uses`); counted up here.
    """
    steps, parts = [], []
    for update in updates:
        members = update.rows.column("trajectory_id").to_pylist()
        used.update(members)
        step = {name: getattr(update, name) for name in STEP_SCHEMA.names if name not in ("update_index", "uses_mean")}
        uses_mean = sum(used[name] for name in members) / len(members)
        steps.append(step | {"update_index": update.index, "uses_mean": uses_mean})
        index = pa.array([update.index] * update.rows.num_rows, pa.int32())
        parts.append(update.rows.append_column("update_index", index))
    part = pa.concat_tables(parts)
    sql.rows(connection, "policies", "add_update_trajectories", {"part": part}, policy_id=policy_id)
    tables = {"steps": pa.Table.from_pylist(steps, schema=STEP_SCHEMA), "part": part}
    sql.rows(connection, "policies", "add_updates", tables, policy_id=policy_id)


def learning_step(connection: duckdb.DuckDBPyConnection, record: PolicyRecord) -> LearningStep:
    """The step that made a stored policy, ready to be learned again."""
    if record.kind == "foreign":
        raise StoreError(f"{record.policy_id} is a model of another system, of which only the name is known.")
    if record.parent_policy_id is None:
        raise StoreError(f"{record.policy_id} is a base policy: its files are what it is, and no updates made it.")
    found = sql.table(connection, "policies", "updates_of", policy_id=record.policy_id)
    updates: dict[int, tuple[str, list[Draw]]] = {}
    for row in found.to_pylist():
        index, kind = row.pop("update_index"), row.pop("kind")
        updates.setdefault(index, (kind, []))[1].append(Draw(**row))
    planned = tuple(PlannedUpdate(kind, tuple(draws)) for _, (kind, draws) in sorted(updates.items()))
    return LearningStep(
        parent_policy_id=record.parent_policy_id,
        reference_policy_id=record.reference_policy_id,
        settings=record.settings,
        updates_before=record.updates_done - len(planned),
        updates=planned,
    )


def add_realisation(
    connection: duckdb.DuckDBPyConnection,
    policy_id: str,
    weights_checksum: str,
    versions: Mapping[str, Any],
    logprob_drift: float | None,
) -> None:
    """Record that learning a policy again gave other weights, and how far its log-probs are from the first's."""
    sql.rows(
        connection,
        "policies",
        "add_realisation",
        policy_id=policy_id,
        weights_checksum=weights_checksum,
        versions=json.dumps(dict(versions)),
        logprob_drift=logprob_drift,
        recorded_at=now(),
    )


def trajectory_ids(updates: Sequence[PlannedUpdate]) -> list[str]:
    """All trajectories of some updates, each once, in order of first use."""
    return list(dict.fromkeys(draw.trajectory_id for update in updates for draw in update.draws))


def versions_of(connection: duckdb.DuckDBPyConnection, policy_id: str) -> dict[str, Any]:
    """Versions under which the policy was learned; empty when they are not known."""
    row = sql.row(connection, "policies", "versions_of", policy_id=policy_id)
    return json.loads(row[0]) if row else {}


def behaviour_logprobs(connection: duckdb.DuckDBPyConnection, policy_id: str, most: int) -> dict[str, float]:
    """Log-probs in nats that the engine gave for some stored responses of the policy, by trajectory."""
    found = sql.rows(connection, "policies", "behaviour_logprobs", policy_id=policy_id, most=most)
    return {name: float(value) for name, value in found}


def exists(connection: duckdb.DuckDBPyConnection, policy_id: str) -> bool:
    """Whether the store knows the policy."""
    return sql.row(connection, "policies", "policy", policy_id=policy_id) is not None
