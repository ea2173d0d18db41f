"""What the retention rules remove: payloads that no run needs, saved policies that no rule keeps, old files of views.

A plan says what would go and why. Carrying it out decides again, part by part, since runs go on meanwhile: payloads
first, so that a policy whose way back was dropped is seen to be irreplaceable, then policies, then files.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from reval_core.errors import RevalError
from reval_core.home import Home
from reval_core.policies import pruning
from reval_core.policies.pruning import Decision
from reval_core.process import ProcessIdentity
from reval_core.store import Store, archive, runs
from reval_core.store import statements as sql
from reval_core.store.archive import Moved
from reval_core.store.outside import Choice, Saved, outside
from reval_core.store.space import size
from reval_core.upkeep import RetentionConfig
from tasks.run import Here

log = logging.getLogger(__name__)

Rules = Mapping[str, RetentionConfig]
"""By run."""
DAY_S = 86400.0


@dataclass(frozen=True)
class Payloads:
    """A run's payloads that leave the database."""

    run_id: str
    dropped: bool
    """For good, or to an archive."""
    found: pa.Table
    """(trajectory_id, tokens, archive_id, ...), see `outside`."""

    @property
    def size(self) -> int:
        """Bytes of tokens and text, about."""
        return sum(self.found.column("tokens").to_pylist()) * archive.TOKEN_BYTES


@dataclass(frozen=True)
class Files:
    """Files of one kind and run that are old enough to go."""

    what: str
    run_id: str
    paths: tuple[Path, ...]
    why: str

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(size_of(path) for path in self.paths)


@dataclass(frozen=True)
class Plan:
    """What would go, and what stays of the saved policies."""

    payloads: list[Payloads]
    policies: list[Decision]
    files: list[Files]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would go."""
        return not (self.payloads or self.files or any(one.goes for one in self.policies))


@dataclass
class Done:
    """What went."""

    archived: Moved = field(default_factory=Moved)
    dropped: Moved = field(default_factory=Moved)
    policies: int = 0
    policy_bytes: int = 0
    files: int = 0
    file_bytes: int = 0

    def __str__(self) -> str:
        archived, dropped = self.archived.payloads, self.dropped.payloads
        parts = [
            (archived, f"payload(s) archived ({size(self.archived.file_bytes)} of Parquet)"),
            (dropped, "payload(s) dropped"),
            (self.policies, f"folder(s) of policies removed ({size(self.policy_bytes)})"),
            (self.files, f"file(s) removed ({size(self.file_bytes)})"),
        ]
        return ", ".join(f"{count:,} {what.replace('(s)', 's' * (count != 1))}" for count, what in parts if count)


def rules_of(store: Store) -> dict[str, RetentionConfig]:
    """Each run's own rules."""
    with store.read() as connection:
        found = sql.records(connection, "retention", "rules")
    return {row["run_id"]: RetentionConfig.model_validate(json.loads(row["retention"] or "{}")) for row in found}


def plan(home: Home, store: Store, rules: Rules, now: float | None = None) -> Plan:
    """What would go.

    Args:
        home: the root.
        store: its store.
        rules: by run; a run that is not named keeps everything.
        now: seconds since 1970, by default the clock's.

    Raises:
        ConfigError: a rule names a metric that there is none of.
    """
    payloads = list(_payloads(home, store, rules))
    dropping = [one.found.select(["trajectory_id"]) for one in payloads if one.dropped]
    with store.read() as connection:
        policies = pruning.decide(connection, home.root, rules, pa.concat_tables(dropping) if dropping else None)
    return Plan(payloads, policies, list(_files(home, store, rules, time.time() if now is None else now)))


