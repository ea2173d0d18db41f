"""Finding the answer inside a completion, in time linear in its length.

`boxed`: the last balanced \\boxed{...} or \\fbox{...}; nothing else counts.
`lenient`: that box; else <answer> tags; else the last final-answer phrase; else the last formula or
number. An opened box that was never closed is a cut-off answer: nothing is read in its place.
When the completion holds `</think>`, only what follows the last one is searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from reval_core.verification.verdict import Extraction

LENIENT_WINDOW = 10_000
"""Lenient search looks at this many last characters: a final answer stands at the end."""

_BRACES = re.compile(r"\\{1,2}(?:boxed|fbox|beginboxed)\s*\{|\\.|[{}]", re.DOTALL)
_BOX = re.compile(r"\\{1,2}(?:boxed|fbox|beginboxed)\s*\{")
_SPECIAL_TOKEN = re.compile(r"<\|[^<>|\n]{1,40}\|>")
_JSON = re.compile(r'"(?:final_)?answer"\s*:\s*"?([^"\n}]{1,2000})', re.IGNORECASE)
_HASHES = re.compile(r"^####[ \t]*([^\n]{1,2000})$", re.MULTILINE)
_TAGGED = re.compile(r"<answer>([^<]{1,2000})</answer>", re.IGNORECASE)
_PHRASE = re.compile(
    r"(?:final\s+answer|answer|result|solution|答案|réponse)\**\s{0,3}"
    r"(?:is|are|was|should\s+be|est|为|是|[:：=])[ \t*:：]{0,5}",
    re.IGNORECASE,
)
_FORMULA = re.compile(  # a dollar sign before a digit and after a formula opens an amount of money
    r"\$\$([^$]{1,600})\$\$|\$([^$]{1,600})\$(?!\d)|\\\(((?:[^\\]|\\[^)]){1,600}?)\\\)"
    r"|\\\[((?:[^\\]|\\[^\]]){1,600}?)\\\]"
)
_PERCENT_AFTER = re.compile(r"\s{0,2}(?:\\?%|percent\b|pct\b)", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![\w.])[-+−]?\$?\d[\d,]{0,400}(?:\.\d{1,400})?(?:\s?/\s?\d{1,400})?(?:\s{0,2}(?:\\?%|percent\b|pct\b))?"
)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n|\bbecause\b|\bsince\b|,\s+(?:which|because|so|as)\b|[。；]")
_GAP = re.compile(r"[\s,;$&.]*(?:(?:\\text\{)?\s*(?:and|or)\s*\}?|\\quad|\\qquad)?[\s,;$&]*(?:\\quad)?[\s,;$&]*")
_CODE = re.compile(r"__\w+__|\blambda\b|\bimport\b|[A-Za-z]\(['\"]")
_COMMAND = re.compile(r"\\(?:text|begin|end)\{[^{}]*\}|\\[a-zA-Z]+")
_PROSE = re.compile(r"[^\W\d_]{4,}")


def final_part(completion: str) -> str:
    """What follows the last `</think>`, or everything when there is none."""
    _, _, rest = completion.rpartition("</think>")
    return rest


def boxes(text: str) -> list[tuple[int, int, str]]:
    """Every balanced box that lies in no other box: (start, end, content), by one pass."""
    stack: list[tuple[bool, int, int]] = []  # (is a box, where it starts, where its content starts)
    found: list[tuple[int, int, str]] = []
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "}":
            if stack:
                is_box, start, inside = stack.pop()
                if is_box:
                    while found and found[-1][0] > start:  # boxes inside this one
                        found.pop()
                    found.append((start, match.end(), text[inside : match.start()]))
        elif token.endswith("{") and token != r"\{":
            stack.append((len(token) > 1, match.start(), match.end()))
    return [(start, end, unwrap(content)) for start, end, content in found]


def unwrap(content: str) -> str:
    """The content without the commands of boxes nested in it (their braces stay as groups)."""
    return _BOX.sub("{", content).strip() if "box" in content else content.strip()


def extract_box(text: str) -> str | None:
    """The content of the last balanced box, or None."""
    if "\\boxed" not in text and "\\fbox" not in text and "\\beginboxed" not in text:
        return None
    found = boxes(text)
    return found[-1][2] if found else None


def adjacent(text: str, found: Sequence[tuple[int, int, str]]) -> bool:
    """Whether nothing but commas, `and` or `or` stands between the boxes."""
    return all(
        after[0] - before[1] <= 60 and _GAP.fullmatch(text, before[1], after[0]) for before, after in pairwise(found)
    )


def closing_boxes(text: str, count: int) -> str | None:
    """The last `count` boxes joined by commas if they stand close together, else None.

    Exactly `count` boxes in the whole text, or none of the gaps longer than 80 characters and no
    further box before them: a flood of guesses is never read as a list.
    """
    found = boxes(text)
    if count < 2 or len(found) != count:
        return None
    gaps = [after[0] - before[1] for before, after in pairwise(found)]
    if max(gaps) > 80:
        return None
    return ", ".join(content for _, _, content in found)


def extract(completion: str, mode: Extraction) -> str | None:
    """The answer in `completion` as text, or None when there is nothing to grade."""
    part = final_part(completion)
    found = boxes(part) if "box" in part else []
    if found:
        after = part[found[-1][1] :] if mode == "lenient" else ""
        stated = _final_answer(after[-LENIENT_WINDOW:]) if "final answer is" in after else None
        return stated or found[-1][2] or None
    if mode == "boxed" or _BOX.search(part):
        return None
    return _lenient(_SPECIAL_TOKEN.sub("", part[-LENIENT_WINDOW:]).strip()) or None


def _lenient(text: str) -> str | None:
    for marked in (_TAGGED, _HASHES, _JSON):
        found = marked.findall(text)
        if found:
            return str(found[-1]).strip().replace("\\\\", "\\")
    stated = _final_answer(text)
    if stated:
        return stated
    if len(text) <= 80 and not _PROSE.search(re.sub(r"\\[a-zA-Z]+", "", text)) and "$" not in text:
        return text
    return _last_expression(text) or (text if len(text) <= 80 else None)


def _final_answer(text: str) -> str | None:
    """What the last final-answer phrase states, None when there is none."""
    phrase = _last(_PHRASE.finditer(text))
    return _stated(text[phrase.end() :].lstrip()) if phrase is not None else None


def _stated(rest: str) -> str | None:
    """What a final-answer phrase states: its formula, number or short sentence."""
    first = _FORMULA.match(rest)
    if first:
        return _formula(first, rest)
    end = _SENTENCE_END.search(rest, 1)
    sentence = (rest[: end.start()] if end else rest)[:2000].strip(" *")
    formulas = list(_FORMULA.finditer(sentence))
    if formulas:
        return _formula(formulas[-1], sentence)
    number = _NUMBER.match(sentence)
    if number and _PROSE.search(sentence, number.end()):
        return number.group()
    numbers = _NUMBER.findall(sentence)
    if len(numbers) == 1 and _PROSE.search(sentence):
        return str(numbers[0])
    return sentence if len(sentence) <= 300 else None


def _formula(match: re.Match[str], text: str) -> str:
    body = next(group for group in match.groups() if group is not None).strip()
    return body + "\\%" if _PERCENT_AFTER.match(text, match.end()) else body


def _last_expression(text: str) -> str | None:
    formula = _last(match for match in _FORMULA.finditer(text) if not _is_prose(match))
    if formula is not None and not _NUMBER.search(text, formula.end()):
        return _formula(formula, text)
    if _CODE.search(text[-500:]):
        return None  # the last number of a program is not an answer
    number = _last(_NUMBER.finditer(text))
    return number.group().strip().rstrip(",") if number else None


def _is_prose(match: re.Match[str]) -> bool:
    """Whether what stands between two dollar signs is a sentence about money, not a formula."""
    body = next(group for group in match.groups() if group is not None)
    return len(_PROSE.findall(_COMMAND.sub("", body))) > 1


def _last(matches: Iterable[re.Match[str]]) -> re.Match[str] | None:
    last = None
    for match in matches:
        last = match
    return last
