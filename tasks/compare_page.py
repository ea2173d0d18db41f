"""The page of a comparison: two policies on the same benchmarks, where they differ, and what was set otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from reval_core.config_files import differences, parse_config
from reval_core.evaluation.metrics import Estimate
from reval_core.home import Home
from reval_core.identity import digest, short
from reval_core.reporting import canvas, comparison, html
from reval_core.reporting.html import Answer, Interval, Page, Picture, Sample, Section, Table, literal
from reval_core.store import Store, evaluations
from tasks.compare import Compared
from tasks.references import Evaluated

SAMPLES = 4
"""Problems shown in each direction, of each benchmark."""


def write_comparison(
    home: Home, first: Sequence[Evaluated], second: Sequence[Evaluated], rows: Sequence[Compared]
) -> Path:
    """Write the page under ``reports/comparisons``; the same two sets of evaluations have the same page.

    Args:
        home: the root.
        first, second: evaluations on the same benchmarks, in the same order; at least one.
        rows: what came out.
    """
    name = digest("cmp", [[side.evaluation_id for side in sides] for sides in (first, second)])
    page = home.reports / "comparisons" / short(name).removeprefix("cmp_") / "comparison.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(html.render_page(page_of(Store(home.database), first, second, rows)), encoding="utf-8")
    return page


def page_of(store: Store, first: Sequence[Evaluated], second: Sequence[Evaluated], rows: Sequence[Compared]) -> Page:
    """The page of two policies' evaluations."""
    sides = [_side(store, found[0].policy_id) for found in (first, second)]
    names = _names(sides)
    with store.read() as connection:
        settings = evaluations.settings(connection, second[0].evaluation_id)
    return Page(
        kind="ReVal comparison",
        title=f"{names[0]} and {names[1]}",
        identity=f"{first[0].policy_id} · {second[0].policy_id}",
        created="difference: second minus first",
        facts=[
            ("First", names[0]),
            ("Second", names[1]),
            ("Samples for a problem", settings["samples_per_problem"]),
            *((Path(one.benchmark).name, f"{_count(store, one)} problems") for one in first),
        ],
        sections=[
            Section("Accuracy", ACCURACY, tables=_accuracy(rows)),
            Section("Figures", pictures=_pictures(store, first, second, rows, sides)),
            Section("Where they differ", DIFFER, samples=_samples(store, first, second, names)),
            Section(
                "Settings",
                tables=[
                    Table("Settings that differ", ["key", *names], _changed(sides)),
                    Table("How both were sampled", ["key", "value"], [[k, literal(v)] for k, v in settings.items()]),
                ],
            ),
        ],
    )


ACCURACY = (
    "95 % intervals by resampling problems. The difference is paired: both policies answered the same problems under "
    "the same noise. In bold: its interval does not hold 0."
)
DIFFER = "The problems with the largest difference: a right response of the better policy, a wrong one of the other."


def _accuracy(rows: Sequence[Compared]) -> list[Table]:
    tables = []
    for benchmark, group in groupby(rows, key=lambda row: row.benchmark):
        cells = [[row.metric, *map(_interval, row.intervals), _interval(row.difference, signed=True)] for row in group]
        tables.append(Table(Path(benchmark).name, ["", "first", "second", "difference"], cells, half=True))
    return tables


def _interval(estimate: Estimate, *, signed: bool = False) -> Interval:
    return Interval(estimate.value, estimate.low, estimate.high, signed)


def _pictures(
    store: Store,
    first: Sequence[Evaluated],
    second: Sequence[Evaluated],
    rows: Sequence[Compared],
    sides: Sequence[dict[str, Any]],
) -> list[Picture]:
    told = [
        (f"{Path(row.benchmark).name} {row.metric}", row.difference.value, row.difference.low, row.difference.high)
        for row in rows
    ]
    pictures = [
        _picture(
            "Differences",
            "Second minus first, with 95 % intervals over problems.",
            comparison.differences(told, xlabel="difference in accuracy"),
        )
    ]
    pictures += _curves(store, rows[0], [side["run_id"] for side in sides if side["kind"] != "base"])
    for one, other in zip(first, second, strict=True):
        with store.read() as connection:
            shares = [
                evaluations.samples(connection, side.evaluation_id).correct.mean(axis=1).tolist()
                for side in (one, other)
            ]
        pictures.append(
            _picture(
                f"{Path(one.benchmark).name}, problem by problem",
                "A point is the problems with these two shares of right samples; above the line the second is better.",
                comparison.problem_by_problem(*shares, names=("first", "second")),
            )
        )
    return pictures


