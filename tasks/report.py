"""Report: one self-contained HTML file of a run, and its plots, drawn from the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from reval_core.identity import digest
from reval_core.reporting import html, plots
from tasks.commit import Commit
from tasks.evaluate import current_evaluations
from tasks.references import Reported
from tasks.run import Here, Run
from tasks.stage import stage

REPORT_VERSION = 3
"""Raised by hand when the page changes, so that a finished run's page is written anew."""

FIGURES = (
    (
        "learning-curve",
        "Learning curve",
        "Accuracy of the fresh batches, and evaluations with 95 % intervals. A batch stands at the rounds that the "
        "policy which sampled it had learned.",
    ),
    (
        "residual",
        "Bellman residual",
        "Mean and spread over the trajectories of a round's updates, in nats, and the loss, its weighted mean square.",
    ),
    ("replay", "Staleness and reuse", "Age in rounds of what was learned from, and uses of a trajectory."),
    ("length", "Response length", "Mean tokens of a response, and the share that was cut."),
    ("verdicts", "Verdicts", "Shares of each status in the fresh batch."),
    ("stages", "Time", "Seconds of each stage by round."),
)
REWARD_CAPTION = (
    "Mean reward of the fresh batches, which has no right and wrong, and evaluations with 95 % intervals. A batch "
    "stands at the rounds that the policy which sampled it had learned."
)
RESIDUAL_CAPTION = (
    "The residual is what learning has moved (log-ratio and prompt term) minus reward / beta, which is {scale:.3g} for "
    "a reward of 1. So residual and loss grow as more answers are right, while learning goes well; what learning "
    "changes is the part without the reward, which starts at 0 and moves towards reward / beta, the optimum."
)
SAMPLES = 12
"""Responses shown in the report."""


def _inputs(here: Here) -> dict[str, Any]:
    run = here.run
    done = [output for (_, name, _), output in sorted(run.history.items()) if name in ("learn", "evaluate")]
    return {"version": REPORT_VERSION, "run_id": run.run_id, "stages": digest("rep", done)}


def _present(here: Here, reported: Reported) -> bool:
    return (here.run.home.root / reported.path).exists()


@stage("report", reference=Reported, inputs=_inputs, historic=False, present=_present)
def report(here: Here) -> Commit[Reported]:
    """Draw the plots and write the page under ``reports/<run>``."""
    run = here.run
    folder = run.home.reports / run.run_id
    folder.mkdir(parents=True, exist_ok=True)
    figures = draw(run)
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(plots.figure_png(figure))
        (folder / f"{name}.svg").write_text(plots.figure_svg(figure), encoding="utf-8")
    svgs = {name: (folder / f"{name}.svg").read_text(encoding="utf-8") for name in figures}
    page = folder / "report.html"
    page.write_text(html.render_report(_page(run, svgs)), encoding="utf-8")
    return Commit(Reported(str(page.relative_to(run.home.root))))


def report_files(run: Run, reported: Reported) -> list[Path]:
    """The page and its plots."""
    page = run.home.root / reported.path
    return [page, *sorted(page.parent.glob("*.png"))]


def draw(run: Run) -> dict[str, Any]:
    """The run's figures by name."""
    rounds = _query(run, "SELECT * FROM rounds WHERE run_id = $run_id ORDER BY iteration")
    metric = f"avg@{run.config.evaluation.samples_per_problem}"
    benchmark = next(iter(run.config.evaluation.benchmarks), "")
    points = _evaluations(run, benchmark, metric)
    statuses = [name for name in rounds.column_names if name.endswith("_share") and name != "truncated_share"]
    return {
        "learning-curve": plots.learning_curve(
            _columns(rounds), points, evaluated=f"{Path(benchmark).name}, {metric}", title=run.record.name
        ),
        "residual": plots.residual_plot(_columns(rounds) | {"moved_mean": _moved(run, rounds)}),
        "replay": plots.staleness_reuse(_columns(rounds)),
        "length": plots.response_length(_columns(rounds, length_mean="response_tokens_mean")),
        "verdicts": plots.verdict_shares(_long(rounds, statuses, "status", "share", "_share")),
        "stages": plots.stage_timeline(
            _long(rounds, [n for n in rounds.column_names if n.startswith("seconds_")], "stage", "seconds", "seconds_")
        ),
    }


def _query(run: Run, sql: str, **values: Any) -> pa.Table:
    return run.store.query_live(sql, run_id=run.run_id, **values)


