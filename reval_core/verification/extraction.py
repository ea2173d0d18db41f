"""Finding the answer inside a completion, in time linear in its length.

`boxed`: the last balanced \\boxed{...} or \\fbox{...} that is not empty; nothing else counts. Boxes with nothing but
commas, `and`, `or`, labels and math delimiters between them are one list. A box that is part of a larger formula
(-\\boxed{5}, \\boxed{5}/2) states another value than its content: no answer (see `surroundings`).
`lenient`: that box; else what the text says is the answer; else the box with which the thinking ended; else the last
value (see `statements`). An opened box that was never closed is a cut-off
answer: nothing is read in its place.
Only what follows the last mark of the end of thinking is searched. Thinking that never ended is searched like any text:
its beginning often stands in the prompt, so its presence in the completion must not change the verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from reval_core.verification import statements, surroundings
from reval_core.verification.verdict import Extraction

CLOSING_WINDOW = 300
"""A box within so many last characters of the thinking closes it."""

LENIENT_WINDOW = 10_000
"""Lenient search looks at this many last characters: a final answer stands at the end."""

THINKING_ENDS = (
    "</think>", "</thinking>", "</reasoning>", "</thought>", "</seed:think>", "<|end_of_thought|>", "<|END_THINKING|>",
    "[/THINK]", "◁/think▷", "<|channel|>final<|message|>",
)  # fmt: skip
"""DeepSeek-R1 and Qwen; prompts of several labs; Seed-OSS; Sky-T1; Command A; Magistral; Kimi; gpt-oss (harmony)."""

Box = tuple[int, int, str]
"""Where the command starts, where its brace closes, the content."""

_BOX = re.compile(r"\\{1,2}(?:boxed|fbox|beginboxed)\s*\{")
_BRACES = re.compile(r"\\{1,2}(?:boxed|fbox|beginboxed)\s*\{|\\[\\{}]|[{}]")
_LABEL = r"(?:[a-zA-Z](?:_\{?\w{1,3}\}?)?(?:\([a-z]\))?\s*=\s*)?"
_PART = r"(?:(?:\\text\s*\{)?\s*for\s+(?:part\s+)?\([a-z0-9]{1,3}\)\s*)?"
_JOINT = r"(?:\s|[,;&$]|\\[()\[\]]|\\\\|\\q?quad|\\[,;!])*"
_GAP = re.compile(rf"{_JOINT}{_PART}(?:(?:\\text\s*\{{)?\s*(?:and|or)\s*\}}?)?{_JOINT}({_LABEL}){_JOINT}")
_LISTING = re.compile(r"[,;&=]|\b(?:and|or)\b|\\q?quad")
_LABEL_BEFORE = re.compile(r"(?<![a-zA-Z\\])([a-zA-Z](?:_\{?\w{1,3}\}?)?\s*=)[\s$]*$")
_EITHER = re.compile(r"\b(?:either|not|neither|nor)\W*$", re.IGNORECASE)
_FINAL = re.compile(r"final answer is", re.IGNORECASE)


def final_part(completion: str) -> str:
    """What follows the last mark of the end of thinking, or everything when there is none."""
    end = 0
    for mark in THINKING_ENDS:
        at = completion.rfind(mark, end)
        if at >= 0:
            end = at + len(mark)
    return completion[end:]


def boxes(text: str) -> list[Box]:
    """Every balanced box that lies in no other box, by one pass that copies only the contents returned."""
    first = _BOX.search(text)
    if first is None:
        return []
    stack: list[tuple[bool, int, int]] = []  # (is a box, where it starts, where its content starts)
    found: list[tuple[int, int, int, int]] = []
    for match in _BRACES.finditer(text, first.start()):
        token = match.group()
        if token == "}":
            if stack:
                is_box, start, inside = stack.pop()
                if is_box:
                    while found and found[-1][0] > start:  # boxes inside this one
                        found.pop()
                    found.append((start, match.end(), inside, match.start()))
        elif token == "{" or len(token) > 2:
            stack.append((len(token) > 1, match.start(), match.end()))
    return [(start, end, unwrap(text[inside:close])) for start, end, inside, close in found]


def unwrap(content: str) -> str:
    """The content without the commands of boxes nested in it (their braces stay as groups)."""
    return _BOX.sub("{", content).strip() if "box" in content else content.strip()


def adjacent(text: str, found: Sequence[Box]) -> bool:
    """Whether nothing but commas, `and` or `or`, labels and math delimiters stands between the boxes."""
    return all(_parted(text[before[1] : after[0]]) for before, after in pairwise(found))


def _parted(gap: str) -> bool:
    return len(gap) <= 60 and _GAP.fullmatch(gap) is not None


def listed(text: str, found: Sequence[Box]) -> Sequence[Box]:
    """The last box with those listed directly before it."""
    first = len(found) - 1
    while first > 0 and _parted(gap := text[found[first - 1][1] : found[first][0]]) and _LISTING.search(gap):
        first -= 1
    return found[first:]


def closing_boxes(text: str, found: Sequence[Box]) -> str | None:
    """The last box with those listed directly before it; None for one box or the same box again.

    Labels before every box (x = \\boxed{1}, y = \\boxed{2}) stay with their values.
    """
    run = listed(text, found)
    if len({content for _, _, content in run}) < 2:
        return None
    if _EITHER.search(text, max(0, run[0][0] - 40), run[0][0]) or surroundings.is_part(text, run[0][0], run[-1][1]):
        return ""
    labels = [_LABEL_BEFORE.search(text, max(0, start - 40), start) for start, _, _ in run]
    if all(labels):
        return ", ".join(f"{label[1]} {box[2]}" for label, box in zip(labels, run, strict=True) if label)
    return ", ".join(content for _, _, content in run)


def extract(completion: str, mode: Extraction, *, join_boxes: bool = True) -> str | None:
    """The answer in `completion` as text, or None when there is nothing to grade."""
    part = final_part(completion)
    found = [box for box in boxes(part) if box[2]] if "box" in part else []
    if found:
        after = part[found[-1][1] :] if mode == "lenient" else ""
        stated = statements.final_value(after[-LENIENT_WINDOW:]) if _FINAL.search(after) else None
        return stated or _boxed(part, found, join_boxes) or None
    if mode == "boxed" or _BOX.search(part):
        return None
    window = part[-LENIENT_WINDOW:]
    answer = statements.claimed(window)
    if answer is None:
        answer = _before_the_end_of_thinking(completion[: len(completion) - len(part)], join_boxes)
    return (statements.implied(window) if answer is None else answer) or None


def _before_the_end_of_thinking(thinking: str, join_boxes: bool) -> str | None:
    """The box with which the thinking ends: it stands where what follows restates the work and was cut off."""
    end = thinking[-CLOSING_WINDOW:]
    found = [box for box in boxes(end) if box[2]]
    return _boxed(end, found, join_boxes) if found else None


def _boxed(text: str, found: list[Box], join_boxes: bool) -> str | None:
    joined = closing_boxes(text, found) if join_boxes else None
    if joined is not None:
        return joined
    if surroundings.is_part(text, *found[-1][:2]):
        return None
    return statements.unlabelled(found[-1][2])
