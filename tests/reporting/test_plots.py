"""Figures show the numbers they were given, are the same bytes each time and bear missing data."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from reval_core.reporting import canvas, plots, run_plots

Columns = dict[str, list[Any]]

ROUNDS: Columns = {
    "iteration": [0, 1, 2],
    "accuracy": [0.25, 0.5, 0.75],
    "reward_mean": [0.25, 0.5, 0.75],
}
EVALUATIONS: Columns = {
    "learned": [0, 3],
    "value": [0.3, 0.6],
    "low": [0.2, 0.5],
    "high": [0.4, 0.7],
}
RESIDUALS: Columns = {
    "iteration": [1, 2],
    "residual_mean": [-9.0, -4.0],
    "residual_std": [3.0, 2.0],
    "moved_mean": [1.0, 6.0],
    "loss": [90.0, 20.0],
}
GRADED = {"reward_mean": [None, None, None]}
REPLAY: Columns = {"iteration": [1, 2], "staleness_mean": [0.0, 0.5], "uses_mean": [1.0, 1.5]}
LENGTHS: Columns = {
    "iteration": [1, 2],
    "length_mean": [12.0, 20.0],
    "length_low": [4.0, 8.0],
    "length_high": [20.0, 30.0],
    "right_mean": [10.0, 18.0],
    "wrong_mean": [14.0, None],
    "truncated_share": [0.1, 0.0],
}
CALIBRATION: Columns = {
    "iteration": [0, 1],
    "right_reward": [1.0, 1.0],
    "right_mean": [0.0, 0.5],
    "right_low": [0.0, 0.4],
    "right_high": [0.0, 0.6],
    "wrong_reward": [0.0, 0.0],
    "wrong_mean": [0.0, 0.1],
    "wrong_low": [0.0, 0.0],
    "wrong_high": [0.0, 0.2],
}
TIMELINE: Columns = {
    "iteration": [0, 0, 1],
    "stage": ["learn", "generate", "learn"],
    "start": [2.0, 0.0, 30.0],
    "seconds": [3.0, 2.0, 10.0],
}
VERDICTS: Columns = {
    "iteration": [1, 1, 2, 2],
    "status": ["incorrect", "correct", "correct", "odd_one"],
    "share": [0.75, 0.25, 0.9, 0.1],
}
STAGES: Columns = {
    "iteration": [1, 1, 2, 2],
    "stage": ["learn", "generate", "generate", "learn"],
    "seconds": [3.0, 2.0, 4.0, 5.0],
}
DRAWINGS: dict[str, tuple[Callable[..., Figure], list[Columns]]] = {
    "learning": (plots.learning_curve, [ROUNDS, EVALUATIONS]),
    "residual": (plots.residual_plot, [RESIDUALS]),
    "replay": (plots.staleness_reuse, [REPLAY]),
    "length": (run_plots.response_length, [LENGTHS]),
    "calibration": (run_plots.calibration, [CALIBRATION]),
    "timeline": (run_plots.timeline, [TIMELINE]),
    "verdicts": (plots.verdict_shares, [VERDICTS]),
    "stages": (plots.stage_timeline, [STAGES]),
}


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def steps(figure: Figure) -> list[Any]:
    """Values, edges and baseline of each stacked layer, from the bottom."""
    return [patch.get_data() for patch in figure.axes[0].patches if isinstance(patch, StepPatch)]


@pytest.mark.parametrize("name", DRAWINGS)
def test_svg_is_well_formed_and_the_same_each_time(name: str) -> None:
    draw, tables = DRAWINGS[name]
    first = canvas.figure_svg(draw(*tables))
    assert ET.fromstring(first).tag.endswith("svg")
    assert "<dc:date>" not in first
    assert first == canvas.figure_svg(draw(*tables))


@pytest.mark.parametrize("name", DRAWINGS)
def test_arrow_tables_draw_what_mappings_draw(name: str) -> None:
    draw, tables = DRAWINGS[name]
    arrow = draw(*[pa.table(table) for table in tables])
    assert canvas.figure_svg(arrow) == canvas.figure_svg(draw(*tables))


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.filterwarnings("error")
def test_empty_tables_say_so(name: str) -> None:
    draw, tables = DRAWINGS[name]
    figure = draw(*[{column: [] for column in table} for table in tables])
    assert "no data yet" in [text.get_text() for text in figure.axes[0].texts]
    assert canvas.figure_svg(figure)


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.filterwarnings("error")
def test_a_run_of_one_iteration_can_be_drawn(name: str) -> None:
    draw, tables = DRAWINGS[name]
    assert canvas.figure_svg(draw(*[{c: v[:1] for c, v in table.items()} for table in tables]))


@pytest.mark.parametrize("name", ["learning", "residual", "replay", "length", "calibration"])
@pytest.mark.filterwarnings("error")
def test_missing_numbers_can_be_drawn(name: str) -> None:
    draw, tables = DRAWINGS[name]
    places = ("iteration", "learned")
    gaps = [{c: list(v) if c in places else [None] * len(v) for c, v in table.items()} for table in tables]
    assert canvas.figure_svg(draw(*gaps))


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_missing_column_is_named(name: str) -> None:
    draw, tables = DRAWINGS[name]
    column = list(tables[0])[1]
    less = {key: values for key, values in tables[0].items() if key != column}
    for table in (less, pa.table(less)):
        with pytest.raises(ValueError, match=f"lacks column '{column}'"):
            draw(table, *tables[1:])


def test_columns_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        plots.staleness_reuse({"iteration": [1, 2], "staleness_mean": [0.0], "uses_mean": [1.0]})


def test_learning_curve_holds_the_numbers() -> None:
    figure = plots.learning_curve(ROUNDS, EVALUATIONS, evaluated="six, avg@4", title="A run")
    (axes,) = figure.axes
    fresh, _, points = axes.lines
    assert np.allclose(fresh.get_ydata(), ROUNDS["accuracy"])
    assert np.allclose(fresh.get_xdata(), [0, 1, 2])  # sampled after so many rounds of learning
    assert np.allclose(points.get_xdata(), [0, 3])
    assert axes.get_xlabel() == "rounds learned"
    assert np.allclose(points.get_ydata(), EVALUATIONS["value"])
    container: Any = axes.containers[0]
    (bars,) = container.lines[2]
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert np.allclose(ends, [[0.2, 0.4], [0.5, 0.7]])
    assert labels(figure) == ["fresh batch", "six, avg@4 and 95 % interval"]
    assert [text.get_text() for text in axes.texts] == ["30%", "60%"]


def test_rows_may_come_in_any_order() -> None:
    shuffled: Columns = {"iteration": [2, 0, 1], "accuracy": [0.75, 0.25, 0.5], **GRADED}
    line = plots.learning_curve(shuffled, EVALUATIONS).axes[0].lines[0]
    assert np.allclose(line.get_ydata(), [0.25, 0.5, 0.75])


def test_an_evaluation_without_value_is_left_out() -> None:
    table: Columns = {
        "learned": [0, 2],
        "value": [0.3, None],
        "low": [0.2, None],
        "high": [0.4, None],
    }
    axes = plots.learning_curve(ROUNDS, table).axes[0]
    assert [text.get_text() for text in axes.texts] == ["30%"]


def test_a_curve_without_evaluations_or_rounds_can_be_drawn() -> None:
    nothing: Columns = {column: [] for column in EVALUATIONS}
    assert labels(plots.learning_curve(ROUNDS, nothing)) == ["fresh batch"]
    no_rounds: Columns = {"iteration": [], "accuracy": [], "reward_mean": []}
    assert len(labels(plots.learning_curve(no_rounds, EVALUATIONS))) == 1


def test_layers_stand_on_each_other_in_a_fixed_order() -> None:
    figure = plots.verdict_shares(VERDICTS)
    assert labels(figure) == ["correct", "incorrect", "odd one"]
    layers = steps(figure)
    tops = [layer.values[::2].tolist() for layer in layers]
    assert np.allclose(tops, [[0.25, 0.9], [1.0, 0.9], [1.0, 1.0]])
    bases = [layer.baseline[::2].tolist() for layer in layers]
    assert np.allclose(bases, [[0, 0], *tops[:-1]])


def test_bars_of_a_timeline_add_up_to_the_seconds() -> None:
    figure = plots.stage_timeline(STAGES)
    assert labels(figure) == ["generate", "learn"]
    top = steps(figure)[-1]
    assert top.values[::2].tolist() == [5.0, 9.0]
    assert top.edges.tolist() == pytest.approx([0.6, 1.4, 1.6, 2.4])


def test_loss_is_drawn_on_a_log_scale_only_when_positive() -> None:
    assert plots.residual_plot(RESIDUALS).axes[1].get_yscale() == "log"
    zero = {**RESIDUALS, "loss": [0.0, 1.0]}
    assert plots.residual_plot(zero).axes[1].get_yscale() == "linear"


def test_a_loss_axis_is_labelled_at_decades_alone() -> None:
    for loss in ([2986.0, 6711.0], [5.0, 6.0], [1.0, 100.0]):
        figure = plots.residual_plot({**RESIDUALS, "loss": loss})
        figure.draw_without_rendering()
        axis = figure.axes[1].yaxis
        assert [tick.label1.get_text() for tick in axis.get_minor_ticks() if tick.label1.get_text()] == []
        low, high = figure.axes[1].get_ylim()
        assert np.log10([low, high]).tolist() == pytest.approx(np.round(np.log10([low, high])).tolist())
        assert low <= min(loss) <= max(loss) <= high
        assert low < high


def test_the_residual_is_drawn_beside_its_two_parts() -> None:
    above = plots.residual_plot(RESIDUALS).axes[0]
    drawn = {line.get_label(): list(line.get_ydata()) for line in above.lines}
    assert drawn["residual ± 1 s.d."] == [-9.0, -4.0]
    assert drawn["log-ratio + prompt term"] == [1.0, 6.0]
    assert drawn["reward / beta"] == [10.0, 10.0]
    nothing = plots.residual_plot({**RESIDUALS, "moved_mean": [None, None]})
    assert labels(nothing) == ["residual ± 1 s.d."]


def test_a_reward_that_is_a_number_is_not_called_accuracy() -> None:
    rewards: Columns = {"iteration": [0, 1], "accuracy": [None, None], "reward_mean": [-0.5, 1.5]}
    nothing: Columns = {column: [] for column in EVALUATIONS}
    (alone,) = plots.learning_curve(rewards, nothing).axes
    assert alone.get_title(loc="left") == "mean reward of the fresh batch"
    assert np.allclose(alone.lines[0].get_ydata(), [-0.5, 1.5])
    assert alone.get_xlabel() == "rounds learned"
    reward, accuracy = plots.learning_curve(rewards, EVALUATIONS).axes
    assert accuracy.get_title(loc="left") == "accuracy"  # of the benchmarks, which have gold answers
    assert "accuracy" not in reward.get_title(loc="left")


def test_an_evaluation_without_interval_is_a_point() -> None:
    table: Columns = {"learned": [0, 2], "value": [0.3, 0.6], "low": [None, None], "high": [None, None]}
    figure = plots.learning_curve(ROUNDS, table)
    assert [text.get_text() for text in figure.axes[0].texts] == ["30%", "60%"]
    assert canvas.figure_svg(figure)


def test_numbers_without_neighbours_get_a_marker() -> None:
    def marked(values: list[float | None]) -> list[int]:
        table: Columns = {"iteration": list(range(len(values))), "staleness_mean": values, "uses_mean": values}
        return list(plots.staleness_reuse(table).axes[0].lines[0].get_markevery() or [])

    assert marked([1.0]) == [0]
    assert marked([1.0, 2.0]) == []
    assert marked([1.0, None, 2.0, 3.0, None, 4.0]) == [0, 5]


def test_a_timeline_has_a_row_for_each_stage_and_a_bar_for_each_execution() -> None:
    (axes,) = run_plots.timeline(TIMELINE).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["generate", "learn"]  # in the order of the house
    bars = [[box.get_extents().extents for box in rows.get_paths()] for rows in axes.collections]
    assert [[(b[0], b[2]) for b in row] for row in bars] == [[(0, 2)], [(2, 5), (30, 40)]]
    assert axes.get_xlabel() == "seconds since the first stage began"
    slow = run_plots.timeline({**TIMELINE, "start": [0.0, 60.0, 600.0]})
    assert slow.axes[0].get_xlabel() == "minutes since the first stage began"


def test_calibration_shows_what_the_logits_say_and_what_was_rewarded() -> None:
    figure = run_plots.calibration(CALIBRATION)
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert drawn["rewarded"] == [0.0, 0.5] and drawn["not rewarded"] == [0.0, 0.1]
    assert drawn["the reward they got"] == [1.0, 1.0]
    assert labels(figure) == ["rewarded", "not rewarded", "the reward they got"]


def test_every_metric_of_a_benchmark_has_a_line() -> None:
    unknown = {**EVALUATIONS, "value": [None, None]}
    figure = run_plots.benchmark_curves({"avg@4": EVALUATIONS, "maj@4": unknown, "pass@4": EVALUATIONS})
    assert labels(figure) == ["avg@4", "pass@4"]
    assert labels(run_plots.benchmark_curves({})) == []


def test_the_machine_has_a_panel_for_each_measure() -> None:
    figure = run_plots.resources({"GPU, %": {"minutes": [0, 1], "value": [10.0, 20.0]}})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["GPU, %"]
    assert run_plots.resources({}).axes[0].texts[0].get_text() == "no data yet"


def test_verdicts_that_never_came_are_not_in_the_legend() -> None:
    none = {"iteration": [1, 1], "status": ["correct", "timeout"], "share": [1.0, 0.0]}
    assert labels(plots.verdict_shares(none)) == ["correct"]


def test_every_colour_of_a_figure_has_a_dark_one() -> None:
    for draw, tables in DRAWINGS.values():
        text = canvas.figure_svg(draw(*tables), text="none")
        assert set(re.findall("#[0-9a-f]{6}", text)) <= set(canvas.DARK)


def test_png_has_the_size_it_was_asked_for() -> None:
    data = canvas.figure_png(plots.learning_curve(ROUNDS, EVALUATIONS), dpi=100)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (520, 340)
    assert data == canvas.figure_png(plots.learning_curve(ROUNDS, EVALUATIONS), dpi=100)


def test_pyplot_is_never_imported() -> None:
    code = (
        "import sys; from reval_core.reporting import canvas, plots;"
        "f = plots.stage_timeline({'iteration': [1], 'stage': ['learn'], 'seconds': [1.0]});"
        "canvas.figure_svg(f); canvas.figure_png(f);"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


LONG = 650
"""Rounds of a run such as the paper's."""


