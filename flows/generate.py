"""Generation alone: responses of a policy, graded and stored, for `reval learn` to learn from or for SQL to look at.

    reval generate POLICY --config configs/quickstart.yaml --rounds 4

A round is that of training: same problems, same seeds, same batch. So a training run that comes to the same policy in
the same round finds its responses stored, and nothing is sampled twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from prefect import flow

from flows.evaluate import settings_of
from reval_core.config import Config
from reval_core.config_files import apply_override, parse_config
from reval_core.home import Home
from tasks.context import flow_run_id, tagged
from tasks.fork import run_id_of
from tasks.generate import generate
from tasks.open_run import open_run
from tasks.persist import persist
from tasks.progress import Progress
from tasks.publish import publish
from tasks.verify import verify


@dataclass(frozen=True)
class Generated:
    """What a policy answered."""

    run_id: str
    policy_id: str
    rounds: int
    responses: int
    tokens: int
    executed: tuple[str, ...]
    """``stage@round`` of what was done now; empty when all was stored already."""
    statuses: dict[str, int]
    """Verdicts by status."""


@flow(name="generate", flow_run_name="generate {config.run.name}", validate_parameters=False)
def generate_flow(config: Config, home: Home, progress: Progress, policy_id: str | None) -> Generated:
    """Sample, grade and store ``run.iterations`` rounds of one policy.

    Args:
        config: the resolved configuration.
        home: the root under which everything lies.
        progress: where live progress is shown.
        policy_id: a policy of the store; None for the configured base model itself.
    """
    run_id = run_id_of(config, selection_id=f"generate {policy_id}")
    statuses: Counter[str] = Counter()
    responses = tokens = 0
    with open_run(config, home, progress=progress, run_id=run_id, flow_run_id=flow_run_id()) as run, tagged(run):
        policy = policy_id or run.base.policy_id
        for here in run.rounds():
            batch = generate(here, policy)
            verdicts = verify(here, batch)
            persist(here, batch, verdicts)
            publish(here)
            responses, tokens = responses + batch.trajectories, tokens + batch.tokens
            statuses.update(verdicts.statuses)
        executed = tuple(run.executed)
    return Generated(run_id, policy, config.run.iterations, responses, tokens, executed, dict(statuses.most_common()))


def generation_of(
    home: Home, policy: str, rounds: int, config: str | None, overrides: list[str]
) -> tuple[Config, str | None]:
    """The configuration of a generation, and the stored policy's id, None for a base model."""
    policy_id, tree = settings_of(home, policy, Path(config) if config else None)
    name = policy_id.removeprefix("pol_")[:12] if policy_id else "base"
    tree["run"] = {**tree.get("run", {}), "name": f"generate-{name}", "iterations": rounds}
    tree["offline"] = None
    tree["evaluation"] = {**tree.get("evaluation", {}), "before": False, "after": False, "every": None}
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree), policy_id
