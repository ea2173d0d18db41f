"""The beginning of a command: what is going to happen, and what can be refused at once.

Nothing here needs PyTorch, Prefect or MLflow, which take seconds to load; so these lines come first.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reval_core.config import Config, ProblemFile
from reval_core.config_files import apply_override, load_config
from reval_core.errors import ConfigError, StoreError
from reval_core.home import Home
from reval_core.problems import Problem, load_problems
from reval_core.problems.benchmarks import load_benchmark
from reval_core.store import Store, places, runs
from reval_core.store.migrations import needs_migration
from reval_core.verification import check_gold, is_sentence
from tasks.fork import Fork, run_id_of
from tasks.inputs import read_benchmarks

log = logging.getLogger(__name__)

LATEST = "latest"
"""The newest saved policy."""
BEST_OF = "best:"
"""Before a run's id: the policy that did best in it."""
SHOWN = 5
"""Names that an error lists at most."""


def standing(config: Config, home: Home, fork: Fork | None = None) -> str:
    """Which run this is and where it begins: ``run quickstart-1a2b3c4d goes on at round 5 of 30``."""
    run_id, total = run_id_of(config, fork), config.run.iterations
    done = _rounds_done(home, run_id, config.store.lock_wait_s)
    if done is None and _migration_is_due(home, config.store.lock_wait_s):
        return f"run {run_id}; the database is of an earlier version and is brought up to this one first, after a copy"
    if done is None and fork is not None:
        return f"run {run_id}, a new fork of {fork.parent_run_id}, begins at round {fork.iteration} of {total}"
    if done is None:
        return f"run {run_id} is new, {counted(total, 'round')}"
    if done >= total:
        return f"run {run_id} has learned {counted(done, 'round')} already"
    return f"run {run_id} goes on at round {done} of {total}"


def is_learned(config: Config, home: Home) -> bool:
    """Whether the store has all rounds of the run that the configuration names."""
    done = _rounds_done(home, run_id_of(config), config.store.lock_wait_s)
    return done is not None and done >= config.run.iterations


def _rounds_done(home: Home, run_id: str, wait_s: float) -> int | None:
    """Rounds that the run has learned; None for a run that the store does not have."""
    if not home.database.exists() or not home.database.stat().st_size:
        return None
    if _migration_is_due(home, wait_s):
        return None  # they are counted when it is brought up to this version
    store = Store(home.database, lock_wait_s=wait_s)
    found = store.query_live("SELECT rounds_done FROM runs WHERE run_id = $run_id", run_id=run_id).to_pylist()
    return int(found[0]["rounds_done"]) if found else None


def _migration_is_due(home: Home, wait_s: float) -> bool:
    if not home.database.exists() or not home.database.stat().st_size:
        return False
    with Store(home.database, lock_wait_s=wait_s).read() as connection:
        return needs_migration(connection)


