"""Trajectories that a person chose from the store: a run's window, or whatever a query finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from reval_core.config_replay import ReplayConfig
from reval_core.errors import StoreError
from reval_core.identity import digest
from reval_core.store import answers, payloads, replay, runs, stages
from reval_core.store import statements as sql

WINDOW, RUN = "window:", "run:"


@dataclass(frozen=True)
class Chosen:
    """One chosen trajectory."""

    trajectory_id: str
    problem_id: str
    batch_id: str
    sample_index: int
    truncated: bool
    tokenizer_id: str
    purpose: str
    """training, evaluation or import."""


def selection_id(trajectory_ids: Sequence[str]) -> str:
    """Name of a set of trajectories."""
    return digest("sel", sorted(trajectory_ids))


def choose(connection: duckdb.DuckDBPyConnection, what: str, parameters: Mapping[str, str]) -> list[str]:
    """Ids that a selection finds now, each once, in the order of their names: a query need not order its rows.

    Args:
        connection: of a read.
        what: ``window:RUN`` (what the run could draw from at its newest round), ``run:RUN`` (all that it admitted), a
            named query, or SQL whose result has a column trajectory_id.
        parameters: values of ``$name``.

    Raises:
        StoreError: there is no such run or query, the result has no such column, or nothing is found.
    """
    kind, _, run_id = what.strip().partition(":")
    if f"{kind}:" in (WINDOW, RUN):
        found = _admitted(connection, run_id, whole=f"{kind}:" == RUN)
    else:
        found = _query(connection, what, parameters)
    if not found:
        raise StoreError(f"The selection {what.strip()!r} finds no trajectory.")
    return sorted(set(found))


def _admitted(connection: duckdb.DuckDBPyConnection, run_id: str, *, whole: bool) -> list[str]:
    run = runs.find(connection, run_id)
    if run is None:
        raise StoreError(f"There is no run {run_id} in this store. `reval runs` lists what there is.")
    how = ReplayConfig(**run.config["replay"])
    if whole or run.config.get("offline"):
        how = how.model_copy(update={"capacity": None, "excludes_fresh": False})
    admitted = [slot[0] for slot in stages.history(connection, run_id) if slot[1] in ("persist", "admit", "learn")]
    newest = max(admitted, default=-1)
    window = replay.window(connection, run_id, newest, how)
    return [entry.trajectory_id for entry in replay.entries_of(connection, run_id, window)]


def _query(connection: duckdb.DuckDBPyConnection, what: str, parameters: Mapping[str, str]) -> list[str]:
    text, values = answers.resolve(what, dict(parameters))
    try:
        found = sql.arrow_table(connection, text, values)
    except duckdb.Error as error:
        raise StoreError(f"The selection failed: {error}") from error
    if "trajectory_id" not in found.column_names:
        raise StoreError(
            f"The selection must give a column trajectory_id; it gives {', '.join(found.column_names) or 'nothing'}."
        )
    return [name for name in found.column("trajectory_id").to_pylist() if name is not None]


def about(connection: duckdb.DuckDBPyConnection, trajectory_ids: Sequence[str]) -> list[Chosen]:
    """What the trajectories are, in the order of their names.

    Raises:
        StoreError: the store does not know one of them.
    """
    rows = sql.table(connection, "trajectories", "about", {"wanted": payloads.named(trajectory_ids)}).to_pylist()
    unknown = set(trajectory_ids) - {row["trajectory_id"] for row in rows}
    if unknown:
        raise StoreError(f"The store has no trajectory {min(unknown)}, and {len(unknown) - 1} more of the selection.")
    return [Chosen(truncated=row.pop("finish_reason") != "stop", **row) for row in rows]


def check_purpose(chosen: Sequence[Chosen]) -> None:
    """Refuse answers to benchmarks: learned from, they would make every later evaluation a lie.

    Raises:
        StoreError: says how many there are.
    """
    held_out = sum(one.purpose == "evaluation" for one in chosen)
    if held_out:
        raise StoreError(
            f"{held_out:,} of the {len(chosen):,} chosen trajectories are answers to benchmarks. Leave them out: add "
            "purpose <> 'evaluation' to the query."
        )


def check_tokenizer(chosen: Sequence[Chosen], tokenizer_id: str) -> None:
    """Refuse token ids of another tokenizer: they would mean other text.

    Raises:
        StoreError: says how many have which.
    """
    others = Counter(one.tokenizer_id for one in chosen if one.tokenizer_id != tokenizer_id)
    if others:
        told = ", ".join(f"{count} of {name}" for name, count in others.most_common())
        raise StoreError(
            f"The base model's tokenizer is {tokenizer_id}, but the selection has {told}. Token ids of another "
            "tokenizer mean other text. Choose trajectories of this one: the view tokens has tokenizer_id."
        )


def verdicts(
    connection: duckdb.DuckDBPyConnection, golds: Mapping[str, str], verifier_id: str
) -> dict[str, tuple[str, float, str | None]]:
    """(status, reward, answer) by trajectory, of those that the verifier has graded.

    Args:
        connection: of a read.
        golds: trajectory_id to the digest of the gold answer that counts.
        verifier_id: whose verdicts.
    """
    wanted = pa.table({"trajectory_id": list(golds), "gold_digest": list(golds.values())})
    rows = sql.rows(connection, "trajectories", "known_verdicts", {"wanted": wanted}, verifier_id=verifier_id)
    return {name: (status, reward, answer) for name, status, reward, answer in rows}


def last_statuses(connection: duckdb.DuckDBPyConnection, golds: Mapping[str, str]) -> dict[str, str]:
    """Status by trajectory of its newest verdict, by any verifier, against the gold answer that counts."""
    wanted = pa.table({"trajectory_id": list(golds), "gold_digest": list(golds.values())})
    return dict(sql.rows(connection, "trajectories", "last_statuses", {"wanted": wanted}))


@dataclass(frozen=True, slots=True)
class Change:
    """A response that is judged otherwise than before."""

    trajectory_id: str
    status_before: str
    status: str
    answer_before: str | None
    answer: str | None
    details: str
    """Why, in the words of the newer verdict."""


def changes(connection: duckdb.DuckDBPyConnection, golds: Mapping[str, str], verifier_id: str) -> list[Change]:
    """Both verdicts of the trajectories, where another verifier had judged them against the same gold answer.

    Args:
        connection: of a read.
        golds: trajectory_id to the digest of the gold answer that counts.
        verifier_id: whose verdict is the newer one.
    """
    wanted = pa.table({"trajectory_id": list(golds), "gold_digest": list(golds.values())})
    found = sql.table(connection, "trajectories", "changed_verdicts_of", {"wanted": wanted}, verifier_id=verifier_id)
    return [Change(**row) for row in found.to_pylist()]


def completions(connection: duckdb.DuckDBPyConnection, trajectory_ids: Sequence[str]) -> dict[str, str]:
    """Text of the named trajectories; of those that were archived from their files.

    Raises:
        StoreError: a text is nowhere.
    """
    wanted = {"wanted": payloads.named(trajectory_ids)}
    texts: dict[str, str] = dict(sql.rows(connection, "trajectories", "completions_of", wanted))
    return texts | payloads.archived_texts(connection, [name for name in trajectory_ids if name not in texts])
