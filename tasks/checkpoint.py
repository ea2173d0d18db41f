"""Checkpoint: save a policy with its optimizer state; rounds since the last one are learned again, not generated."""

from __future__ import annotations

from typing import Any

from reval_core.policies.folder import has_optimizer
from tasks import disk
from tasks.commit import Commit
from tasks.references import Saved
from tasks.run import Here
from tasks.stage import stage


def _inputs(here: Here, policy_id: str) -> dict[str, Any]:
    return {"policy_id": policy_id}


def _present(here: Here, saved: Saved) -> bool:
    folder = here.run.home.root / saved.folder
    return saved.policy_id == here.run.base.policy_id or has_optimizer(folder)


@stage("checkpoint", reference=Saved, inputs=_inputs, historic=False, present=_present)
def checkpoint(here: Here, policy_id: str) -> Commit[Saved]:
    """One folder: policy, optimizer state, lineage. Written aside, made durable, renamed."""
    run = here.run
    if policy_id == run.base.policy_id:
        return Commit(Saved(policy_id, run.base_folder))
    disk.check_policy(here, with_optimizer=True)
    folder = run.policies.save(policy_id, run_id=run.run_id, iteration=here.iteration, with_optimizer=True)
    return Commit(Saved(policy_id, str(folder.relative_to(run.home.root))))
