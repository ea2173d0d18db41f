"""What the pages read of the store: rows by the names of their columns.

Statements over many trajectories have a second of the live database, as any query of a person; those that read a few
rows by their ids have it for as long as they take. Nothing keeps the file open between them, so that a run commits
beside us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from reval_core.browsing.filters import Filters
from reval_core.errors import StoreError
from reval_core.store import Store, payloads
from reval_core.store import statements as sql
from reval_core.store.ids import whole_id
from reval_core.store.sqlfiles import statement

Row = dict[str, Any]
AREA = "browsing"
PAGE = 50
"""Rows of a page."""
SIDE = 20
"""Responses of a policy to a problem that are shown at most."""


class NotThere(StoreError):
    """The store has nothing of that name."""


@dataclass(frozen=True)
class Listed:
    """One page of trajectories."""

    rows: list[Row]
    matches: int
    """Trajectories of all pages."""
    behind: Filters | None
    """The next page; None where this is the last."""
    note: str | None
    """What to tell where it was asked of the snapshot."""


@dataclass(frozen=True)
class Trajectory:
    """One trajectory with everything that refers to it."""

    row: Row
    completion: str | None
    lost: str | None
    """Why there is no completion."""
    verdicts: list[Row]
    """First the one that counts."""
    admissions: list[Row]
    uses: list[Row]
    policy: Row | None
    """The policy that sampled it."""
    saved: list[Row]
    """Policies that can score it; first the newest of its run."""


class Reads:
    """Reads of one store.

    Args:
        store: opened for each statement, or for a few by id.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def ask(self, name: str, values: Mapping[str, Any]) -> tuple[list[Row], str | None]:
        """The rows of a statement over many trajectories, and what to tell where the snapshot gave them."""
        answer = self.store.ask(statement(AREA, name), **values)
        return answer.table.to_pylist(), answer.note

    def named(self, query: str, values: Mapping[str, Any]) -> tuple[pa.Table, str | None]:
        """The result of a named query; the first letters of an id stand for it.

        Raises:
            StoreError: nothing in the store begins so, or several things do.
        """
        whole = {name: whole_id(self.store, name, v) if isinstance(v, str) else v for name, v in values.items()}
        answer = self.store.ask(query, **whole)
        return answer.table, answer.note

    def runs(self) -> tuple[list[Row], str | None]:
        """All runs, the one that was active last first, and what to tell where the snapshot gave them."""
        return self.ask("runs", {})

    def run_names(self) -> list[str]:
        """Ids of all runs, newest first."""
        return [row["run_id"] for row in self.ask("run_names", {})[0]]

    def listed(self, filters: Filters) -> Listed:
        """The page of trajectories that the filters ask for."""
        rows, note = self.ask("listed", filters.model_dump() | {"size": PAGE + 1})
        shown = rows[:PAGE]
        behind = filters.behind(shown[-1]["key"], shown[-1]["trajectory_id"]) if len(rows) > PAGE else None
        return Listed(shown, rows[0]["matches"] if rows else 0, behind, note)

    def trajectory(self, trajectory_id: str) -> Trajectory:
        """Everything about one trajectory.

        Raises:
            NotThere: the store has none of that id.
        """
        with self.store.read() as connection:
            row = sql.record(connection, AREA, "trajectory", trajectory=trajectory_id)
            if row is None:
                raise NotThere(f"There is no trajectory {trajectory_id} in this store.")
            found = Trajectory(
                row,
                row["completion"],
                None,
                verdicts=sql.records(connection, AREA, "verdicts", trajectory=trajectory_id),
                admissions=sql.records(connection, AREA, "admissions", trajectory=trajectory_id),
                uses=sql.records(connection, AREA, "uses", trajectory=trajectory_id, iteration=row["iteration"]),
                policy=sql.record(connection, AREA, "policy", policy=row["policy_id"]),
                saved=sql.records(connection, AREA, "saved_policies", tokenizer=row["tokenizer_id"], run=row["run_id"]),
            )
            if found.completion is not None:
                return found
            try:
                texts = payloads.archived_texts(connection, [trajectory_id])
            except StoreError as error:
                return replace(found, lost=str(error))
        return replace(found, completion=texts[trajectory_id])

    def policy(self, policy_id: str) -> Row:
        """A policy.

        Raises:
            NotThere: the store has none of that id.
        """
        with self.store.read() as connection:
            row = sql.record(connection, AREA, "policy", policy=policy_id)
        if row is None:
            raise NotThere(f"There is no policy {policy_id} in this store.")
        return row

    def problems(self, text: str | None) -> tuple[list[Row], str | None]:
        """Problems with a text or the beginning of an id, those first that most policies answered; note as `ask`."""
        return self.ask("problems", {"problem": text})

    def problem(self, problem_id: str) -> tuple[Row, list[Row]]:
        """A problem, and the policies that answered it.

        Raises:
            NotThere: the store has none of that id.
        """
        with self.store.read() as connection:
            row = sql.record(connection, AREA, "problem", problem=problem_id)
            if row is None:
                raise NotThere(f"There is no problem {problem_id} in this store.")
            return row, sql.records(connection, AREA, "policies_on", problem=problem_id)

    def responses(self, problem_id: str, policy_ids: Sequence[str]) -> list[list[Row]]:
        """What each policy answered to a problem, at most `SIDE` responses; texts of archived ones are None."""
        with self.store.read() as connection:
            return [
                sql.records(connection, AREA, "responses", problem=problem_id, policy=policy_id, size=SIDE)
                for policy_id in policy_ids
            ]
