"""Which saved policies may go: what their run's rules do not keep, and nobody rests on.

A policy without a folder can be learned again from stored trajectories, so a folder saves time, not results. It stays,
whatever the rules say, where a run goes on from it, was forked from it or learns under it, and where it could not be
learned again: payloads on the way to it were dropped, or the base model is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from reval_core.errors import ConfigError
from reval_core.policies.folder import has_optimizer, remove_policy
from reval_core.store import Store, archive, lineage
from reval_core.store import statements as sql
from reval_core.store.outside import Saved, standings, way_back
from reval_core.upkeep import RetentionConfig


@dataclass(frozen=True)
class SavedPolicy:
    """A learned policy's folder."""

    policy_id: str
    run_id: str | None
    """The run that first gave it."""
    iteration: int | None
    """The round that gave it."""
    folder: Path
    whole: bool
    """Whether it is a checkpoint: it has the optimizer's state, so learning can go on from it."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Decision:
    """What is to become of a folder."""

    policy: SavedPolicy
    goes: bool
    why: str
    """The rule that keeps it, or the rules that do not."""


def saved_policies(connection: duckdb.DuckDBPyConnection, root: Path) -> list[SavedPolicy]:
    """Folders of learned policies that are there, ancestors before their descendants."""
    found = [(row, root / row["folder"]) for row in sql.records(connection, "retention", "saved")]
    return [
        SavedPolicy(
            policy_id=row["policy_id"],
            run_id=row["run_id"],
            iteration=row["iteration"],
            folder=folder,
            whole=has_optimizer(folder),
            size=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        )
        for row, folder in found
        if folder.is_dir()
    ]


def as_saved(found: list[SavedPolicy]) -> Saved:
    """The same, as what archiving asks for."""
    return Saved(
        weights=frozenset(one.policy_id for one in found), whole=frozenset(one.policy_id for one in found if one.whole)
    )


def decide(
    connection: duckdb.DuckDBPyConnection,
    root: Path,
    rules: Mapping[str, RetentionConfig],
    dropping: pa.Table | None = None,
) -> list[Decision]:
    """What the rules make of every saved policy.

    Args:
        connection: of a read.
        root: under which the folders lie.
        rules: by run; a run that is not named keeps everything.
        dropping: payloads that are about to be dropped, a table with trajectory_id.

    Raises:
        ConfigError: a run is to keep its best policy by a metric that none of its evaluations has.
    """
    found = saved_policies(connection, root)
    needed = _needed(connection, as_saved(found))
    kept = _kept_by_rules(connection, found, rules)
    parents: dict[str, str] = dict(sql.rows(connection, "archive", "parents"))
    bases = {name: (root / folder).is_dir() for name, folder in sql.rows(connection, "retention", "bases")}
    lost = archive.lost(connection, root, dropping)
    whole = as_saved(found).whole
    decisions = []
    for one in found:
        why = needed.get(one.policy_id) or kept.get(one.policy_id)
        if why is None:
            # the next saved policy may go as well, but only if it can come back itself
            way = list(way_back(one.policy_id, parents, whole - {one.policy_id}))
            why = _cannot_come_back(way, parents, lost, bases)
        decisions.append(Decision(one, why is None, why or _not_kept(one, rules[str(one.run_id)])))
    return decisions


def remove(store: Store, decision: Decision) -> None:
    """Remove a folder, then its mention in the store.

    Killed in between, a mention of what is gone is left, as where somebody deletes a folder: whoever follows one looks
    whether it is there. The other way round the folder would be left, and nothing would ever remove it.
    """
    folder = decision.policy.folder
    remove_policy(folder)
    with store.write() as connection:
        if not folder.is_dir():  # nobody has saved it anew
            lineage.set_folder(connection, decision.policy.policy_id, None)


def _needed(connection: duckdb.DuckDBPyConnection, saved: Saved) -> dict[str, str]:
    """Policies that somebody rests on, and why."""
    needed: dict[str, str] = {}
    for run in standings(connection):
        checkpoints = [one.policy_id for one in run.rounds if one.policy_id in saved.whole]
        for policy in checkpoints[-1:]:
            needed.setdefault(policy, f"newest checkpoint of {run.run_id}")
        if run.forked_from is not None:
            needed.setdefault(run.forked_from, f"{run.run_id} was forked from it")
        for policy in run.references(saved.whole):
            needed.setdefault(policy, f"{run.run_id} learns under it")
    return needed


def _kept_by_rules(
    connection: duckdb.DuckDBPyConnection, found: list[SavedPolicy], rules: Mapping[str, RetentionConfig]
) -> dict[str, str]:
    """Policies that a rule of a run keeps, and which."""
    kept: dict[str, str] = {}
    of_run: dict[str | None, list[SavedPolicy]] = defaultdict(list)
    for one in found:
        of_run[one.run_id].append(one)
    best = _best(connection, rules)
    for run_id, saved in of_run.items():
        rule = rules.get(run_id) if run_id is not None else None
        checkpoints = sorted((one for one in saved if one.whole), key=lambda one: one.iteration or 0)
        newest = [one.policy_id for one in checkpoints[-rule.keep_last :]] if rule and rule.keep_last else []
        for one in saved:
            why = _rule(one, rule, newest)
            if why is not None:
                kept[one.policy_id] = why
    return best | kept


def _rule(one: SavedPolicy, rule: RetentionConfig | None, newest: list[str]) -> str | None:
    """Which of its run's rules keeps a policy, the best one aside."""
    if rule is None:
        return "no run's rules name it"
    if not one.whole:
        return "retention.keep_evaluated" if rule.keep_evaluated else None
    if rule.keep_last is None and rule.keep_best is None and rule.keep_every is None:
        return "all checkpoints stay"
    if one.policy_id in newest:
        return f"retention.keep_last {rule.keep_last}"
    if rule.keep_every is not None and one.iteration is not None and (one.iteration + 1) % rule.keep_every == 0:
        return f"retention.keep_every {rule.keep_every}"
    return None


