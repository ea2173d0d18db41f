"""Problems as they were read: what is asked, where it came from, and the gold answers it has had."""

from __future__ import annotations

import json
from collections.abc import Sequence

import duckdb
import pyarrow as pa

from reval_core.errors import StoreError
from reval_core.problems import Problem
from reval_core.store import statements as sql
from reval_core.store.migrations import now


def read(connection: duckdb.DuckDBPyConnection, problem_ids: Sequence[str], *, whole_row: bool) -> dict[str, Problem]:
    """Stored problems by id, with the gold answers that count now.

    Args:
        connection: of a read.
        problem_ids: which; each may come several times.
        whole_row: their verdicts depend on the whole row, not on the gold answer alone (a reward of one's own).

    Raises:
        StoreError: the store does not know one of them.
    """
    wanted = pa.table({"problem_id": pa.array(sorted(set(problem_ids)), pa.string())})
    found = {
        row["problem_id"]: Problem(
            messages=tuple(json.loads(row["messages"])),
            gold=row["gold"] or "",
            source=row["source"] or "",
            external_id=row["external_id"] or "",
            metadata=json.loads(row["metadata"] or "{}"),
            graded_on="row" if whole_row else "gold",
        )
        for row in sql.table(connection, "problems", "read", {"wanted": wanted}).to_pylist()
    }
    unknown = [name for name in wanted.column("problem_id").to_pylist() if name not in found]
    if unknown:
        raise StoreError(f"The store does not have {len(unknown)} of these problems, the first is {unknown[0]}.")
    return found


def add(connection: duckdb.DuckDBPyConnection, problems: Sequence[Problem]) -> None:
    """Record problems with their sources and gold answers.

    Known problems stay as they are. A mended gold answer is another version of it, which counts from now on; of two
    that are given at once, as by a training file and a benchmark, the first counts. Mended further columns take the
    place of the old ones.
    """
    first: dict[str, Problem] = {}
    others = [p for p in problems if first.setdefault(p.problem_id, p).gold_digest != p.gold_digest]
    part = _table(problems)
    for name in ("add_problems", "add_sources"):
        sql.rows(connection, "problems", name, {"part": part}, recorded_at=now())
    sql.rows(connection, "problems", "add_golds", {"part": _table(list(first.values()))}, recorded_at=now())
    if others:
        sql.rows(connection, "problems", "add_other_golds", {"part": _table(others)}, recorded_at=now())


def _table(problems: Sequence[Problem]) -> pa.Table:
    return pa.table(
        {
            "problem_id": [p.problem_id for p in problems],
            "messages": [json.dumps([dict(m) for m in p.messages]) for p in problems],
            "question": [p.question for p in problems],
            "source": [p.source for p in problems],
            "external_id": [p.external_id for p in problems],
            "metadata": [json.dumps(dict(p.metadata), default=str) for p in problems],
            "gold_digest": [p.gold_digest for p in problems],
            "gold": [p.gold for p in problems],
        }
    )
