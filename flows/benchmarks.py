"""The registered benchmarks as a table: what is known of each, and whether its file is here."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from flows.terminal import unfolded
from reval_core.home import expand
from reval_core.problems.benchmarks import BENCHMARKS, HUB, Benchmark, is_known_file

COLUMNS = ("problems", "answers", "tolerance", "licence")


def list_benchmarks(console: Console) -> None:
    """Print every registered benchmark; files are looked for where REVAL_DATA says."""
    console, folder = unfolded(console), os.environ.get("REVAL_DATA")
    said = f"files in {folder}" if folder else "REVAL_DATA is not set: export REVAL_DATA=<folder of the files>"
    console.print(said, markup=False, soft_wrap=True)
    table = Table(Column("name", no_wrap=True), *COLUMNS, Column("file", overflow="fold"), show_edge=False)
    for benchmark in BENCHMARKS.values():
        rows = benchmark.take or benchmark.rows
        policy = ", ".join(f"{key} {value}" for key, value in benchmark.policy.items()) or "exact"
        cells = (benchmark.name, str(rows or ""), benchmark.answers, policy, benchmark.licence, where(benchmark))
        table.add_row(*map(escape, cells))
    console.print(table)
    console.print(
        f"NAME{HUB} reads the hub's copy; any problem file is a benchmark by its path, a data set as hf:NAME."
    )


def where(benchmark: Benchmark) -> str:
    """Whether its file is here, and whether it is the one that the registry knows."""
    if benchmark.source.path.startswith("builtin:"):
        return "built in"
    name = Path(benchmark.source.path).name
    if "REVAL_DATA" not in os.environ or not (path := expand(benchmark.source.path)).is_file():
        return f"{name} is missing" + (f"; {benchmark.name}{HUB}" if benchmark.hub else "")
    if benchmark.sha256 is None:
        return f"{name}, yours"
    return (
        f"{name}, as registered" if is_known_file(path, benchmark) else f"{name}, another file than the registered one"
    )
