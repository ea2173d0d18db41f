"""``reval export-policy``: a saved policy leaves the root as a plain model folder."""

from __future__ import annotations

from pathlib import Path

from flows.asking import store_of
from flows.opening import find_policy
from reval_core.errors import PolicyError
from reval_core.home import Home
from reval_core.policies.exporting import export_policy
from reval_core.policies.folder import read_manifest
from reval_core.store import lineage
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
    if folder is None or manifest is None:
        raise PolicyError(
            f"{record.policy_id} is in no folder of its own: it is a base model, or was not saved. Policies are saved "
            "every checkpoint.every rounds; `reval evaluate` saves the policy that it evaluates."
        )
    export_policy(folder, home.root / (base.folder or "") if base is not None else folder, dest)
    progress.say(f"{record.policy_id} written to {dest}")