def test_columns_of_a_long_run_are_means_of_neighbours() -> None:
    shares = {"iteration": list(range(LONG)), "status": ["correct"] * LONG, "share": [i / LONG for i in range(LONG)]}
    figure = plots.verdict_shares(shares)
    (axes,) = figure.axes
    assert axes.get_title("left") == "share of responses, mean of 5 rounds"
    (patch,) = [artist for artist in axes.get_children() if isinstance(artist, StepPatch)]
    values, edges, _ = patch.get_data()
    np.testing.assert_allclose(values[::2][:2], [2 / LONG, 7 / LONG])
    np.testing.assert_allclose(edges[:4], [-0.5, 4.5, 4.5, 9.5])
    assert len(values[::2]) == canvas.COLUMNS


def test_the_last_column_is_the_mean_of_the_rounds_that_it_has() -> None:
    x, layers, rounds = canvas.merged(np.arange(131.0), {"a": np.arange(131.0)})
    assert rounds == 2
    assert (x[0], x[-1]) == (0.5, 130.5)
    np.testing.assert_allclose(layers["a"][[0, -1]], [0.5, 130.0])


def test_the_batches_of_a_long_run_are_shown_with_their_running_mean() -> None:
    rounds = {"iteration": list(range(LONG)), "accuracy": [i % 2 for i in range(LONG)], "reward_mean": [0.0] * LONG}
    (axes,) = plots.learning_curve(rounds, {key: [] for key in EVALUATIONS}).axes
    pale, mean = axes.lines
    assert mean.get_label() == "fresh batch, mean of 11 rounds"
    assert np.ptp(pale.get_ydata()) == 1
    assert 0.4 < mean.get_ydata().min() < mean.get_ydata().max() < 0.6


def test_a_running_mean_passes_over_what_is_unknown() -> None:
    np.testing.assert_allclose(
        canvas.running_mean(np.array([1.0, np.nan, 3.0, np.nan, np.nan, np.nan]), 3), [1, 2, 3, 3, np.nan, np.nan]
    )


def test_a_round_in_which_the_machine_slept_does_not_hide_the_others() -> None:
    table = {"iteration": list(range(40)), "stage": ["learn"] * 40, "seconds": [2.0] * 39 + [2000.0]}
    (axes,) = plots.stage_timeline(table).axes
    assert axes.get_title("left") == "seconds; the highest column is 2,000 s"
    assert axes.get_ylim() == (0, 3)


def test_bars_that_touch_are_drawn_as_one() -> None:
    starts = [float(i) for i in range(5000)] + [6000.0]
    (axes,) = run_plots.timeline({"stage": ["learn"] * 5001, "start": starts, "seconds": [0.9] * 5001}).axes
    (bars,) = axes.collections
    assert len(bars.get_paths()) == 2
