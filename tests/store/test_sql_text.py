"""The SQL itself: everything is explained in the database, rows are spelled by name, one rule stands once."""

import re
from pathlib import Path

import pytest

from reval_core.store import Store
from reval_core.store.sqlfiles import query_names, query_text, sql_root

FILES = sorted(sql_root().rglob("*.sql"))
INSERT = re.compile(r"\bINSERT\s+(?:OR\s+\w+\s+)?INTO\s+([\w.]+)\s+(BY NAME|\()?", re.IGNORECASE)


def test_every_table_view_and_column_is_explained(empty: Store) -> None:
    """One query over the catalogue: base tables of "store" and public views of "main"."""
    missing = empty.query(
        """
        SELECT schema_name || '.' || table_name AS name FROM duckdb_tables() WHERE comment IS NULL
        UNION ALL
        SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal AND comment IS NULL
        UNION ALL
        SELECT c.schema_name || '.' || c.table_name || '.' || c.column_name
        FROM duckdb_columns() AS c
        LEFT JOIN duckdb_views() AS v ON v.schema_name = c.schema_name AND v.view_name = c.table_name
        WHERE NOT c.internal AND (v.view_name IS NULL OR c.schema_name = 'main') AND coalesce(c.comment, '') = ''
        ORDER BY ALL
        """
    )
    assert missing.column("name").to_pylist() == []


def test_every_insert_names_its_columns() -> None:
    found = [(path.name, match) for path in FILES for match in INSERT.finditer(path.read_text(encoding="utf-8"))]
    assert len(found) > 15
    assert [(name, match[1]) for name, match in found if not match[2]] == []


def test_the_rule_of_the_chain_is_written_once() -> None:
    copies = [
        path.name for path in FILES if re.search(r"\b\w*iteration\s*<\s*(\w+\.)?until_iteration", path.read_text())
    ]
    assert copies == ["00_chain.sql"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_says_first_what_it_is_for(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("-- ")


def test_the_guide_lists_every_view_and_named_query_in_its_own_words(empty: Store) -> None:
    page = (sql_root().parent / "docs" / "sql.md").read_text(encoding="utf-8")
    views = empty.query(
        "SELECT view_name, comment FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal"
    ).to_pylist()
    rows = [f"| `{view['view_name']}` | {view['comment']} |" for view in views]
    rows += [f"| `{name}` | {query_text(name).splitlines()[0].removeprefix('-- ')} |" for name in query_names()]
    assert [row for row in rows if row not in page] == []
