"""Examples, padding and the split into micro-batches."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reval_core.errors import LearningError
from reval_core.learning.batch import TrainingExample, group_indices, micro_batches, pad


def _example(prompt: list[int], response: list[int], group: str = "g") -> TrainingExample:
    return TrainingExample("trj_1", group, np.array(prompt, np.int32), np.array(response, np.int32), 1.0)


def test_padding_on_either_side() -> None:
    examples = [_example([1, 2], [3]), _example([4], [5, 6, 7])]
    right, left = pad(examples, pad_id=9), pad(examples, pad_id=9, side="left")
    assert right.input_ids.tolist() == [[1, 2, 3, 9], [4, 5, 6, 7]]
    assert right.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert right.response_mask.int().tolist() == [[0, 0, 1, 0], [0, 1, 1, 1]]
    assert left.input_ids.tolist() == [[9, 1, 2, 3], [4, 5, 6, 7]]
    assert left.attention_mask.tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert left.response_mask.int().tolist() == [[0, 0, 0, 1], [0, 1, 1, 1]]


@given(st.lists(st.integers(2, 40), min_size=1, max_size=60), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_micro_batches_hold_every_example_once_within_the_budget(lengths: list[int], max_tokens: int) -> None:
    examples = [_example([0], [0] * (length - 1)) for length in lengths]
    split = micro_batches(examples, max_tokens)
    assert sorted(index for indices in split for index in indices) == list(range(len(lengths)))
    for indices in split:
        padded = len(indices) * max(lengths[index] for index in indices)
        assert padded <= max_tokens or len(indices) == 1
    ordered = [lengths[index] for indices in split for index in indices]
    assert ordered == sorted(lengths, reverse=True)


def test_equal_lengths_keep_their_order_and_fill_the_budget() -> None:
    assert micro_batches([_example([0], [0, 0])] * 5, 6) == [[0, 1], [2, 3], [4]]
    with pytest.raises(LearningError, match="max_tokens_per_micro_batch is 0"):
        micro_batches([_example([0], [0])], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"response_ids": np.array([], np.int32)}, "response_ids has shape"),
        ({"prompt_ids": np.array([], np.int32)}, "prompt_ids has shape"),
        ({"reward": float("nan")}, "reward is nan"),
        ({"ref_logprob": float("-inf")}, "ref_logprob is -inf"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(change: dict, message: str) -> None:
    with pytest.raises(LearningError, match=f"Trajectory trj_1: {message}"):
        replace(_example([1], [2]), **change)


def test_groups_get_numbers_and_a_group_of_one_is_an_error() -> None:
    examples = [_example([1], [2], group) for group in ("b", "a", "b", "a")]
    assert group_indices(examples).tolist() == [1, 0, 1, 0]
    with pytest.raises(LearningError, match=r"1 of 2 groups have one trajectory \(first: c\)"):
        group_indices([*examples[::2], _example([1], [2], "c")])
