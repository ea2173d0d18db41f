"""What a problem's file says now, and what it said before."""

from dataclasses import replace
from typing import Any

from reval_core.problems import Problem, problem
from reval_core.store import Store, problems

ASKED = Problem(problem.ask("1+1=?"), gold="2", source="sums.jsonl", external_id="7", metadata={"level": 3})


def _read(store: Store, **changes: Any) -> dict[str, Any]:
    """Read the file once more with some values changed; returns the problem's row."""
    with store.write() as connection:
        problems.add(connection, [replace(ASKED, **changes)])
    (row,) = store.query("SELECT gold, golds, metadata FROM problems").to_pylist()
    return row


def test_columns_that_were_mended_in_the_file_are_mended_in_the_store(store: Store) -> None:
    assert _read(store)["metadata"] == '{"level": 3}'
    before = store.query("SELECT recorded_at FROM store.problem_sources").to_pylist()
    assert _read(store, metadata={"level": 4})["metadata"] == '{"level": 4}'
    assert store.query("SELECT recorded_at FROM store.problem_sources").to_pylist() == before
    assert len(before) == 1


def test_the_gold_answer_that_was_read_last_counts_also_when_it_is_put_back(store: Store) -> None:
    assert [_read(store, gold=gold)["gold"] for gold in ("2", "3", "3", "2")] == ["2", "3", "3", "2"]
    assert _read(store)["golds"] == 2


def test_reading_the_same_file_again_writes_nothing(store: Store) -> None:
    rows = (
        "SELECT * FROM store.problem_sources JOIN store.golds USING (problem_id) JOIN store.problems USING (problem_id)"
    )
    _read(store)
    before = store.query(rows)
    _read(store)
    assert store.query(rows) == before


def test_of_two_gold_answers_that_are_given_at_once_the_first_counts_at_every_start(store: Store) -> None:
    """As of a training file and a benchmark that ask the same."""
    rows = "SELECT gold, counts_since FROM store.golds ORDER BY gold"
    both = [ASKED, replace(ASKED, gold="2.0", source="benchmark.jsonl")]
    seen = []
    for _ in range(3):
        with store.write() as connection:
            problems.add(connection, both)
        (row,) = store.query("SELECT gold, golds FROM problems").to_pylist()
        seen.append((row["gold"], row["golds"], store.query(rows).to_pylist()))
    assert seen[0][:2] == ("2", 2)
    assert seen == seen[:1] * 3
    assert _read(store, gold="2.0")["gold"] == "2.0"  # the file was mended
    assert _read(store)["gold"] == "2"