def _not_kept(one: SavedPolicy, rule: RetentionConfig) -> str:
    """The rules of which none keeps it."""
    if not one.whole:
        return "retention.keep_evaluated false"
    names = ("keep_last", "keep_best", "keep_every")
    return "not kept by " + ", ".join(f"{n} {v}" for n in names if (v := getattr(rule, n)) is not None)


def _best(connection: duckdb.DuckDBPyConnection, rules: Mapping[str, RetentionConfig]) -> dict[str, str]:
    """The best policy of each run that keeps one, and by which value."""
    best: dict[str, str] = {}
    rows = sql.records(connection, "retention", "metrics")
    for run_id, rule in rules.items():
        of_run = [row for row in rows if row["run_id"] == run_id]
        if rule.keep_best is None or not of_run:
            continue
        benchmark, _, metric = rule.keep_best.rpartition("/")
        values: dict[str, dict[str, float]] = defaultdict(dict)  # oldest policy first
        for row in of_run:
            if row["metric"] == metric and benchmark in ("", row["benchmark"]):
                values[row["policy_id"]][row["benchmark"]] = row["value"]
        if not values:
            known = sorted({f"{row['benchmark']}/{row['metric']}" for row in of_run})
            raise ConfigError(
                f"retention.keep_best is {rule.keep_best!r}, but no evaluation of {run_id} has it; there are "
                f"{', '.join(known)}. No policy was removed."
            )
        most = max(len(of_policy) for of_policy in values.values())  # compared on the same benchmarks only
        means = {name: sum(v.values()) / most for name, v in values.items() if len(v) == most}
        chosen = max(reversed(means), key=means.__getitem__)  # the newest of equals
        best[chosen] = f"retention.keep_best {rule.keep_best}: {means[chosen]:.3f}, the best of {run_id}"
    return best


def _cannot_come_back(
    way: list[str], parents: Mapping[str, str], lost: set[str], bases: Mapping[str, bool]
) -> str | None:
    """Why a policy could not be learned again along a way back to what is saved; None where it could."""
    if lost & set(way):
        return "could not be learned again: payloads on the way to it were dropped, or their archive is gone"
    if way and not bases.get(parents[way[-1]], True):
        return "could not be learned again: the base model's folder is gone"
    return None
