"""The DuckDB store: replay buffer, audit log and SQL table in one."""

from reval_core.store.store import Store

__all__ = ["Store"]
