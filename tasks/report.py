"""Report: one self-contained HTML file of a run, and its plots, drawn from the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from matplotlib.figure import Figure

from reval_core.identity import digest
from reval_core.reporting import canvas, html, plots, run_plots
from reval_core.reporting.html import Picture
from reval_core.store import reports
from reval_core.store.files import write_text
from tasks.commit import Commit
from tasks.evaluate import current_evaluations
from tasks.references import Reported
from tasks.report_page import page_of
from tasks.run import Here, Run
from tasks.stage import stage
from tasks.track import system_metrics

REPORT_VERSION = 5
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
    (
        "calibration",
        "Calibration",
        "The reward that the logits stand for, β (log π − log π_ref + V − V_ref), with the middle four fifths of what "
        "was learned from. It starts at 0 and is the reward itself at the optimum.",
    ),
    ("replay", "Staleness and reuse", "Age in rounds of what was learned from, and uses of a trajectory."),
    ("length", "Response length", "Tokens of a response with the middle four fifths, and the share that was cut."),
    ("verdicts", "Verdicts", "Shares of each status in the fresh batch."),
    ("stages", "Time by round", "Seconds of each stage by round."),
    ("timeline", "Timeline", "When each stage of the run was executed; gaps are times without one."),
    ("resources", "Machine", "What MLflow's system metrics say of the machine while the run was worked on."),
)
WIDTHS: dict[str, Literal["hero", "wide"]] = {"learning-curve": "hero", "timeline": "wide"}
"""Figures that do not share a line of the page with another."""
REWARD_CAPTION = (
    "Mean reward of the fresh batches, which has no right and wrong, and evaluations with 95 % intervals. A batch "
    "stands at the rounds that the policy which sampled it had learned."
)
RESIDUAL_CAPTION = (
    "The residual is what learning has moved (log-ratio and prompt term) minus reward / β, which is {scale:.3g} for "
    "a reward of 1. So residual and loss grow as more answers are right, while learning goes well; what learning "
    "changes is the part without the reward, which starts at 0 and moves towards reward / β, the optimum."
)


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
    svgs = write_figures(folder, draw(run))
    page = folder / "report.html"
    write_text(page, html.render_page(page_of(run, _pictures(run, svgs))))
    return Commit(Reported(str(page.relative_to(run.home.root))))


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> dict[str, str]:
    """Write each figure as PNG and SVG into a folder; returns the SVG documents by name."""
    svgs = {}
    for name, figure in figures.items():
        svgs[name] = canvas.figure_svg(figure, text="none")
        (folder / f"{name}.svg").write_text(svgs[name], encoding="utf-8")
        figure.set_layout_engine("none")  # it is laid out, which takes half of the time of drawing
        (folder / f"{name}.png").write_bytes(canvas.figure_png(figure))
    return svgs


def report_files(run: Run, reported: Reported) -> list[Path]:
    """The page and its plots."""
    page = run.home.root / reported.path
    return [page, *sorted(page.parent.glob("*.png"))]


def draw(run: Run) -> dict[str, Figure]:
    """The run's figures by name; those of benchmarks are called ``benchmark-NAME``."""
    rounds = _columns(_query(run, "SELECT * FROM rounds WHERE run_id = $run_id ORDER BY iteration"))
    with run.store.read() as connection:
        lengths = reports.lengths(connection, run.run_id)
        calibration = reports.calibration(connection, run.run_id, run.config.objective.beta)
        timeline = reports.timeline(connection, run.run_id)
    curves = evaluation_curves(run)
    benchmark, metric = next(iter(run.config.evaluation.benchmarks), ""), _avg(run)
    points = curves.get(benchmark, {}).get(metric, {"learned": [], "value": [], "low": [], "high": []})
    statuses = [name for name in rounds if name.endswith("_share") and name != "truncated_share"]
    seconds = [name for name in rounds if name.startswith("seconds_")]
    figures = {
        "learning-curve": plots.learning_curve(rounds, points, evaluated=f"{Path(benchmark).name}, {metric}"),
        **{f"benchmark-{_file_name(name)}": run_plots.benchmark_curves(table) for name, table in curves.items()},
        "residual": plots.residual_plot(rounds | {"moved_mean": _moved(run, rounds)}),
        "calibration": run_plots.calibration(calibration),
        "replay": plots.staleness_reuse(rounds),
        "length": run_plots.response_length(lengths),
        "verdicts": plots.verdict_shares(_long(rounds, statuses, "status", "share", "_share")),
        "stages": plots.stage_timeline(_long(rounds, seconds, "stage", "seconds", "seconds_")),
        "timeline": run_plots.timeline(timeline),
    }
    machine = system_metrics(run)
    return figures | ({"resources": run_plots.resources(machine)} if machine else {})


def evaluation_curves(run: Run) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """Benchmark to metric to columns learned (rounds), value, low, high; k-sample accuracies alone, avg@k first."""
    curves: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for row in current_evaluations(run):
        if "@" not in row["metric"]:
            continue
        table = curves.setdefault(row["benchmark"], {}).setdefault(
            row["metric"], {"learned": [], "value": [], "low": [], "high": []}
        )
        table["learned"].append(row["iteration"] + 1)
        for name in ("value", "low", "high"):
            table[name].append(row[name])
    return curves


def _avg(run: Run) -> str:
    return f"avg@{run.config.evaluation.samples_per_problem}"


def _file_name(benchmark: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in Path(benchmark).name)


def _pictures(run: Run, svgs: Mapping[str, str]) -> list[Picture]:
    """The figures as parts of the page, benchmarks behind the learning curve."""
    told = {name: (title, _caption(run, name, caption)) for name, title, caption in FIGURES}
    for benchmark in run.config.evaluation.benchmarks:
        told[f"benchmark-{_file_name(benchmark)}"] = (
            Path(benchmark).name,
            "Shares over the benchmark's problems with 95 % intervals.",
        )
    return [Picture(*told[name], svg, WIDTHS.get(name, "half")) for name, svg in svgs.items()]


def _query(run: Run, sql: str, **values: Any) -> pa.Table:
    return run.store.query_live(sql, run_id=run.run_id, **values)


def _columns(table: pa.Table) -> dict[str, list[Any]]:
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _long(table: dict[str, list[Any]], names: list[str], key: str, value: str, affix: str) -> dict[str, list[Any]]:
    """Columns such as seconds_learn to rows (iteration, stage, seconds)."""
    long: dict[str, list[Any]] = {"iteration": [], key: [], value: []}
    for name in names:
        long["iteration"] += table["iteration"]
        long[key] += [name.replace(affix, "")] * len(table["iteration"])
        long[value] += table[name]
    return long


def _moved(run: Run, rounds: dict[str, list[Any]]) -> list[float | None]:
    """The residual without its reward, by round; None where the objective's residual is made of something else."""
    if not _is_reval(run):
        return [None] * len(rounds["log_ratio_mean"])
    parts = zip(rounds["log_ratio_mean"], rounds["root_value_gap_mean"], strict=True)
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
