import gzip
import json
import random
import re
from pathlib import Path

import pytest

from reval_core.config import ProblemFile
from reval_core.errors import ConfigError, ProblemError
from reval_core.home import expand
from reval_core.problems import loading
from reval_core.problems.benchmarks import (
    BENCHMARKS,
    benchmark_id,
    benchmark_policy,
    is_known_file,
    load_benchmark,
)
from reval_core.problems.loading import load_problems


def test_names_are_the_benchmarks_own() -> None:
    assert all(name == benchmark.name for name, benchmark in BENCHMARKS.items())
    assert {"arithmetic", "aime24", "aime25", "amc", "math500", "minerva", "olympiadbench"} <= set(BENCHMARKS)


def test_the_built_in_benchmark_is_held_out_from_training() -> None:
    heldout = {problem.problem_id for problem in load_benchmark("arithmetic")}
    train = {problem.problem_id for problem in load_benchmark("arithmetic-train")}
    assert len(heldout) == len(train) == 256
    assert heldout.isdisjoint(train)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Unknown benchmark 'maths-500'\. Did you mean 'math500'"):
        load_benchmark("maths-500")


def test_a_benchmark_of_the_users_data_needs_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REVAL_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"Benchmark .*export REVAL_DATA=<folder> first. Or evaluate on a problem"):
        load_benchmark("aime24")
    monkeypatch.setenv("REVAL_DATA", str(tmp_path))
    with pytest.raises(ProblemError, match=r"aime24\.jsonl"):
        load_benchmark("aime24")


@pytest.mark.parametrize(
    ("name", "count"),
    [("aime24", 30), ("aime25", 30), ("amc23", 40), ("amc", 83), ("math500", 500), ("minerva", 272), ("gsm8k", 1319)],
)
def test_benchmarks_load(reval_data: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    monkeypatch.setenv("REVAL_DATA", str(reval_data))
    assert len(load_benchmark(name)) == count


@pytest.mark.parametrize("row", [{}, {"answer": None}])
def test_a_solution_that_is_not_there_is_no_answer(
    row: dict[str, None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with gzip.open(tmp_path / "gsm8k_test_1319.jsonl.gz", "wt") as file:
        file.write(json.dumps({"question": "1+1?", **row}))
    monkeypatch.setenv("REVAL_DATA", str(tmp_path))
    with pytest.raises(ProblemError, match="line 1: column 'answer' is missing or null"):
        load_benchmark("gsm8k")


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))
    return str(path)


def test_a_path_is_a_benchmark_and_each_question_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [("1?", "1"), ("2?", "2"), ("1?", "1")])
    assert sorted(problem.question for problem in load_benchmark(path)) == ["1?", "2?"]


def test_of_two_gold_answers_the_first_counts_and_it_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"question": "1+1?", "answer": gold} for gold in ("2", "3", "2")]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [problem.gold for problem in load_benchmark(str(tmp_path / "b.jsonl"))] == ["2"]
    assert "two gold answers for the same question, 1 times; the first one counts: b.jsonl 1 says '2'" in caplog.text


def test_a_limit_takes_the_same_problems_in_whatever_order_they_stand(tmp_path: Path) -> None:
    rows = [(f"{index}?", "1") for index in range(50)]
    one = load_benchmark(write(tmp_path / "a.jsonl", rows), limit=7)
    two = load_benchmark(write(tmp_path / "b.jsonl", rows[::-1]), limit=7)
    assert [problem.problem_id for problem in one] == [problem.problem_id for problem in two]
    assert len(one) == 7
    smaller = load_benchmark(write(tmp_path / "a.jsonl", rows), limit=3)
    assert {problem.problem_id for problem in smaller} < {problem.problem_id for problem in one}


def test_a_benchmark_is_its_questions_and_golds_in_any_order(tmp_path: Path) -> None:
    rows = [("1?", "1"), ("2?", "2")]
    name = benchmark_id(load_benchmark(write(tmp_path / "a.jsonl", rows)))
    assert benchmark_id(load_benchmark(write(tmp_path / "b.jsonl", rows[::-1]))) == name
    assert benchmark_id(load_benchmark(write(tmp_path / "c.jsonl", [("1?", "1"), ("2?", "3")]))) != name
    assert benchmark_id(load_benchmark(write(tmp_path / "d.jsonl", rows[:1]))) != name


