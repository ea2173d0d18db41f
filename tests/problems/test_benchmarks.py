import json
from pathlib import Path

import pytest

from reval_core.config import ProblemFile
from reval_core.errors import ConfigError, ProblemError
from reval_core.problems.benchmarks import BENCHMARKS, benchmark_id, load_benchmark


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
    with pytest.raises(ConfigError, match="export REVAL_DATA"):
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


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))
    return str(path)


def test_a_path_is_a_benchmark_and_each_question_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [("1?", "1"), ("2?", "2"), ("1?", "1")])
    assert sorted(problem.question for problem in load_benchmark(path)) == ["1?", "2?"]


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
