"""Brings a database to the schema of this version: numbered, checksummed, each in a transaction.

Views are not migrated but written anew whenever their text changed, since they hold no data.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import duckdb

from reval_core.errors import StoreError
from reval_core.store import statements as sql
from reval_core.store.sqlfiles import ordered

_VIEWS = 0  # the row of the ledger that stands for all views together


def now() -> datetime:
    """UTC without a zone, as the database keeps its times."""
    return datetime.now(UTC).replace(tzinfo=None)


def available() -> dict[int, tuple[str, str]]:
    """Version to (name, SQL) of the migrations that this code ships."""
    return {
        int(path.stem.split("_")[0]): (path.stem, path.read_text(encoding="utf-8")) for path in ordered("migrations")
    }


def schema_version(connection: duckdb.DuckDBPyConnection) -> int:
    """The newest migration that the database has had; 0 for an empty one."""
    found = connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'store' AND table_name = 'schema_migrations'"
    ).fetchall()
    if not found[0][0]:
        return 0
    newest = connection.execute("SELECT max(version) FROM store.schema_migrations").fetchall()
    return int(newest[0][0] or 0)


def needs_migration(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether `migrate` would write anything.

    Raises:
        StoreError: the database is newer than this code, or a migration it has had was edited since.
    """
    version = schema_version(connection)
    shipped = available()
    newest = max(shipped)
    if version > newest:
        raise StoreError(
            f"The database has schema version {version}, this ReVal knows versions up to {newest}. "
            "Install the newer ReVal that wrote it; an older one does not touch it."
        )
    if version == 0:
        return True
    ledger = dict(connection.execute("SELECT version, checksum FROM store.schema_migrations").fetchall())
    for number, (name, text) in shipped.items():
        if number in ledger and ledger[number] != _checksum(text):
            raise StoreError(
                f"Migration {name} was applied with another text than the one shipped here. "
                "Use the ReVal version that created this database, or export and import it."
            )
    return version < newest or ledger.get(_VIEWS) != _checksum(_views())


def version_to_leave(connection: duckdb.DuckDBPyConnection) -> int | None:
    """The version of a database whose tables `migrate` would change; None for a new one, or where only views change."""
    version = schema_version(connection)
    return version if 0 < version < max(available()) else None


def migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Apply what is missing, inside the caller's transaction."""
    if not needs_migration(connection):
        return
    sql.rows(connection, "migrations", "ledger")
    done = {row[0] for row in connection.execute("SELECT version FROM store.schema_migrations").fetchall()}
    for number, (name, text) in sorted(available().items()):
        if number not in done:
            connection.execute(text)
            _record(connection, number, name, text)
    views = _views()
    connection.execute(views)
    _record(connection, _VIEWS, "views", views)


def _record(connection: duckdb.DuckDBPyConnection, number: int, name: str, text: str) -> None:
    sql.rows(
        connection,
        "migrations",
        "record",
        version=number,
        name=name,
        checksum=_checksum(text),
        applied_at=now(),
    )


def _views() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in ordered("views"))


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
