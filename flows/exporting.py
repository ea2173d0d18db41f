"""``reval export-policy``: a saved policy leaves the root as a plain model folder."""

from __future__ import annotations

from pathlib import Path

import duckdb

from flows.asking import store_of
from flows.opening import find_policy
from reval_core.config import flatten
from reval_core.errors import PolicyError
from reval_core.home import Home
from reval_core.policies.exporting import export_policy
from reval_core.policies.folder import read_manifest
from reval_core.policies.model_card import Origin, model_card
from reval_core.store import lineage, runs
from reval_core.store import statements as sql
from reval_core.store.lineage import PolicyRecord
from tasks.progress import Progress


def export_policy_to(home: Home, policy: str, dest: Path, progress: Progress) -> None:
    """Write a saved policy as a plain model folder, for other programs.

    Raises:
        PolicyError: it was never saved, or the folder cannot be written.
        StoreError: there is no such policy.
    """
    store = store_of(home)
    with store.read() as connection:
        record = lineage.policy(connection, find_policy(home, policy))
        folder = home.root / record.folder if record.folder else None
        manifest = read_manifest(folder) if folder is not None and folder.is_dir() else None
        base = lineage.policy(connection, manifest.base_policy_id) if manifest and manifest.base_policy_id else None
        page = _card(connection, dest.name, record)
    if folder is None or manifest is None:
        raise PolicyError(
            f"{record.policy_id} is in no folder of its own: it is a base model, or was not saved. Policies are saved "
            "every checkpoint.every rounds; `reval evaluate` saves the policy that it evaluates."
        )
    export_policy(folder, home.root / (base.folder or "") if base is not None else folder, dest, card=page)
    progress.say(f"{record.policy_id} written to {dest}")


def _card(connection: duckdb.DuckDBPyConnection, name: str, policy: PolicyRecord) -> str | None:
    """The policy's page; None of one that no run of this store made."""
    made = sql.record(connection, "policies", "made_in", policy_id=policy.policy_id)
    run = runs.find(connection, made["run_id"]) if made is not None else None
    if made is None or run is None:
        return None
    chain = [run]
    while chain[-1].parent_run_id is not None and (parent := runs.find(connection, chain[-1].parent_run_id)):
        chain.append(parent)
    learned = sql.record(connection, "policies", "learned_from", **made)
    assert learned is not None
    origin = Origin(
        policy_id=policy.policy_id,
        run_id=run.run_id,
        rounds=made["iteration"] + 1,
        updates=policy.updates_done,
        responses=learned["responses"],
        problems=learned["problems"],
        chain=tuple(one.run_id for one in chain),
        settings=flatten(dict(run.config)),
        versions=run.versions,
        weights_checksum=policy.weights_checksum,
    )
    return model_card(name, origin, sql.records(connection, "policies", "results", policy_id=policy.policy_id))
