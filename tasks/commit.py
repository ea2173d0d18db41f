"""What a stage's body hands over for commitment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import duckdb

R = TypeVar("R")


def _nothing(connection: duckdb.DuckDBPyConnection) -> None:
    return None


@dataclass(frozen=True)
class Commit(Generic[R]):
    """What a stage's body hands over: its reference, and the rows that are still to be written."""

    output: R
    write: Callable[[duckdb.DuckDBPyConnection], None] = _nothing
    """Writes the last content rows, in the transaction that makes the stage done."""