def counted(number: int, thing: str) -> str:
    """``1 round``, ``2 rounds``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def not_named(differences: list[str], overrides: list[str]) -> list[str]:
    """The settings of ``differences`` (``key: before -> after``) that no ``--set`` names: they come from the file."""
    named = [override.partition("=")[0].strip() for override in overrides]
    return [line for line in differences if not any(f"{line.partition(':')[0]}.".startswith(f"{n}.") for n in named)]


def check_problems(config: Config) -> None:
    """Read the problem files and benchmarks that lie on this machine; data sets of a hub wait for the run.

    Gold answers that are sentences are told.

    Raises:
        RevalError: one is missing, malformed, or has a gold answer that cannot be graded against.
    """
    check = check_gold if config.reward.use == "math" else None
    local = [source for source in config.problems if not source.path.startswith("hf:")]
    problems = [problem for source in local for problem in load_problems(source, check)]
    if check is not None:
        tell_sentences(problems)
    read_benchmarks(config)


def tell_sentences(problems: Iterable[Problem]) -> None:
    """Warn of gold answers that hardly any answer will be equal to."""
    found = [problem for problem in problems if is_sentence(problem.gold)]
    if found:
        log.warning(
            "gold answers that are sentences, which are compared word by word: %d, as %s %s: %r. Give the value alone, "
            "or as \\boxed{...}",
            len(found),
            found[0].source,
            found[0].external_id,
            found[0].gold[:80],
        )


def find_policy(home: Home, policy: str) -> str:
    """The whole id of a stored policy from its first digits, or by ``latest`` of the newest saved one, or by
    ``best:RUN`` of a run's best one; a model folder, hub id or built-in model as it is.

    Raises:
        StoreError: no stored policy begins so, or several do.
    """
    if policy.startswith("builtin:") or Path(policy).is_dir() or policy.count("/") == 1:
        return policy
    if policy.startswith(BEST_OF):
        return _best_of(home, policy.removeprefix(BEST_OF))
    if policy == LATEST:
        with Store(home.database).read() as connection:
            newest = places.latest_policy(connection)
        if newest is None:
            raise StoreError("There is no saved policy in this store yet. Train one, or name a model folder.")
        return newest
    rows = Store(home.database).query_live(
        "SELECT policy_id FROM policies WHERE starts_with(policy_id, $policy) "
        "OR starts_with(policy_id, 'pol_' || $policy) ORDER BY created_at DESC",
        policy=policy,
    )
    found = [str(row["policy_id"]) for row in rows.to_pylist()]
    if policy in found:
        return policy
    if len(found) != 1:
        several = f": {', '.join(found[:SHOWN])}{', ...' if len(found) > SHOWN else ''}" if found else ""
        raise StoreError(
            f"{policy!r} names {len(found)} policies of this store{several}, and is no model folder. Give an id, or "
            'its first digits: reval sql "select policy_id, run_id, iteration, kind from policies order by created_at".'
        )
    return found[0]


def _best_of(home: Home, run: str) -> str:
    from flows.asking import find_run
    from tasks.best import linked_policy

    return linked_policy(home, find_run(Store(home.database), run))


def fields(text: str | None) -> dict[str, str] | None:
    """``question=prompt,answer=solution`` to a mapping of our names to a file's columns.

    Raises:
        ConfigError: a part is not written so.
    """
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    wrong = [name for name, equals, column in pairs if not (name.strip() and equals and column.strip())]
    if wrong:
        raise ConfigError(f"--fields {text!r}: write it as question=COLUMN,answer=COLUMN.")
    return {name.strip(): column.strip() for name, _, column in pairs}


def check_benchmarks(
    names: list[str], limit: int | None, columns: dict[str, str] | None, files: Mapping[str, ProblemFile]
) -> None:
    """Read the benchmarks that a command names, before anything is started.

    Args:
        names: as given by ``--benchmarks``.
        limit: problems of a benchmark at most.
        columns: as given by ``--fields``; then every name is a file.
        files: benchmarks of the user's own by name.

    Raises:
        RevalError: nothing has that name, or the file cannot be read as problems.
    """
    if columns is not None and not names:
        raise ConfigError("--fields says which columns the files of --benchmarks have; name these files, too.")
    for name in names:
        load_benchmark(name, limit, files if columns is None else {name: ProblemFile(path=name, fields=columns)})


def benchmark_files(home: Home, policy: str, config: Path | None, overrides: Sequence[str]) -> dict[str, ProblemFile]:
    """Benchmarks of the user's own: of the configuration that is given, else of the run that made the policy."""
    if config is not None:
        return load_config(config, list(overrides)).evaluation.files
    tree: dict[str, Any] = {}
    if policy.startswith("pol_"):
        found = Store(home.database).query_live(
            "SELECT r.config FROM policies AS p JOIN runs AS r USING (run_id) WHERE policy_id = $policy", policy=policy
        )
        tree = json.loads(next((row["config"] for row in found.to_pylist()), "{}"))
    for override in overrides:
        apply_override(tree, override)
    files = tree.get("evaluation", {}).get("files", {})
    return {name: ProblemFile.model_validate(file) for name, file in files.items()}


def about_fork(config: Config, home: Home, fork: Fork | None, overrides: list[str]) -> list[str]:
    """Where a fork begins, and the settings that the file, not ``--set``, has otherwise than the parent."""
    lines = [standing(config, home, fork)]
    if fork is None:
        return lines
    from flows.planning import differences

    with Store(home.database).read() as connection:
        parent = runs.find(connection, fork.parent_run_id)
    unnamed = not_named(differences(parent, config), overrides) if parent is not None else []
    if unnamed:
        lines.append(f"not as in {fork.parent_run_id}, though no --set names it:")
        lines += [f"  {line}" for line in unnamed]
    return lines
