"""Training problems that stand in a benchmark are told: once as an event, on the page, and beside an evaluation."""

from pathlib import Path

from small_run import POOL, Finished, changed, rows

from reval_core.home import Home
from reval_core.problems.benchmarks import load_benchmark
from reval_core.store import Store
from tasks.inputs import read_benchmarks
from tasks.open_run import open_run
from tasks.overlap import of_policy
from tasks.progress import Progress
from tasks.report_page import page_of


def test_a_run_that_is_measured_by_what_it_learns(finished: Finished, copied: Home, problem_file: Path) -> None:
    config = changed(finished.config, f"evaluation.benchmarks=['{problem_file}']")
    for _ in range(2):  # told once
        with open_run(config, copied, progress=Progress(quiet=True)) as run:
            page = page_of(run, [])
    (event,) = rows(copied, "SELECT message FROM events WHERE kind = 'overlap'")
    assert event["message"] == f"{problem_file}: {POOL} training problems are in it, 0 more are near one of its {POOL}"
    tables = {table.title: table for section in page.sections for table in section.tables}
    (row,) = tables["Training problems that stand in a benchmark"].rows
    assert row[:4] == [problem_file.name, POOL, POOL, 0]


def test_a_run_that_is_measured_by_something_else(finished: Finished) -> None:
    assert rows(finished.home, "SELECT message FROM events WHERE kind = 'overlap'") == []


def test_a_stored_policy_is_held_against_what_its_run_could_train_on(
    finished: Finished, problem_file: Path, benchmark_file: Path
) -> None:
    store = Store(finished.home.database)
    files = {"mine": load_benchmark(str(problem_file)), "other": load_benchmark(str(benchmark_file))}
    (found,) = of_policy(store, finished.outcome.policy_id, files)
    assert (found.benchmark, len(found.exact)) == ("mine", POOL)
    assert of_policy(store, "pol_of_nobody", files) == []


def test_caps_by_benchmark_go_over_the_common_one(finished: Finished, problem_file: Path, benchmark_file: Path) -> None:
    names = f"evaluation.benchmarks=['{problem_file}', '{benchmark_file}']"
    config = changed(finished.config, names, "evaluation.limit=2", f"evaluation.limits={{'{problem_file}': 4}}")
    assert [len(problems) for problems in read_benchmarks(config).values()] == [4, 2]
