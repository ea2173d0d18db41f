import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reval_core.config import ProblemSource
from reval_core.errors import ConfigError, ProblemError
from reval_core.problems import Problem, ask, load_problems
from reval_core.verification import check_gold

ROWS: list[dict[str, Any]] = [
    {"id": "a", "question": "1+1?", "answer": "2", "source": "mine", "level": 1},
    {"id": "b", "question": "2+2?", "answer": "4", "source": "mine", "level": 2},
    {"id": "c", "question": "3+3?", "answer": "6", "source": "mine", "level": 3},
]


def lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    """A problem file in the format that its name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path
    text = lines(rows) if ".jsonl" in path.name else json.dumps(rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def load(path: Path | str, **settings: Any) -> list[Problem]:
    return load_problems(ProblemSource(path=str(path), **settings), check_gold)


def refusal(path: Path | str, **settings: Any) -> str:
    with pytest.raises(ProblemError) as caught:
        load(path, **settings)
    return str(caught.value)


def ids(problems: list[Problem]) -> list[str]:
    return [problem.external_id for problem in problems]


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz", "p.json", "p.json.gz", "p.parquet"])
def test_every_format_gives_the_same_problems(tmp_path: Path, name: str) -> None:
    problems = load(write(tmp_path / name))
    assert [problem.question for problem in problems] == ["1+1?", "2+2?", "3+3?"]
    assert [problem.gold for problem in problems] == ["2", "4", "6"]
    assert ids(problems) == ["a", "b", "c"]
    assert [problem.metadata for problem in problems] == [{"level": 1}, {"level": 2}, {"level": 3}]
    assert {problem.source for problem in problems} == {"mine"}
    assert problems[0].problem_id == Problem(messages=ask("1+1?"), gold="2").problem_id


def test_a_folder_and_a_glob_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", ROWS[1:2])
    write(tmp_path / "a.json", ROWS[:1])
    write(tmp_path / "c.parquet", ROWS[2:])
    (tmp_path / "notes.txt").write_text("not problems")
    assert ids(load(tmp_path)) == ["a", "b", "c"]
    assert ids(load(tmp_path / "[bc].*")) == ["b", "c"]
    assert ids(load(tmp_path / "*.jsonl")) == ["b"]


def test_a_path_may_name_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "p.jsonl")
    monkeypatch.setenv("REVAL_DATA", str(tmp_path))
    assert len(load("${REVAL_DATA}/p.jsonl")) == 3
    monkeypatch.delenv("REVAL_DATA")
    with pytest.raises(ConfigError, match="REVAL_DATA"):
        load("${REVAL_DATA}/p.jsonl")


def test_line_ends_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("\r\n".join(json.dumps(row) for row in ROWS) + "\r\n\r\n")
    assert ids(load(path)) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.json"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, name: str) -> None:
    row = {"question": "1+1?", "answer": "2"}
    text = {"p.csv": "question,answer\n1+1?,2\n", "p.jsonl": lines([row]), "p.json": json.dumps([row])}[name]
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert [problem.gold for problem in load(tmp_path / name)] == ["2"]


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"question": "one\u2028two", "answer": "1"}, ensure_ascii=False), encoding="utf-8")
    assert load(path)[0].question == "one\u2028two"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", lines(ROWS[:2]).encode() + b'{"question": ', "p.jsonl, line 3: not JSON"),
        ("p.jsonl", b'\n\n["question"]\n', "p.jsonl, line 3: expected a JSON object, found list"),
        ("p.jsonl", lines(ROWS[:1]).encode() + b'{"question": "\xff"}\n', "p.jsonl, line 2: not UTF-8"),
        ("p.json", b'[{"question": "1?"},\n {"question" 2}]', "p.json, line 2: not JSON"),
        ("p.json", b'{"question": "1?"}', "expected a JSON list of objects"),
        ("p.jsonl.gz", b"plain text", "not a whole gzip file"),
        ("p.jsonl.gz", gzip.compress(lines(ROWS).encode(), mtime=0)[:-12], "not a whole gzip file"),
        ("p.parquet", b"plain text", "not a readable Parquet file"),
        ("p.tsv", b"question\tanswer", "cannot read this kind of file"),
        ("p.csv", b"question,answer", "no problem is left"),
        ("p.csv", b"question,answer\n1?,1\n2?,2,3\n", "p.csv, line 3: not as many cells"),
        ("p.csv", b'question,answer\n"1?,1\n', "p.csv, line 1: not CSV"),
        ("p.csv", b'question,answer\n"1\n?",1\n"",2\n', "p.csv, line 4: the question is empty"),
        ("p.csv", b"question,answer,answer\n1?,1,2\n", "p.csv: two columns are called 'answer'"),
        ("p.jsonl", b'{"question": "1?", "n": ' + b"9" * 5000 + b"}", "p.jsonl, line 1: not JSON that can be read"),
        ("p.jsonl", b'{"question": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "p.jsonl, line 1: not JSON that can"),
        ("p.json", b"[" * 100_000 + b"]" * 100_000, "p.json: not JSON that can be read"),
        ("p.jsonl", b"", "no problem is left"),
        ("p.jsonl", b"\n\n", "no problem is left"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path / name)


def test_a_gzip_file_with_damaged_bytes_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(lines(ROWS * 50).encode())
    for place in range(12, len(whole) - 1, 9):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "p.jsonl.gz").write_bytes(bytes(damaged))
        assert "not a whole gzip file" in refusal(tmp_path / "p.jsonl.gz")


def test_a_missing_file_is_named_as_written_and_as_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVAL_DATA", str(tmp_path))
    message = refusal("${REVAL_DATA}/none.jsonl")
    assert f"{tmp_path}/none.jsonl" in message
    assert "'${REVAL_DATA}/none.jsonl'" in message
    assert "no problem file" in refusal(tmp_path)  # an empty folder


@pytest.mark.parametrize("path", ["builtin:algebra/train", "builtin:arithmetic/test", "builtin:arithmetic"])
def test_an_unknown_built_in_set_is_refused(path: str) -> None:
    assert "builtin:arithmetic/train" in refusal(path)


def test_built_in_problems_load() -> None:
    problems = load("builtin:arithmetic/heldout")
    assert len({problem.problem_id for problem in problems}) == len(problems) == 256


# -- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "1?", "answer": "1"},
            "column 'question' is missing or null. There are prompt, answer; map one with fields",
        ),
        ({"question": None, "answer": "1"}, "column 'question' is missing or null"),
        ({"question": "", "answer": "1"}, "the question is empty"),
        ({"question": " \n", "answer": "1"}, "the question is empty"),
        ({"question": 3, "answer": "1"}, "text or a list of messages"),
        ({"question": [], "answer": "1"}, "text or a list of messages"),
        ({"question": [{"role": "user"}], "answer": "1"}, "text or a list of messages"),
        ({"question": [{"role": "assistant", "content": "1"}], "answer": "1"}, "last message is by 'assistant'"),
        (
            {"question": "1?", "solution": "1"},
            "column 'answer' is missing or null. There are question, solution; map one with fields",
        ),
        ({"question": "1?", "answer": ""}, "the gold answer '' cannot be graded against"),
        ({"question": "1?", "answer": "  "}, "cannot be graded against"),
        ({"question": "1?", "answer": ["2"]}, """the gold answer "['2']" is a list, and no response could match it"""),
        ({"question": "1?", "answer": {"value": 2}}, "is a dict, and no response could match it"),
        ({"question": "1?", "answer": float("nan")}, "column 'answer' is missing or null"),
    ],
)
def test_a_row_that_is_no_problem_is_refused_with_its_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "p.jsonl", [*ROWS, row])
    found = refusal(path)
    assert found.startswith("p.jsonl, line 4: ")
    assert message in found


def test_all_faults_of_a_file_are_told_at_once_and_of_many_the_first(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"question": "1?", "answer": "1",}\n{"question": "2?"}\n[]\n')
    assert [line.partition(": ")[0].partition(" ")[2] for line in refusal(tmp_path / "p.jsonl").splitlines()] == [
        "line 1",
        "line 3",
    ]
    missing = [{"question": f"{n}?"} for n in range(1007)]
    told = refusal(write(tmp_path / "p.jsonl", [*ROWS, *missing])).splitlines()
    assert [line.partition(":")[0] for line in told[:-1]] == [f"p.jsonl, line {n}" for n in range(4, 9)]
    assert told[-1] == "... and 1,002 more of this file."


def test_a_reward_of_its_own_needs_no_gold(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"question": "write a poem"}, {"question": "and one more", "answer": ""}])
    assert [problem.gold for problem in load_problems(ProblemSource(path=str(path)))] == ["", ""]


def test_columns_are_mapped_and_the_others_are_kept(tmp_path: Path) -> None:
    row = {"problem": "1?", "gold": 1, "unique": 17, "question": "not this", "tags": ["x", {"y": 2}], "none": None}
    fields = {"question": "problem", "answer": "gold", "id": "unique"}
    (problem,) = load(write(tmp_path / "p.jsonl", [row]), fields=fields)
    assert (problem.question, problem.gold, problem.external_id, problem.source) == ("1?", "1", "17", "p.jsonl")
    assert problem.metadata == {"question": "not this", "tags": ["x", {"y": 2}], "none": None}


def test_fields_map_nothing_but_what_a_problem_has(tmp_path: Path) -> None:
    assert "fields maps 'gold'" in refusal(write(tmp_path / "p.jsonl"), fields={"gold": "answer"})


def test_a_file_without_ids_is_named_by_its_lines(tmp_path: Path) -> None:
    rows = [{"question": "1?", "answer": "1"}, {"question": "2?", "answer": "2", "id": None, "source": None}]
    problems = load(write(tmp_path / "p.jsonl", rows))
    assert [(problem.source, problem.external_id) for problem in problems] == [("p.jsonl", "1"), ("p.jsonl", "2")]


def test_a_conversation_is_kept_whole(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "and 2+2?"},
    ]
    for name in ("p.jsonl", "p.parquet"):
        (problem,) = load(write(tmp_path / name, [{"messages": messages, "answer": "4", "topic": "sums"}]))
        assert [dict(message) for message in problem.messages] == messages
        assert problem.question == "and 2+2?"
        assert problem.metadata == {"topic": "sums"}


def test_messages_may_stand_in_the_question_column_with_other_keys(tmp_path: Path) -> None:
    row = {"prompt": [{"role": "user", "content": "1?", "name": "x"}], "answer": "1"}
    (problem,) = load(write(tmp_path / "p.jsonl", [row]), fields={"question": "prompt"})
    assert problem.problem_id == Problem(ask("1?"), "1").problem_id


# -- filter and limit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet"])
def test_filter_then_limit(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert ids(load(path, filter="level >= 2")) == ["b", "c"]
    assert ids(load(path, filter="level >= 2", limit=1)) == ["b"]
    assert ids(load(path, limit=2)) == ["a", "b"]
    assert ids(load(path, filter="answer IN ('2', '6') OR question LIKE '2+%'")) == ["a", "b", "c"]


def test_a_column_that_some_rows_lack_is_null_there(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [ROWS[0], {**ROWS[1], "overlap": "math500"}])
    assert ids(load(path, filter="overlap IS NULL")) == ["a"]
    # what a filter adds to rows to find them again is not metadata
    assert load(path, filter="overlap IS NOT NULL")[0].metadata == {"level": 2, "overlap": "math500"}


def test_a_wrong_filter_names_the_columns(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "p.jsonl"), filter="difficulty > 2")
    assert "difficulty" in message
    assert "Columns: id, question, answer, source, level." in message


def test_a_column_that_mixes_types_is_text_in_the_filter(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [ROWS[0], {**ROWS[1], "level": "two"}])
    assert "Could not convert string 'two'" in refusal(path, filter="level = 1")
    assert len(load(path, filter="level = 'two'")) == 1
    assert len(load(path)) == 2


def test_numbers_beyond_64_bits_are_text_in_the_filter(tmp_path: Path) -> None:
    rows = [{"question": "2^100?", "answer": 2**100}, {"question": "1?", "answer": 1}]
    (problem,) = load(write(tmp_path / "p.jsonl", rows), filter="answer != '1'")
    assert problem.gold == str(2**100)


def test_a_column_of_the_files_own_does_not_decide_what_is_kept(tmp_path: Path) -> None:
    rows = [row | {"_row": 2 - place, "_ROW_": 9} for place, row in enumerate(ROWS)]
    assert ids(load(write(tmp_path / "p.jsonl", rows), filter="level = 1 and _row = 2")) == ["a"]


def test_a_filter_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    assert "after filter 'level > 9'" in refusal(write(tmp_path / "p.jsonl"), filter="level > 9")
    (tmp_path / "empty.jsonl").touch()
    assert "no problem is left" in refusal(tmp_path / "empty.jsonl", filter="true")


def test_an_error_after_a_filter_still_names_the_line_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [*ROWS, {"question": "", "answer": "1", "level": 9}])
    assert refusal(path, filter="level > 2").startswith("p.jsonl, line 4: ")


# -- identity ---------------------------------------------------------------------------------------------------------


def test_a_problem_is_what_is_asked_and_nothing_else() -> None:
    problem = Problem(ask("1+1?"), "2", source="a", external_id="1", metadata={"level": 1})
    same = Problem(ask("1+1?"), "two", source="b", external_id="2")
    assert problem.problem_id == same.problem_id
    assert problem.gold_digest != same.gold_digest
    assert problem.problem_id != Problem(ask("1+1? "), "2").problem_id
    conversation = ({"role": "system", "content": ""}, *ask("1+1?"))
    assert problem.problem_id != Problem(conversation, "2").problem_id
    assert Problem(({"content": "1+1?", "role": "user"},), "2").problem_id == problem.problem_id


# -- the public files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("aime24.jsonl", 30), ("math500.jsonl", 500)])
def test_benchmark_files_load(reval_data: Path, name: str, count: int) -> None:
    problems = load(reval_data / name)
    assert len({problem.problem_id for problem in problems}) == len(problems) == count
    assert all(problem.gold.strip() for problem in problems)


def test_the_training_file_loads_without_its_overlap(reval_data: Path) -> None:
    problems = load_problems(
        ProblemSource(path=str(reval_data / "deepscaler_40308.jsonl.gz"), filter="overlap IS NULL")
    )
    assert len(problems) == 40308 - 65
    assert all("overlap" not in problem.metadata for problem in problems)


def test_a_field_may_stand_inside_a_mapping(tmp_path: Path) -> None:
    row = {"prompt": [{"role": "user", "content": "1+1?"}], "reward_model": {"ground_truth": "2"}, "a.b": "3"}
    (tmp_path / "verl.jsonl").write_text(json.dumps(row))
    fields = {"messages": "prompt", "answer": "reward_model.ground_truth", "id": "a.b"}
    (problem,) = load_problems(ProblemSource(path=str(tmp_path / "verl.jsonl"), fields=fields))
    assert (problem.question, problem.gold, problem.external_id) == ("1+1?", "2", "3")
    assert problem.metadata == {"reward_model": {"ground_truth": "2"}}


def test_half_of_a_surrogate_pair_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"question": "1+1?"}\n{"question": "a\\ud800"}\n')
    with pytest.raises(ProblemError, match=r"p\.jsonl, line 2: half of a surrogate pair at character 1"):
        load_problems(ProblemSource(path=str(tmp_path / "p.jsonl")))


@pytest.mark.parametrize("column", ["answer", "id", "source", "subject"])
def test_half_of_a_surrogate_pair_is_refused_in_every_column(tmp_path: Path, column: str) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"question": "1+1?", "answer": "2", column: "\ud800"}))
    assert "p.jsonl, line 1: half of a surrogate pair" in refusal(tmp_path / "p.jsonl")


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.csv"])
def test_the_mark_of_the_byte_order_is_no_part_of_the_text(tmp_path: Path, name: str) -> None:
    row = {"question": "1+1?", "answer": "2"}
    written = {"p.jsonl": json.dumps(row), "p.json": json.dumps([row]), "p.csv": "question,answer\r\n1+1?,2\r\n"}
    (tmp_path / name).write_text(written[name], encoding="utf-8-sig")
    (problem,) = load_problems(ProblemSource(path=str(tmp_path / name)), check_gold)
    assert (problem.question, problem.gold, problem.metadata) == ("1+1?", "2", {})


def test_a_nan_is_a_gap(tmp_path: Path) -> None:
    """As pandas writes the missing values of a column of numbers."""
    nan = float("nan")
    rows = [{"question": "1+1?", "answer": 2.0, "level": nan}, {"question": "1+2?", "answer": nan, "level": 1.0}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    assert "p.parquet, line 2: column 'answer' is missing or null" in refusal(tmp_path / "p.parquet")
    of_ones_own = load_problems(ProblemSource(path=str(tmp_path / "p.parquet")))
    assert [(problem.gold, problem.metadata) for problem in of_ones_own] == [
        ("2.0", {"level": None}),
        ("", {"level": 1.0}),
    ]
    assert of_ones_own[0].gold_digest != of_ones_own[1].gold_digest


def test_a_filter_reads_what_arrow_has_not(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": "1", "_row": n, "size": 2**70, "half": "\ud800"} for n in (1, 2)]
    (tmp_path / "p.jsonl").write_text(lines(rows))
    kept = ProblemSource(path=str(tmp_path / "p.jsonl"), filter="_row = 2 AND size LIKE '1180591%'")
    with pytest.raises(ProblemError, match=r"p\.jsonl, line 2: half of a surrogate pair"):
        load_problems(kept)


def test_a_reward_of_ones_own_is_graded_anew_when_a_column_is_mended(tmp_path: Path) -> None:
    def digests(bonus: int, check: Any = None) -> str:
        path = tmp_path / "p.jsonl"
        path.write_text(json.dumps({"question": "1+1?", "answer": "2", "bonus": bonus}))
        (problem,) = load_problems(ProblemSource(path=str(path)), check)
        return problem.gold_digest

    assert digests(1) != digests(5)
    assert digests(1) == digests(1)
    assert digests(1, check_gold) == digests(5, check_gold)


def test_a_missing_number_of_a_parquet_file_is_graded_on_like_any_other(tmp_path: Path) -> None:
    rows = [{"question": "1+1?", "answer": "2", "bonus": bonus} for bonus in (float("nan"), 1.0, 2.0)]
    missing, *others = load_problems(ProblemSource(path=str(write(tmp_path / "p.parquet", rows))))
    assert missing.gold_digest == missing.gold_digest
    assert missing.gold_digest not in {problem.gold_digest for problem in others}
