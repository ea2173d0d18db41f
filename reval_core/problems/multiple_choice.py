"""Questions with one right and several wrong answers, as GPQA has them, become questions with lettered choices.

The file is the user's own copy with its published columns. The choices of a row are shuffled by one generator with seed
0 that goes through the file in order, as openai/simple-evals does for its first repeat; the gold answer is the letter.
"""

from __future__ import annotations

import random
from typing import Any

from reval_core.errors import ProblemError

LETTERS = "ABCD"
QUESTION, RIGHT = "Question", "Correct Answer"
WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
SEED = 0
TEMPLATE = """{question}

A) {a}
B) {b}
C) {c}
D) {d}

Answer with the letter of the right choice."""


def prepare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with question and answer (a letter) in place of the columns of the choices.

    Raises:
        ProblemError: a column is missing or empty in a row.
    """
    generator = random.Random(SEED)
    return [_lettered(number, row, generator.sample(range(4), 4)) for number, row in enumerate(rows, start=1)]


def _lettered(number: int, row: dict[str, Any], order: list[int]) -> dict[str, Any]:
    for column in (QUESTION, RIGHT, *WRONG):
        if not str(row.get(column) or "").strip():
            raise ProblemError(
                f"row {number}: column {column!r} is missing or empty. There are {', '.join(map(str, row))}; "
                f"a file of this kind has {QUESTION!r}, {RIGHT!r} and {WRONG[0]!r} to {WRONG[-1][-1]}."
            )
    choices = [str(row[column]).strip() for column in (RIGHT, *WRONG)]
    shown = dict(zip("abcd", (choices[place] for place in order), strict=True))
    # the choices are what the model is asked; what else the file has, an explanation too, is metadata
    rest = {key: value for key, value in row.items() if key not in (QUESTION, RIGHT, *WRONG)}
    question = TEMPLATE.format(question=str(row[QUESTION]).strip(), **shown)
    return {"id": row.get("Record ID"), **rest, "question": question, "answer": LETTERS[order.index(0)]}