def carry_out(
    home: Home,
    store: Store,
    rules: Rules,
    *,
    now: float | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Done:
    """Remove what `plan` would show now. The caller has the lock (`archive.alone`)."""
    done = Done()
    for one in _payloads(home, store, rules):
        if one.dropped:
            done.dropped += archive.drop(store, _saved(home, store), _choice(one.run_id, rules[one.run_id]))
        else:
            done.archived += archive.archive(store, one.found, lambda n, total: progress("archive", n, total))
    rest = plan(home, store, rules, now)
    for decision in rest.policies:
        if decision.goes:
            pruning.remove(store, decision)
            done.policies += 1
            done.policy_bytes += decision.policy.size
    for files in rest.files:
        done.files, done.file_bytes = done.files + len(files.paths), done.file_bytes + files.size
        _remove(store, home, files)
    return done


def prune(here: Here) -> None:
    """Apply the run's own rules. What fails here has lost nothing and is told, but does not end the run."""
    run = here.run
    rules = {run.run_id: run.config.retention}
    if run.config.retention == RetentionConfig():
        return
    try:
        with archive.alone(run.store):
            done = carry_out(run.home, run.store, rules, progress=run.progress.step)
        if str(done):
            log.info("retention: %s", done)
            with run.store.write() as connection:
                runs.add_event(connection, run.run_id, run.attempt, here.iteration, "retention", str(done))
    except (RevalError, OSError) as error:
        log.warning("the retention rules were not applied, the next checkpoint will do it: %s", error)


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _choice(run_id: str, rule: RetentionConfig) -> Choice:
    return Choice(run_id=run_id, after_rounds=rule.after_rounds, evaluations=rule.evaluations)


def _saved(home: Home, store: Store) -> Saved:
    with store.read() as connection:
        return pruning.as_saved(pruning.saved_policies(connection, home.root))


def _payloads(home: Home, store: Store, rules: Rules) -> Iterator[Payloads]:
    leaving = {run_id: rule for run_id, rule in rules.items() if rule.payloads != "keep"}
    saved = _saved(home, store) if leaving else Saved(frozenset(), frozenset())
    for run_id, rule in leaving.items():
        dropped = rule.payloads == "drop"
        with store.read() as connection:
            found = outside(connection, saved, _choice(run_id, rule))
            found = archive.droppable(connection, found) if dropped else archive.in_database(found)
        if found.num_rows:
            yield Payloads(run_id, dropped, found)


def _files(home: Home, store: Store, rules: Rules, now: float) -> Iterator[Files]:
    with store.read() as connection:
        attempts = sql.records(connection, "retention", "attempts")
        stages = sql.rows(connection, "retention", "results")
        shown = {row["run_id"]: row["mlflow_run_id"] for row in sql.records(connection, "retention", "rules")}
    living = {row["run_id"] for row in attempts if _is_living(row)}
    logs: dict[str, list[Path]] = defaultdict(list)
    for row in attempts:
        if row["log_path"] is not None and not _is_living(row):
            logs[row["run_id"]].append(home.root / row["log_path"])
    results: dict[str, list[Path]] = defaultdict(list)
    for run_id, stage_key in stages:
        results[run_id].append(home.prefect / "storage" / stage_key)
    for run_id, rule in rules.items():
        artifacts = [home.mlflow_artifacts / shown[run_id]] if shown.get(run_id) and run_id not in living else []
        for what, name, paths in (
            ("MLflow artifacts", "mlflow_days", artifacts),
            ("Prefect results", "prefect_days", results[run_id]),
            ("log files", "log_days", logs[run_id]),
        ):
            days = getattr(rule, name)
            old = [path for path in paths if days is not None and path.exists() and now - _written(path) > days * DAY_S]
            if old:
                yield Files(what, run_id, tuple(old), f"retention.{name} {days:g}")


def _is_living(attempt: Mapping[str, object]) -> bool:
    """Whether an attempt may still be under way; of another host nobody here can tell."""
    if attempt["status"] != "running":
        return False
    process = ProcessIdentity(attempt["pid"], attempt["host"], attempt["process_started"])  # type: ignore[arg-type]
    return process.is_alive() is not False


def _written(path: Path) -> float:
    """When a file, or the newest file of a folder, was written; seconds since 1970."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return max((file.stat().st_mtime for file in files), default=path.stat().st_mtime)


def _remove(store: Store, home: Home, files: Files) -> None:
    """Remove files; the store forgets logs first."""
    if files.what == "log files":
        gone = {str(path.relative_to(home.root)) for path in files.paths}
        with store.write() as connection:
            for row in sql.records(connection, "retention", "attempts"):
                if row["log_path"] in gone:
                    sql.rows(connection, "retention", "forget_log", run_id=row["run_id"], attempt=row["attempt"])
    for path in files.paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