def _columns(table: pa.Table, **renamed: str) -> dict[str, list[Any]]:
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return columns | {new: columns[old] for new, old in renamed.items()}


def _long(table: pa.Table, names: list[str], key: str, value: str, affix: str) -> dict[str, list[Any]]:
    """Columns such as seconds_learn to rows (iteration, stage, seconds)."""
    iterations = table.column("iteration").to_pylist()
    long: dict[str, list[Any]] = {"iteration": [], key: [], value: []}
    for name in names:
        long["iteration"] += iterations
        long[key] += [name.replace(affix, "")] * len(iterations)
        long[value] += table.column(name).to_pylist()
    return long


def _evaluations(run: Run, benchmark: str, metric: str) -> dict[str, list[Any]]:
    rows = [row for row in current_evaluations(run) if (row["benchmark"], row["metric"]) == (benchmark, metric)]
    points = {name: [row[name] for row in rows] for name in ("value", "low", "high")}
    return {"learned": [row["iteration"] + 1 for row in rows], **points}


def _moved(run: Run, rounds: pa.Table) -> list[float | None]:
    """The residual without its reward, by round; None where the objective's residual is made of something else."""
    if not _is_reval(run):
        return [None] * rounds.num_rows
    parts = zip(*(rounds.column(name).to_pylist() for name in ("log_ratio_mean", "root_value_gap_mean")), strict=True)
    return [None if ratio is None or gap is None else ratio + gap for ratio, gap in parts]


def _is_reval(run: Run) -> bool:
    return run.config.objective.use == "reval"


def _caption(run: Run, name: str, caption: str) -> str:
    """The caption of a figure, as far as it depends on the run."""
    if name == "learning-curve" and run.config.reward.knows_no_wrong:
        return REWARD_CAPTION
    if name == "residual" and _is_reval(run):
        return f"{caption} " + RESIDUAL_CAPTION.format(scale=1 / run.config.objective.beta)
    return caption


def _samples(run: Run) -> list[dict[str, Any]]:
    """Responses of the newest round along the run's chain, wrong ones first, with the verdict that the run used."""
    return run.store.query_live(
        "SELECT question, gold, answer, completion, status, reward, iteration, details FROM run_trajectories "
        f"WHERE run_id = $run_id ORDER BY iteration DESC, correct, trajectory_id LIMIT {SAMPLES}",
        run_id=run.run_id,
    ).to_pylist()


def _page(run: Run, svgs: dict[str, str]) -> html.ReportData:
    facts = [
        ("Run", run.run_id),
        ("Base policy", run.record.base_policy_id),
        ("Last policy", run.policy_after(run.iterations_done() - 1)),
        ("Rounds", run.iterations_done()),
        (
            "Trajectories",
            _query(
                run, "SELECT coalesce(sum(trajectories), 0)::BIGINT AS n FROM rounds WHERE run_id = $run_id"
            ).to_pylist()[0]["n"],
        ),
        ("Parent run", run.record.parent_run_id or "none"),
    ]
    versions = sorted(run.record.versions.items())
    created = _query(run, "SELECT created_at FROM store.runs WHERE run_id = $run_id").to_pylist()[0]["created_at"]
    return html.ReportData(
        run_name=run.record.name,
        run_id=run.run_id,
        created=f"{created:%Y-%m-%d %H:%M} UTC",
        settings=run.config.flat(),
        summary=before_and_after(run),
        figures=[(title, _caption(run, name, caption), svgs[name]) for name, title, caption in FIGURES],
        samples=_samples(run),
        tables=[("Versions", ["what", "version"], [[key, value] for key, value in versions])],
        facts=facts,
    )


def before_and_after(run: Run) -> list[tuple[str, Any, Any]]:
    """(what, base policy, last policy) of every benchmark and metric of the run; None where one was not evaluated."""
    found = current_evaluations(run)
    last = run.iterations_done() - 1
    cells = {(row["benchmark"], row["metric"], row["iteration"]): _interval(row) for row in found}
    names = list(dict.fromkeys((row["benchmark"], row["metric"]) for row in found))
    return [(f"{b} {m}", cells.get((b, m, -1)), cells.get((b, m, last))) for b, m in names]


def _interval(row: dict[str, Any]) -> str:
    """``0.970 [0.950, 0.986]``; what nothing could be estimated from is said so, as for 0 of 0."""
    if row["value"] is None:
        return "not estimated"
    if row["low"] is None or row["high"] is None:
        return f"{row['value']:.3f} [not estimated]"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
