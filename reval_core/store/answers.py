"""Queries of people: on the live database while they are quick, else on its snapshot, so that no run waits for them.

Times in the store are UTC without a zone. DuckDB compares such a time with now() in the zone of the session, by default
the machine's, so these sessions are in UTC: `started_at > now() - INTERVAL 1 HOUR` means the same everywhere.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from reval_core.errors import StoreError
from reval_core.store import snapshots
from reval_core.store.connection import Connections, explain, file_at_fault
from reval_core.store.snapshots import Snapshot
from reval_core.store.sqlfiles import query_names, query_text
from reval_core.store.statements import arrow_table

LIVE_S = 1.0
"""Seconds for which a query may hold the live database."""
MOST_AGE_S = 600.0
"""Seconds that a snapshot may be old for a query that is moved to it."""
READ_ONLY = "Nothing can be changed here: the store is read-only through this door."
IN_UTC = "SET TimeZone = 'UTC'"
SUM_OF_INTEGERS = pa.decimal128(38, 0)
"""What DuckDB's sum of an integer column is in Arrow: no program takes it for a number to count with."""


@dataclass(frozen=True)
class Answer:
    """The result of a query and what it was asked of."""

    table: pa.Table
    snapshot: Snapshot | None
    """None: the live database."""

    @property
    def note(self) -> str | None:
        """What to tell of a query that was moved; None for the live database."""
        if self.snapshot is None:
            return None
        return (
            f"This took over {LIVE_S:g} s, so it was asked of the snapshot that is {_age(self.snapshot.age_s)} old: "
            "a run that writes must not wait for it."
        )


def _age(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def resolve(sql_or_name: str, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The SQL of a text or of a named query, whose parameters are NULL where they are not given.

    Raises:
        StoreError: no query has that name.
    """
    text = sql_or_name.strip()
    if text in query_names() or text.isidentifier():
        text = query_text(text)
        expected = duckdb.extract_statements(text)[0].named_parameters
        parameters = dict.fromkeys(expected) | parameters
    return text, parameters


def ask(connections: Connections, text: str, parameters: dict[str, Any], *, live_s: float | None) -> Answer:
    """Run a query on the live database for at most ``live_s`` seconds, then on the snapshot.

    Args:
        connections: of the database.
        text: SQL.
        parameters: values of ``$name``.
        live_s: None: as long as it takes.

    Raises:
        StoreError: the query is wrong (DuckDB's message says where).
    """
    try:
        with connections.read(strictly=True) as connection:
            return Answer(_limited(connection, text, parameters, live_s), None)
    except TooLong:
        return _of_snapshot(connections, text, parameters)


class TooLong(Exception):
    """The query was ended because its time on the live database was over."""


def _limited(
    connection: duckdb.DuckDBPyConnection, text: str, parameters: dict[str, Any], limit_s: float | None
) -> pa.Table:
    connection.execute(IN_UTC)
    with ThreadPoolExecutor(1) as pool:  # DuckDB looks for signals only between tasks of the thread that asked
        asked = pool.submit(arrow_table, connection, text, parameters)
        try:
            return _with_integer_sums(asked.result(limit_s))
        except (TimeoutError, KeyboardInterrupt) as error:
            while not asked.done():
                connection.interrupt()
                wait([asked], 0.05)
            if isinstance(error, TimeoutError):
                raise TooLong from None
            raise
        except duckdb.Error as error:
            if file_at_fault(error):
                raise StoreError(explain("The query could not read the database", error)) from error
            if "read-only mode" in str(error):
                raise StoreError(f"{READ_ONLY} {error}") from error
            raise StoreError(f"The query failed: {error}") from error


def _with_integer_sums(table: pa.Table) -> pa.Table:
    """Sums of integers as 64-bit integers, where all of a column's fit."""
    for index, field in enumerate(table.schema):
        if field.type == SUM_OF_INTEGERS:
            with suppress(pa.ArrowInvalid):
                column = table.column(index).cast(pa.int64())
                table = table.set_column(index, field.name, column)
    return table


def _of_snapshot(connections: Connections, text: str, parameters: dict[str, Any]) -> Answer:
    for payloads in (False, True):
        snapshot = snapshots.current(connections, payloads=payloads, most_age_s=MOST_AGE_S)
        with duckdb.connect(snapshot.path, read_only=True, config={"threads": connections.threads}) as connection:
            try:
                return Answer(_limited(connection, text, parameters, None), snapshot)
            except StoreError as error:
                if payloads or snapshots.NO_PAYLOADS not in str(error):
                    raise
    raise AssertionError("a snapshot with payloads answers or fails")
