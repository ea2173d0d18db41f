"""An attempt at a run: recorded when it begins, with what it runs under, and when it ends, however it ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb

from reval_core import environment
from reval_core.config import Config, flatten
from reval_core.errors import StoreError
from reval_core.home import Home
from reval_core.process import ProcessIdentity
from reval_core.redaction import without_secrets
from reval_core.store import Store, runs, stages, trajectories
from reval_core.store.runs import RunRecord
from reval_core.verification import VERIFIER_VERSION, Grader
from tasks.ended import Ended, read_record, record_path
from tasks.ending import ASKED_TO_END
from tasks.fork import Fork
from tasks.watched import EVENT, StageEnded, told_apart

log = logging.getLogger(__name__)


def begin(
    store: Store,
    new: RunRecord,
    *,
    grader: Grader,
    config: Config,
    versions: Mapping[str, Any],
    device: str,
    flow_run_id: str | None,
    alone: bool,
    home: Home,
) -> tuple[RunRecord, int]:
    """Record the run, if it is new, and this attempt at it.

    Args:
        store: the store.
        new: what the run is recorded as when it is new.
        grader: what it learns from.
        config: as this attempt was asked for; settings that are no identity may differ from the run's first.
        versions, device: what this process runs under.
        flow_run_id: Prefect's id of it.
        alone: refuse a second process at one run.
        home: the root, where the watcher's records lie.

    Returns:
        The run as it is recorded, and the number of the attempt.

    Raises:
        StoreError: another process works on the run, or the run to fork from is not there.
    """
    me = ProcessIdentity.mine()
    with store.write() as connection:
        record = runs.find(connection, new.run_id) or _added(connection, new)
        if alone:
            _refuse_another(connection, record.run_id, me)
        first = stages.rounds_done(stages.history(connection, record.run_id))
        changed = _changes(connection, record, versions, grader.grader_id)
        _record_killed(connection, home, record.run_id)
        attempt = runs.start_attempt(
            connection,
            record.run_id,
            me,
            git_commit=environment.git_commit(),
            versions=versions,
            device=environment.device_name(device),
            flow_run_id=flow_run_id,
        )
        if new.config != record.config:
            runs.set_config(connection, record.run_id, new.config)
            message = _changed_settings(record.config, new.config)
            runs.add_event(connection, record.run_id, attempt, first, "changed settings", message)
        settings = {"extraction": config.reward.extraction, "policy": config.reward.policy, "args": config.reward.args}
        trajectories.add_verifier(connection, grader.grader_id, config.reward.use, VERIFIER_VERSION, settings)
        if changed:
            message = "; ".join(changed)
            log.warning("goes on under other versions: %s", message)
            runs.add_event(connection, record.run_id, attempt, first, "changed versions", message)
    return record, attempt


def _changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """``run.iterations: 2 -> 3; ...``"""
    old, new = flatten(dict(before)), flatten(dict(after))
    return "; ".join(f"{key}: {old.get(key)} -> {value}" for key, value in new.items() if old.get(key) != value)


def _record_killed(connection: duckdb.DuckDBPyConnection, home: Home, run_id: str) -> None:
    """Attempts that the watcher had to kill could not say so themselves."""
    for attempt, process in runs.running_attempts(connection, run_id).items():
        ended = None if process.is_alive() else read_record(record_path(home, run_id, attempt))
        if ended is not None:
            runs.end_attempt(connection, run_id, attempt, "failed", ended.message)
            _add_end(connection, run_id, attempt, ended)


def _add_end(connection: duckdb.DuckDBPyConnection, run_id: str, attempt: int, ended: Ended) -> None:
    runs.add_event(connection, run_id, attempt, ended.iteration, EVENT, ended.message)


def new_run(
    config: Config, run_id: str, fork: Fork | None, base_policy_id: str, verifier_id: str, versions: Mapping[str, Any]
) -> RunRecord:
    """What a run of this configuration is recorded as."""
    return RunRecord(
        run_id=run_id,
        name=config.run.name,
        config=config.model_dump(mode="json"),
        config_id=config.config_id,
        seed=config.run.seed,
        base_policy_id=base_policy_id,
        verifier_id=verifier_id,
        versions=versions,
        parent_run_id=fork.parent_run_id if fork else None,
        fork_iteration=fork.iteration if fork else None,
        forced=dict(fork.forced) if fork else {},
    )


def _added(connection: duckdb.DuckDBPyConnection, new: RunRecord) -> RunRecord:
    if new.parent_run_id is not None and runs.find(connection, new.parent_run_id) is None:
        raise StoreError(f"There is no run {new.parent_run_id} to fork from. `reval runs` lists what there is.")
    runs.add(connection, new)
    return new


def _refuse_another(connection: duckdb.DuckDBPyConnection, run_id: str, me: ProcessIdentity) -> None:
    for attempt, process in runs.running_attempts(connection, run_id).items():
        alive = process.is_alive()
        if alive and process != me:
            raise StoreError(
                f"Run {run_id} is being worked on by process {process.pid} (attempt {attempt}). Wait for it or end "
                "it; two attempts at one run would only do the same work twice."
            )
        if alive is None:
            log.warning(
                "attempt %d was started on %s, which cannot be seen from here, and has not ended; if it still runs, "
                "end it there: only one of the two can commit a stage",
                attempt,
                process.host,
            )


def _changes(
    connection: duckdb.DuckDBPyConnection, record: RunRecord, versions: Mapping[str, Any], verifier_id: str
) -> list[str]:
    before = runs.last_versions(connection, record.run_id)
    changed = environment.changes(before, dict(versions)) if before else []
    if verifier_id != record.verifier_id:
        changed.append(f"verifier {record.verifier_id} -> {verifier_id}")
    return changed


@contextmanager
def recorded_end(home: Home, store: Store, run_id: str, attempt: int) -> Iterator[None]:
    """Record how the attempt ends: completed, failed or cancelled.

    Raises:
        StageEnded: the watcher ended it.
    """
    status, message, ended = "failed", None, None
    try:
        with told_apart(record_path(home, run_id, attempt)):
            yield
        status = "completed"
    except ASKED_TO_END:
        status, message = "cancelled", "asked to end"
        raise
    except StageEnded as error:
        message, ended = str(error), error.ended
        log.info("the attempt was ended by the watcher", exc_info=True)
        raise
    except Exception as error:
        message = without_secrets(f"{type(error).__name__}: {error}")
        log.info("the attempt failed", exc_info=True)  # for the log file; the terminal shows the message
        raise
    finally:
        try:
            with store.write(wait_s=5.0) as connection:
                runs.end_attempt(connection, run_id, attempt, status, message)
                if ended is not None:
                    _add_end(connection, run_id, attempt, ended)
            store.settle(wait_s=5.0)  # so that the file alone, without DuckDB's log, is the whole store
        except StoreError as error:
            # the next attempt sees that this process is gone
            log.warning("the end of attempt %d could not be recorded: %s", attempt, error)
