"""A result as CSV by RFC 4180: a value stands in quotes where a comma, a quote or a line break in it needs them.

NULL is nothing and an empty text is ``""``, so readers that look at quotes tell them apart. Python's own writer (3.11)
writes nothing for both, and Arrow's puts every text in quotes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

ROWS = 10_000
"""Rows that are made text at a time."""
IN_QUOTES = r'[,"\r\n]|^$'
"""What a value has that stands in quotes."""


def csv_lines(result: pa.Table) -> Iterator[str]:
    """The names of the columns, then each row, every line with its end; lists and structs as JSON.

    Raises:
        pyarrow.ArrowInvalid: a column of bytes is no text.
    """
    yield from _lines([pa.array([name]) for name in result.column_names])
    for batch in result.to_batches(max_chunksize=ROWS):
        yield from _lines([_texts(column) for column in batch.columns])


def _texts(column: pa.Array) -> pa.Array:
    if pa.types.is_nested(column.type):
        column = pa.array([None if value is None else json.dumps(value, default=str) for value in column.to_pylist()])
    return column.cast(pa.string())


def _lines(columns: list[pa.Array]) -> Iterator[str]:
    fields = [pc.if_else(pc.match_substring_regex(texts, IN_QUOTES), _quoted(texts), texts) for texts in columns]
    joined = pc.binary_join_element_wise(*fields, ",", null_handling="replace", null_replacement="")
    return (f"{line}\n" for line in joined.to_pylist())


def _quoted(texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', "")
