r"""Built-in arithmetic problems: `a+b-c=?` with digits 0-9, for a model of 100k parameters.

There are 10 * 2 * 10 * 2 * 10 = 4000 questions. The split depends on nothing but the questions'
own text, so it is the same on every machine and in every version of Python. The right completion
of `3+4-5=?` is `3+4=7;7-5=2;\boxed{2}`.
"""

import hashlib
import re
from functools import cache
from itertools import product

HELDOUT_SIZE = 256

_QUESTION = re.compile(r"([0-9])([+-])([0-9])([+-])([0-9])=\?")


def arithmetic_problems(split: str) -> list[dict[str, str]]:
    """The problems of one split as `{"question": "3+4-5=?", "answer": "2"}`, ordered by operands.

    "heldout" has 256 problems and "train" the other 3744; together they are all 4000, none in both.
    Raises ValueError for another split.
    """
    if split not in ("train", "heldout"):
        raise ValueError(f"unknown arithmetic split {split!r}; choose 'train' or 'heldout'")
    heldout = _heldout_questions()
    wanted = [q for q in _all_questions() if (q in heldout) == (split == "heldout")]
    return [{"question": q, "answer": str(right_answer(q))} for q in wanted]


def right_answer(question: str) -> int:
    """The value of the question's expression, from -18 to 27; ValueError when it is malformed."""
    first, op1, second, op2, third = _operands(question)
    return _apply(_apply(first, op1, second), op2, third)


def demonstration(question: str, *, slip1: int = 0, slip2: int = 0) -> str:
    r"""The completion that works a question out: `3+4-5=?` gives `3+4=7;7-5=2;\boxed{2}`.

    `slip1` and `slip2` are errors added to the result of the first and the second step. An error in
    the first step is carried into the second, as a person who slips would carry it.
    Raises ValueError when `question` is not of the form `a+b-c=?` with single digits.
    """
    first, op1, second, op2, third = _operands(question)
    middle = _apply(first, op1, second) + slip1
    result = _apply(middle, op2, third) + slip2
    return f"{first}{op1}{second}={middle};{middle}{op2}{third}={result};\\boxed{{{result}}}"


def steps_right(question: str, completion: str) -> bool:
    """Whether a completion reaches the right answer by right steps, both shown in full.

    Each question has one right text, so nothing needs evaluating: a missing or wrong step, another
    order, a leading zero or text after the box makes it False. Blanks around it are ignored.
    Raises ValueError when `question` is malformed.
    """
    return completion.strip() == demonstration(question)


def _operands(question: str) -> tuple[int, str, int, str, int]:
    match = _QUESTION.fullmatch(question)
    if match is None:
        raise ValueError(
            f"not a built-in arithmetic question: {question!r}; expected three single digits "
            "joined by + or -, then '=?', such as '3+4-5=?'"
        )
    first, op1, second, op2, third = match.groups()
    return int(first), op1, int(second), op2, int(third)


def _apply(left: int, op: str, right: int) -> int:
    return left + right if op == "+" else left - right


def _all_questions() -> list[str]:
    digits, signs = range(10), "+-"
    parts = product(digits, signs, digits, signs, digits)
    return [f"{a}{op1}{b}{op2}{c}=?" for a, op1, b, op2, c in parts]


@cache
def _heldout_questions() -> frozenset[str]:
    """The 256 questions with the smallest SHA-256 digests."""
    by_digest = sorted(_all_questions(), key=lambda q: hashlib.sha256(q.encode()).digest())
    return frozenset(by_digest[:HELDOUT_SIZE])
