"""Results as CSV: quotes where RFC 4180 needs them, and NULL apart from the empty text."""

import csv
import io
from pathlib import Path

import duckdb
import pytest

from flows.asking import write_file
from flows.comma import csv_lines


def lines(query: str) -> str:
    return "".join(csv_lines(duckdb.sql(query).to_arrow_table()))


def test_quotes_stand_only_where_they_are_needed() -> None:
    assert lines("SELECT 'plain text' AS text, 2 AS number, true AS yes") == "text,number,yes\nplain text,2,true\n"
    assert lines("""SELECT 'a,b' AS "x,y", 'say "a"' AS q""") == '"x,y",q\n"a,b","say ""a"""\n'
    assert lines("SELECT ' a;b ' AS a") == "a\n a;b \n"


@pytest.mark.parametrize("text", ["a,b", 'a "b"', "two\nlines", "two\r\nlines", '"', ",", "\r", "ünï, ✓", "'"])
def test_any_text_comes_back(text: str) -> None:
    table = duckdb.sql("SELECT $text AS text, 1 AS number", params={"text": text}).to_arrow_table()
    (row,) = csv.DictReader(io.StringIO("".join(csv_lines(table)), newline=""))
    assert row == {"text": text, "number": "1"}


def test_null_is_nothing_and_an_empty_text_is_two_quotes(tmp_path: Path) -> None:
    table = duckdb.sql("SELECT * FROM (VALUES (1, NULL, NULL), (2, '', [])) AS t(number, text, list)").to_arrow_table()
    written = tmp_path / "out.csv"
    write_file(table, written)
    assert written.read_text(encoding="utf-8") == 'number,text,list\n1,,\n2,"",[]\n'
    read = duckdb.sql(f"SELECT text FROM read_csv('{written}', allow_quoted_nulls = false) ORDER BY number")
    assert read.fetchall() == [(None,), ("",)]


def test_lists_are_json_and_no_rows_are_a_heading() -> None:
    assert lines("SELECT [1, 2] AS list, {'a': 'b'} AS record") == 'list,record\n"[1, 2]","{""a"": ""b""}"\n'
    assert lines("SELECT 1 AS a, 'x' AS b WHERE false") == "a,b\n"


def test_rows_of_several_parts_are_all_there() -> None:
    assert lines("FROM range(25_000)").split() == ["range", *map(str, range(25_000))]