def test_the_training_problems_that_are_evaluated_are_spread_over_all_of_them() -> None:
    problems = load_benchmark("arithmetic-train")
    assert len(problems) == 256
    assert {problem.question[0] for problem in problems} == set("0123456789")  # not the first rows of the file
    assert load_benchmark("arithmetic-train", 10) == problems[:10]


def test_a_file_of_ones_own_may_have_other_columns(tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text('{"prompt": "1+1?", "solution": "2"}\n{"prompt": "1+2?", "solution": "3"}\n')
    files = {"odd": ProblemFile(path=str(tmp_path / "odd.jsonl"), fields={"question": "prompt", "answer": "solution"})}
    assert [problem.gold for problem in load_benchmark("odd", files=files)] == ["2", "3"]
    with pytest.raises(ProblemError, match=r"Benchmark .*odd\.jsonl: .*column 'question' is missing"):
        load_benchmark(str(tmp_path / "odd.jsonl"), files=files)


GPQA = (
    "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,Explanation\n"
    + "".join(
        f'r{n},"Which, of these, is {n}?",right {n},"wrong, {n}a",wrong {n}b,"wrong ""{n}c""",the secret\n'
        for n in range(8)
    )
)


def test_gpqa_is_read_from_the_users_own_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gpqa_diamond.csv").write_text(GPQA, encoding="utf-8")
    monkeypatch.setenv("REVAL_DATA", str(tmp_path))
    problems = load_benchmark("gpqa")
    assert [problem.external_id for problem in problems] == [f"r{n}" for n in range(8)]
    for number, problem in enumerate(problems):
        choices = dict(re.findall(r"^([A-D])\) (.*)$", problem.question, re.MULTILINE))
        assert choices[problem.gold] == f"right {number}" and len(set(choices.values())) == 4
        assert "secret" not in problem.question and problem.metadata["Explanation"] == "the secret"
    generator = random.Random(0)  # as openai/simple-evals shuffles: one generator through the file
    assert [p.gold for p in problems] == ["ABCD"[generator.sample(range(4), 4).index(0)] for _ in range(8)]
    assert problems == load_benchmark("gpqa")
    assert len({problem.gold for problem in problems}) > 2


def test_gpqas_columns_are_named_where_one_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gpqa_diamond.csv").write_text("Question,Correct Answer\nq,a\n", encoding="utf-8")
    monkeypatch.setenv("REVAL_DATA", str(tmp_path))
    with pytest.raises(ProblemError, match="Benchmark gpqa: row 1: column 'Incorrect Answer 1' is missing or empty"):
        load_benchmark("gpqa")


@pytest.mark.parametrize("name", [name for name, known in BENCHMARKS.items() if known.sha256])
def test_what_is_registered_is_the_file(reval_data: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("REVAL_DATA", str(reval_data))
    known = BENCHMARKS[name]
    assert is_known_file(expand(known.source.path), known)
    assert known.licence and known.origin and known.rows
    assert len(load_problems(known.source, prepare=known.prepare)) == known.rows


def test_another_file_of_the_name_is_read_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "aime24.jsonl", [("1?", "1")])
    monkeypatch.setenv("REVAL_DATA", str(tmp_path))
    assert len(load_benchmark("aime24")) == 1
    assert "aime24.jsonl is not the file whose checksum is registered" in caplog.text


def test_a_missing_file_says_what_it_is_and_where_else_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REVAL_DATA", str(tmp_path))
    with pytest.raises(ProblemError, match=r"It is QwenLM/Qwen2\.5-Math .*MAA.*the hub's copy: aime24@hub"):
        load_benchmark("aime24")
    with pytest.raises(ConfigError, match="No hub copy of olympiadbench"):
        load_benchmark("olympiadbench@hub")


def test_the_hubs_copy_is_read_by_its_own_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def hub(name: str, split: str) -> list[dict[str, str]]:
        asked.append((name, split))
        return [{"question": "How many?", "answer": "One and two.\n#### 1,003"}]

    monkeypatch.setattr(loading, "_hub_rows", hub)
    (problem,) = load_benchmark("gsm8k@hub")
    assert (problem.gold, asked) == ("1003", [("openai/gsm8k#main", "test")])
    assert benchmark_policy("minerva@hub") == {"relative_tolerance": 0.01}
