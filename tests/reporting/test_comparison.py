"""The figures of an experiment."""

from reval_core.reporting.canvas import figure_png
from reval_core.reporting.comparison import curves


def test_a_line_and_a_band_for_each_arm() -> None:
    table = {"rounds": [0, 1], "value": [0.2, 0.4], "low": [0.1, None], "high": [0.3, None]}
    nothing = {"rounds": [0, 1], "value": [None, None], "low": [None, None], "high": [None, None]}
    figure = curves(
        {"a": table, "none": nothing, "b": table}, "rounds", xlabel="rounds", ylabel="accuracy", thresholds=(0.3,)
    )
    (axes,) = figure.axes
    assert axes.get_legend_handles_labels()[1] == ["a", "b"]
    assert len(axes.collections) == 2
    alone = curves({"none": nothing, "none too": nothing, "b": table}, "rounds", xlabel="rounds", ylabel="accuracy")
    assert axes.lines[-1].get_color() == alone.axes[0].lines[-1].get_color(), "an arm keeps its colour"
    assert axes.get_xlabel() == "rounds"
    assert figure_png(figure) == figure_png(figure)


def test_nothing_yet() -> None:
    figure = curves({}, "rounds", xlabel="rounds", ylabel="accuracy")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no data yet"]
