"""Rescore: grade stored responses again, by another verifier or after gold answers were mended. Old verdicts stay.

    reval rescore RUN --set reward.extraction=lenient

No model is loaded and nothing is sampled. `reval sql changed_verdicts` shows what two verifiers see differently.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from prefect import flow

from reval_core.config import RewardConfig
from reval_core.home import Home
from reval_core.store import Store, selections, trajectories
from reval_core.store import problems as stored_problems
from reval_core.store.selections import Change
from reval_core.verification import VERIFIER_VERSION
from tasks.grading import gold_digests, grader_of
from tasks.progress import Progress
from tasks.regrade import regrade

EXAMPLES = 3
"""Responses that are shown of each kind of change."""


@dataclass(frozen=True)
class Rescored:
    """What another grading found."""

    verifier_id: str
    responses: int
    """Chosen responses."""
    graded: int
    """Those that this verifier had not graded before."""
    statuses: dict[str, int]
    changed: dict[tuple[str, str], int]
    """(status by the verdict before, status now) to how many, where they differ."""
    examples: tuple[tuple[str, Change], ...] = ()
    """(gold answer, both verdicts) of a few responses of each kind of change."""


@flow(name="rescore", flow_run_name="rescore {what}", validate_parameters=False)
def rescore(reward: RewardConfig, home: Home, progress: Progress, what: str, parameters: dict[str, str]) -> Rescored:
    """Grade a selection of stored responses.

    Args:
        reward: the verifier, or a reward of one's own.
        home: the root.
        progress: where live progress is shown.
        what: ``window:RUN``, a named query, or SQL whose result has a column trajectory_id.
        parameters: values of ``$name``.
    """
    store = Store(home.database)
    store.prepare()
    with store.read() as connection:
        chosen = selections.about(connection, selections.choose(connection, what, parameters))
        problems = stored_problems.read(connection, [c.problem_id for c in chosen], whole_row=reward.use != "math")
        golds = gold_digests(chosen, problems)
        before = selections.last_statuses(connection, golds)
    with grader_of(reward) as grader:
        settings = {"extraction": reward.extraction, "policy": reward.policy, "args": reward.args}
        with store.write() as connection:
            stored_problems.add(connection, list(problems.values()))
            trajectories.add_verifier(connection, grader.grader_id, reward.use, VERIFIER_VERSION, settings)
        graded = regrade(store, chosen, problems, grader, progress, reward.max_failure_share)
        with store.read() as connection:
            found = selections.verdicts(connection, golds, grader.grader_id)
        changed = {name: golds[name] for name, (status, *_) in found.items() if before.get(name, status) != status}
        with store.read() as connection:
            examples = _examples(selections.changes(connection, changed, grader.grader_id))
    by_id = {one.trajectory_id: problems[one.problem_id].gold for one in chosen}
    shown = tuple((by_id[change.trajectory_id], change) for change in examples)
    return Rescored(grader.grader_id, len(chosen), graded, *_compared(before, found), shown)


def _examples(changes: list[Change]) -> list[Change]:
    """A few of each kind, those of different answers first."""
    kinds: dict[tuple[str, str], dict[str | None, Change]] = {}
    for change in changes:
        kinds.setdefault((change.status_before, change.status), {}).setdefault(change.answer, change)
    return [change for kind in kinds.values() for change in list(kind.values())[:EXAMPLES]]


def _compared(
    before: dict[str, str], found: dict[str, tuple[str, float, str | None]]
) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Statuses now, and the changes."""
    now = {name: verdict[0] for name, verdict in found.items()}
    changes = Counter((before[name], status) for name, status in now.items() if before.get(name, status) != status)
    return dict(Counter(now.values()).most_common()), dict(changes.most_common())
