import hashlib

import pytest

from reval_core.problems.arithmetic import arithmetic_problems, demonstration, steps_right


def test_the_splits_are_disjoint_and_hold_every_question() -> None:
    train = {problem["question"] for problem in arithmetic_problems("train")}
    heldout = {problem["question"] for problem in arithmetic_problems("heldout")}
    assert (len(train), len(heldout)) == (3744, 256)
    assert len(train | heldout) == 4000


def test_the_split_is_the_same_everywhere() -> None:
    questions = ",".join(problem["question"] for problem in arithmetic_problems("heldout"))
    digest = hashlib.sha256(questions.encode()).hexdigest()
    assert digest == "917cfeee5daa54390cbd1102924dd9edd14a1003f17b044820e80dc8c9ba96ec"


def test_answers_agree_with_a_hand_computed_sample() -> None:
    answers = {
        problem["question"]: problem["answer"]
        for split in ("train", "heldout")
        for problem in arithmetic_problems(split)
    }
    assert answers["3+4-5=?"] == "2"
    assert answers["0-9-9=?"] == "-18"
    assert answers["9+9+9=?"] == "27"
    assert answers["2-6+3=?"] == "-1"
    assert answers["5-5+0=?"] == "0"


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="'test'"):
        arithmetic_problems("test")


def test_demonstrations_show_both_steps_and_box_the_answer() -> None:
    assert demonstration("3+4-5=?") == r"3+4=7;7-5=2;\boxed{2}"
    assert demonstration("0-9-9=?") == r"0-9=-9;-9-9=-18;\boxed{-18}"


def test_a_slip_in_the_first_step_is_carried_on() -> None:
    assert demonstration("3+4-5=?", slip1=1) == r"3+4=8;8-5=3;\boxed{3}"
    assert demonstration("3+4-5=?", slip2=-1) == r"3+4=7;7-5=1;\boxed{1}"


@pytest.mark.parametrize("question", ["", "3+4=?", "13+4-5=?", "3+4-5", "3*4-5=?", "3+4-5=?\n", "٣+4-5=?"])
def test_a_malformed_question_is_refused(question: str) -> None:
    with pytest.raises(ValueError, match="not a built-in arithmetic question"):
        demonstration(question)


def test_every_demonstration_has_right_steps() -> None:
    for problem in arithmetic_problems("heldout"):
        completion = demonstration(problem["question"])
        assert steps_right(problem["question"], completion)
        assert completion.endswith(rf"\boxed{{{problem['answer']}}}")


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        (r"3+4=7;7-5=2;\boxed{2}", True),
        ("  3+4=7;7-5=2;\\boxed{2}\n", True),
        (r"\boxed{2}", False),  # the right answer, guessed
        (r"3+4=7;\boxed{2}", False),  # a step is missing
        (r"3+4=8;8-6=2;\boxed{2}", False),  # not the question's numbers
        (r"3+4=6;6-5=2;\boxed{2}", False),  # two errors that cancel out
        (r"4+3=7;7-5=2;\boxed{2}", False),  # another order
        (r"3+4=7;7-5=2;\boxed{3}", False),  # right steps, wrong box
        (r"3+4=7;7-5=2;\boxed{2}\boxed{2}", False),
        (r"3+4=07;7-5=2;\boxed{2}", False),
        ("", False),
    ],
)
def test_steps_right(completion: str, right: bool) -> None:
    assert steps_right("3+4-5=?", completion) is right
