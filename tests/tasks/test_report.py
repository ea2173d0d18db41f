"""What the report says about a run: captions, intervals, the part of the residual that learning moves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from reval_core.config_files import parse_config
from tasks import report


def run(**sections: Any) -> Any:
    """As much of a run as captions need."""
    tree = {"model": {"path": "m"}, "problems": [{"path": "p.jsonl"}], **sections}
    return SimpleNamespace(config=parse_config(tree))


def test_captions_tell_why_the_residual_grows_while_learning_goes_well() -> None:
    caption = report._caption(run(objective={"beta": 0.05}), "residual", "Mean.")
    assert caption.startswith("Mean. The residual is what learning has moved")
    assert "which is 20 for a reward of 1" in caption
    other = run(objective={"use": "tbrm", "beta": 0.05})
    assert report._caption(other, "residual", "Mean.") == "Mean."


def test_a_reward_that_is_a_number_is_not_called_accuracy() -> None:
    raw = run(reward={"use": "mine:near", "transform": "raw"})
    assert "ccuracy" not in report._caption(raw, "learning-curve", "Accuracy of the fresh batches.")
    assert report._caption(run(), "learning-curve", "Accuracy.") == "Accuracy."


def test_what_learning_moves_is_the_residual_without_its_reward() -> None:
    rounds = {"log_ratio_mean": [-0.5, 1.25, None], "root_value_gap_mean": [0.5, 16.0, None]}
    assert report._moved(run(), rounds) == [0.0, 17.25, None]
    assert report._moved(run(objective={"use": "tbrm"}), rounds) == [None, None, None]