def _curves(store: Store, row: Compared, run_ids: list[str]) -> list[Picture]:
    """The two runs' evaluations on the first benchmark; nothing where they are one run, or not both are known."""
    if len(set(run_ids)) < 2 or None in run_ids:
        return []
    arms: dict[str, dict[str, list[Any]]] = {}
    for run_id in run_ids:
        found = store.query_live(
            "SELECT iteration + 1 AS rounds, value, low, high FROM evaluations "
            "WHERE run_id = $run AND benchmark = $benchmark AND metric = $metric ORDER BY iteration",
            run=run_id,
            benchmark=row.benchmark,
            metric=row.metric,
        )
        arms[run_id] = {name: found.column(name).to_pylist() for name in found.column_names}
    name = f"{Path(row.benchmark).name} {row.metric}"
    figure = comparison.curves(arms, "rounds", xlabel="rounds learned", ylabel=name)
    figure.set_size_inches(*canvas.SIZE)
    return [_picture("Learning curves", "Evaluations of the two runs with 95 % intervals over problems.", figure)]


def _picture(title: str, caption: str, figure: Figure) -> Picture:
    return Picture(title, caption, canvas.figure_svg(figure, text="none"))


def _samples(
    store: Store, first: Sequence[Evaluated], second: Sequence[Evaluated], names: tuple[str, str]
) -> list[tuple[str, list[Sample]]]:
    found: list[tuple[str, list[Sample]]] = []
    for one, other in zip(first, second, strict=True):
        with store.read() as connection:
            rows = evaluations.most_different(connection, one.evaluation_id, other.evaluation_id, SAMPLES)
        for better, what in ((True, "the second is better"), (False, "the first is better")):
            own = [row for row in rows if row["better"] == better]
            samples = [_sample(*pair, names) for pair in zip(own[::2], own[1::2], strict=True)]
            found.append((f"{Path(one.benchmark).name}: {what}", samples))
    return found


def _sample(one: dict[str, Any], other: dict[str, Any], names: tuple[str, str]) -> Sample:
    return Sample(
        one["question"],
        one["gold"],
        [_answer(one, f"first: {names[0]}"), _answer(other, f"second: {names[1]}")],
        place=f"right {one['first_share']:.0%} and {one['second_share']:.0%}",
    )


def _answer(row: dict[str, Any], label: str) -> Answer:
    facts = [
        ("verdict", f"{row['details']} (tier {row['tier']})"),
        ("length", f"{row['response_tokens']} tokens" + (", cut" if row["truncated"] else "")),
    ]
    return Answer(row["completion"], row["status"], row["answer"], label=label, facts=facts)


def _side(store: Store, policy_id: str) -> dict[str, Any]:
    """Where a policy is from: run_id, iteration and config, None for a base model; kind and folder."""
    (row,) = store.query_live(
        "SELECT p.policy_id, p.kind, p.iteration, p.folder, p.run_id, r.config FROM policies AS p "
        "LEFT JOIN runs AS r USING (run_id) WHERE policy_id = $policy",
        policy=policy_id,
    ).to_pylist()
    return dict(row)


def _names(sides: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """What people call the two: run and rounds learned, or the base model's folder."""
    told = [
        f"{side['run_id']} after {side['iteration'] + 1} rounds"
        if side["kind"] != "base" and side["run_id"]
        else f"base {Path(side['folder'] or side['policy_id']).name}"
        for side in sides
    ]
    if told[0] == told[1]:
        told = [short(side["policy_id"]) for side in sides]
    return told[0], told[1]


def _count(store: Store, evaluated: Evaluated) -> int:
    with store.read() as connection:
        return len(evaluations.samples(connection, evaluated.evaluation_id).correct)


def _changed(sides: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Settings in which the runs of the two policies differ; none where one of them is a base model."""
    flat = [parse_config(json.loads(side["config"])).flat() for side in sides if side["config"] is not None]
    return [[key, *map(literal, pair)] for key, pair in differences(*flat).items()] if len(flat) == 2 else []
