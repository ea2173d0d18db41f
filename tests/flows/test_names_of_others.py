"""Names of files that hold escape sequences: they reach no terminal, no key of MLflow, and break no page."""

from __future__ import annotations

import io
import logging
import xml.etree.ElementTree as ET
from datetime import datetime
from pathlib import Path

import pytest
from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name
from rich.table import Table
from small_run import changed, train

from flows.closing import show_evaluations
from flows.terminal import Shown
from reval_core.config import Config
from reval_core.home import Home
from reval_core.reporting import canvas, comparison, plots
from reval_core.reporting.inline import inline_svg
from reval_core.visible import VisibleFormatter
from tasks import track

HOSTILE = "\x1b]0;title\x07\x1b[31m\x9b2J\rred\x00 $\\frac$ [bold].jsonl"
CONTROL = set(map(chr, (*range(9), *range(11, 32), *range(127, 160))))


def test_no_text_reaches_the_terminal_as_an_order() -> None:
    for name in (HOSTILE, f"data/{HOSTILE}\n"):
        out = io.StringIO()
        console = Shown(file=out, width=200, highlight=False, emoji=False)
        table = Table(title=name)
        table.add_column("name")
        table.add_row(name)
        console.print(name, markup=False, soft_wrap=True)
        console.print(table)
        console.rule(name)
        show_evaluations([(name, "avg@2", 0.5, 0.4, 0.6)], console)
        assert set(out.getvalue()) & CONTROL == set()
        assert out.getvalue().count(r"\x1b]0;title\x07\x1b[31m\x9b2J\rred\x00") >= 4


def test_colours_of_our_own_are_shown() -> None:
    out = io.StringIO()
    Shown(file=out, force_terminal=True, width=80).print("[red]Error:[/] told")
    assert "\x1b[31mError:" in out.getvalue()


def test_warnings_that_quote_a_name_give_no_orders() -> None:
    record = logging.LogRecord("tasks", logging.WARNING, "", 0, "benchmark %s\nis odd", (HOSTILE,), None)
    told = VisibleFormatter("%(message)s").format(record)
    assert set(told) & CONTROL == set()
    assert told.endswith("\nis odd")


@pytest.mark.parametrize("name", [HOSTILE, "\x1b", "a/../b//c", "data/mine.jsonl", "/abs/./x", "x" * 400])
def test_keys_of_mlflow_are_such_as_it_takes(name: str) -> None:
    row = {"benchmark": name, "metric": "avg@2", "value": 0.5, "low": 0.4, "high": 0.6, "iteration": 1}
    for point in track.evaluation_points([row | {"created_at": datetime(2026, 1, 1)}]):
        if len(name) < 200:
            _validate_metric_name(point.key)
    for key in (track._key(f"setting.evaluation.limits.{name}"), track._key(f"reward.args.{name}")):
        _validate_tag_name(key)
        _validate_param_name(key)
        assert set(key) & CONTROL == set()
    assert track._key("setting.evaluation.limits.data/mine.jsonl") == "setting.evaluation.limits.data/mine.jsonl"


def test_figures_draw_names_letter_by_letter(recwarn: pytest.WarningsRecorder) -> None:
    rounds = {"iteration": [0, 1], "accuracy": [0.1, 0.2], "reward_mean": [0.1, 0.2]}
    points = {"learned": [0, 1], "value": [0.1, 0.2], "low": [0.0, 0.1], "high": [0.2, 0.3]}
    arm = {"rounds": [0, 1], **{key: points[key] for key in ("value", "low", "high")}}
    for figure in (
        plots.learning_curve(rounds, points, evaluated=HOSTILE, title=HOSTILE),
        comparison.curves({HOSTILE: arm}, "rounds", xlabel="rounds", ylabel="share"),
        comparison.differences([(HOSTILE, 0.1, 0.0, 0.2)], xlabel="difference"),
    ):
        canvas.figure_png(figure)
        document = canvas.figure_svg(figure, text="none")
        drawn = "".join(ET.fromstring(document).itertext())
        assert r"\x1b]0;title\x07" in drawn
        assert r"$\frac$" in drawn
        inline_svg(document, "figure", "about it")
    assert [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)] == []


@pytest.mark.long
def test_a_run_with_such_a_benchmark_ends_with_its_report_and_its_metrics_in_mlflow(
    small: Config, benchmark_file: Path, home: Home, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / HOSTILE.replace("\x00", "")
    file.write_bytes(benchmark_file.read_bytes())
    config = small.model_dump(mode="json")
    config["evaluation"] |= {"benchmarks": [str(file)], "limits": {str(file): 2}, "before": True, "after": True}
    done = train(changed(Config.model_validate(config), "run.iterations=1"), home)
    assert done.report is not None and done.report.is_file()
    client = track.MlflowClient(home.mlflow_uri)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert [key for key in run.data.metrics if key.startswith("eval/") and key.endswith("avg_at_2")]
    printed = "".join(capfd.readouterr())
    assert set(printed) & CONTROL == set()
    assert "could not be written" not in printed
