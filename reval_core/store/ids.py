"""Ids as people give them: the first letters of one stand for it where nothing else begins so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reval_core.errors import StoreError

if TYPE_CHECKING:
    from reval_core.store.store import Store

IDS = {
    "policy": ("policies", "policy_id"),
    "trajectory": ("store.trajectories", "trajectory_id"),
    "problem": ("problems", "problem_id"),
    "benchmark": ("evaluations", "benchmark"),
}
"""Parameters of named queries that stand for something stored: where it is, and the column that names it."""
SHOWN = 5
"""Ids that an error lists at most."""


def whole_id(store: Store, parameter: str, text: str) -> str:
    """The id that begins so, for a parameter of a named query; a value that stands for nothing stored as it is.

    Raises:
        StoreError: nothing in the store begins so, or several things do.
    """
    if parameter not in IDS:
        return text
    view, column = IDS[parameter]
    sql = f"SELECT DISTINCT {column} AS id FROM {view} WHERE starts_with({column}, $text) ORDER BY id LIMIT {SHOWN + 1}"
    found = [str(row["id"]) for row in store.query(sql, text=text).to_pylist()]
    if text in found:
        return text
    if len(found) == 1:
        return found[0]
    if found:
        more = ", ..." if len(found) > SHOWN else ""
        raise StoreError(f"Several begin with {text!r}: {', '.join(found[:SHOWN])}{more}. Give more letters.")
    raise StoreError(f"There is no {parameter} {text} in this store: no {column} of {view} begins so.")
