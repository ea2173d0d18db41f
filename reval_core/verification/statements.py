"""What a text without a box states as its answer: for evaluation, and for completions of foreign models.

In this order: <answer> tags, `####`, a JSON field; the last final-answer phrase; a text that is nothing but
mathematics; the value in the last sentence that holds one. Several values joined by commas, `and` or `or` are all of
them, as a list. A value that its sentence denies, compares, computes with or hedges is not stated, and nothing else is
read in its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, pairwise

from reval_core.verification import phrases
from reval_core.verification.sentences import (
    Value,
    clean,
    first_sentence,
    plain_values,
    same,
    sentences_from_the_end,
    values,
    whole_sentence,
    words,
)

MAX_SENTENCE = 2_000
"""Characters of a statement that are read."""

MAX_PHRASES = 20
"""Behind a box, this many last phrases are tried for one that states a value."""

NEAR_END = 300
"""Words without a value, and the nouns that name steps too, count as a final answer this near the end only."""

Noun = tuple[str, re.Pattern[str]]
"""A noun of the table in lower case, and the pattern of a phrase that begins with it."""

_JSON = re.compile(r'"(?:final_)?answer"\s*:\s*"?([^"\n}]{1,2000})', re.IGNORECASE)
_HASHES = re.compile(r"^####[ \t]*([^\n]{1,2000})$", re.MULTILINE)
_TAGGED = re.compile(
    r"[<\[](?:final_)?(?:answer|result)[>\]]((?:[^<\[]|[<\[](?!/?(?:final_)?(?:answer|result)[>\]])){1,2000})"
    r"[<\[]/(?:final_)?(?:answer|result)[>\]]",
    re.IGNORECASE,
)
_TAG = re.compile(r"[<\[]/?[a-zA-Z_]{2,20}[>\]]")
_PLANNED = re.compile(r"\bbe\s*$", re.IGNORECASE)
_CLOSING = re.compile(rf"(?:{phrases.CLOSINGS})\s+(?:{phrases.EPITHETS})*$", re.IGNORECASE)
_JOINT = re.compile(r"[\s,;\"'“”]*(?:(?:and|or|und|oder|et|ou|y|o|e|и|или|和|或|と)(?!\w))?[\s,;\"'“”]*", re.IGNORECASE)
_OR = re.compile(r"\b(?:or|oder|ou|или)\b|或")
_CLAUSE = re.compile(  # where a clause begins whose words bear on the value: "no es 5" is no such place
    r"\b(?:is|are|(?<!not )equals?|gives|get|namely|i\.e|est|ist|(?<!no )(?<!não )(?<!non )(?:es|é|è))\b"
    r"|\b(?:so|thus|hence|therefore)\b|(?<!!)=|[,;]\s|(?<![不能])是|为|は",
    re.IGNORECASE,
)
_DENIED = re.compile(
    rf"(?<!\w)(?:{phrases.NEGATIONS}|{phrases.CHANGES}|{phrases.CHANGES_ELSEWHERE})(?!\w)|!=?\s*$"
    rf"|{phrases.DENIALS_CJK}|{phrases.CHANGES_CJK}",
    re.IGNORECASE,
)
_BOUNDED = re.compile(rf"(?<!\w)(?:{phrases.BOUNDS})(?!\w)", re.IGNORECASE)
_VAGUE = re.compile(phrases.VAGUE, re.IGNORECASE)
_RETRACTED = re.compile(rf"[\s,(\"'”–—-]*(?:{phrases.RETRACTIONS})", re.IGNORECASE)
_DENIED_CLAIM = re.compile(rf"(?:{phrases.DENIED_CLAIMS})\s*(?:{phrases.ARTICLES})?\s*$", re.IGNORECASE)
_DENIED_LATER = re.compile(phrases.DENIED_LATER, re.IGNORECASE)
_SUPPOSED = re.compile(rf"(?:{phrases.CONDITIONS})\s*(?:{phrases.ARTICLES})?\s*$", re.IGNORECASE)
_ATTRIBUTED = re.compile(rf"{phrases.ATTRIBUTED}\s*(?:{phrases.ARTICLES})?\s*$", re.IGNORECASE)
_MISTAKEN = re.compile(rf"\b{phrases.MISTAKEN}\s+$", re.IGNORECASE)
_IF = re.compile(r"\bif\b", re.IGNORECASE)
_SPEAKER = re.compile(r"\b(?:I|[Ww]e|us|you)\b")
_TAKEN_BACK = re.compile(rf"[\W_]*(?:{phrases.CORRECTIONS})", re.IGNORECASE)
_SENTENCE_START = re.compile(r"[.!?;:]\s|[\n。；！？]")
_INSTEAD = re.compile(
    rf"[\s,;]*(?:(?:{phrases.INSTEAD})(?:\s+(?:rather|it\s+is|is|est|ist|es))?|it\s+is|it['’]s)\s*", re.IGNORECASE
)
_HEDGED = re.compile(
    rf"\b(?:{phrases.HEDGES}|can(?:not|['’]t)\s+(?:be\s+)?(?:determined?|tell|say|decide))\b", re.IGNORECASE
)
_NEGATIVE = re.compile(r"\b(?:negative|minus)\s*$", re.IGNORECASE)
_INTRODUCTION = re.compile(r"\s*(?:[∴⇒→=>-]+\s|[∴⇒→=]|=>|->|(?:so|thus|hence|therefore)\b,?)\s*", re.IGNORECASE)
_NOT_A_VALUE = re.compile(r"\b(?:in|after|by|step|steps|case|part|equation|of|from)\s*$", re.IGNORECASE)
_CODE = re.compile(r"__\w+__|(?<!\\)\blambda\b|\bimport\b|[A-Za-z]\(['\"]")
_BOX_LABEL = re.compile(
    r"(?P<text>\\text(?:bf|rm|normal)?\s*\{)?\s*(?:the\s+)?(?:final\s+|correct\s+)*(?:answer|result|solution|total)\s*"
    r"(?:is\b\s*:?|[:=])\s*(?P<closed>\})?\s*(?=\S)",
    re.IGNORECASE,
)


def _nouns() -> list[Noun]:
    """The nouns of the table, each with what makes it a phrase: the answer is, 答案是, ответ 42."""
    nouns = []
    for language, (names, endings, verbs) in phrases.ANSWERS.items():
        before, after = ("", "") if language in phrases.UNSPACED else (r"(?<!\w)", r"(?!\w)")
        direct = r"|(?=\s{0,3}[-\d$\\])" if language in phrases.BARE else ""
        for name in names.split():
            noun = name.replace("|", " ")
            pattern = (
                rf"{before}{noun}{endings}(?:\s+(?:{phrases.ADJECTIVES}))?(?:\s?\([^()\n]{{1,40}}\))?"
                rf"[^\w\n.,;:=$\\(!≠-]{{0,4}}(?:(?:{verbs}){after}|[:=】]|\s?[—–→➜-]\s{direct})"
            )
            nouns.append((noun, re.compile(pattern, re.IGNORECASE)))
    return nouns


_NOUNS = _nouns()


def stated(text: str) -> str | None:
    """What the text gives as its answer; None when there is nothing, or nothing that is not denied or hedged."""
    answer = claimed(text)
    return (implied(text) if answer is None else answer) or None


def claimed(text: str) -> str | None:
    """What is marked or said to be the answer; "" when that is denied or hedged, None when nothing is."""
    text = clean(text)
    answer = marked(text)
    return _final_answer(text) if answer is None else answer


def implied(text: str) -> str | None:
    """A short text that is nothing but an answer, else the last value in it."""
    text = clean(text)
    introduction = _INTRODUCTION.match(text)
    short = text[introduction.end() :] if introduction else text
    if _is_bare(short):
        return short.rstrip(" .")
    answer = _last_value(text)
    if answer is not None:
        return answer or None
    return short if len(short) <= 80 else None


def _is_bare(text: str) -> bool:
    """Whether a short text is nothing but mathematics, or one word."""
    if len(text) > 80 or "$" in text or "\n" in text:
        return False
    return not words(text, 2) or (" " not in text and text.isascii() and not _TAG.search(text))


def marked(text: str) -> str | None:
    """What stands in the last <answer> tag, after the last `####`, or in the last `answer` field of a JSON object."""
    for mark in (_TAGGED, _HASHES, _JSON):
        found = mark.findall(text)
        if found:
            return unlabelled(str(found[-1]).strip().replace("\\\\", "\\"))
    return None


def final_value(text: str) -> str | None:
    """The formula or number that the last `final answer is` states; words are no value."""
    text = clean(text)
    for start, end, closing in islice(_phrases_from_the_end(text), MAX_PHRASES):
        sentence = first_sentence(text[end : end + MAX_SENTENCE])
        if not closing and values(sentence) and not _SUPPOSED.search(_before(text, start)):
            return None if _is_denied(text, start) else _state(sentence) or None
    return None


def unlabelled(content: str) -> str:
    """The content of a box or tag without `Answer:` or `The answer is` before it."""
    label = _BOX_LABEL.match(content)
    if label is None:
        return content
    return content if label["text"] and not label["closed"] else content[label.end() :].strip()


def _phrases_from_the_end(text: str) -> Iterator[tuple[int, int, bool]]:
    """The final-answer phrases, last first: start, end, and whether the value stands before it (18 is the answer)."""
    lower = text.lower()
    if len(lower) != len(text):
        lower = text
    nouns = [noun for noun in _NOUNS if noun[0] in lower]
    at = sorted((lower.rfind(name), len(name), index) for index, (name, _) in enumerate(nouns))
    while at:
        start, length, index = at.pop()
        if start < 0:
            return
        name, pattern = nouns[index]
        if phrase := pattern.match(text, start):
            yield start, phrase.end(), False
        elif closing := _CLOSING.search(text[max(0, start - 60) : start]):
            yield max(0, start - 60) + closing.start(), start + length, True
        at.append((lower.rfind(name, 0, start), length, index))
        at.sort()


def _final_answer(text: str) -> str | None:
    """What the last final-answer phrase states; "" when it is denied or hedged, None without a phrase."""
    supposed = False
    for start, end, closing in _phrases_from_the_end(text):
        near = len(text) - end <= NEAR_END
        if _is_supposed(text, start, end):
            supposed = supposed or bool(values(first_sentence(text[end : end + MAX_SENTENCE])))
            continue
        if closing and near:
            sentence = text[max(0, start - 400) : start]
            sentence = sentence[max(sentence.rfind("\n"), sentence.rfind(". ")) + 1 :].lstrip(" \n")
            found = values(sentence)
            if found and len(sentence) - found[-1].end <= 12:
                return "" if _is_denied(text, start) else _choose(sentence, found, last=True)
        elif not closing and (near or not _is_a_step(text[start:end])):
            sentence = first_sentence(text[end : end + MAX_SENTENCE])
            if values(sentence) or (near and not _VAGUE.match(sentence)):
                corrected = _corrected(text, start)
                if corrected is not None:
                    return corrected
                return "" if _is_denied(text, start) else _state(sentence)
    return "" if supposed else None


def _is_supposed(text: str, start: int, end: int) -> bool:
    """Whether the phrase states nothing: it is supposed, or what others say, or would be so if something else was."""
    before = _before(text, start)
    if (
        _SUPPOSED.search(before)
        or _MISTAKEN.search(before)
        or (_ATTRIBUTED.search(before) and not _SPEAKER.search(before))
    ):
        return True
    return "would" in text[start:end] and _IF.search(before + first_sentence(text[end : end + 200])) is not None


def _is_denied(text: str, start: int) -> bool:
    """Whether the phrase that starts there is denied as a whole, or asked for: I doubt that the answer is 5."""
    sentence, asked = whole_sentence(text[start : start + MAX_SENTENCE])
    return asked or bool(_DENIED_LATER.search(sentence) or _DENIED_CLAIM.search(_before(text, start)))


def _corrected(text: str, start: int) -> str | None:
    """What stands behind a phrase that the next sentence takes back, "" without a value; None if it does not."""
    behind = start + len(whole_sentence(text[start : start + MAX_SENTENCE])[0])
    return (_last_value(text[behind:]) or "") if _TAKEN_BACK.match(text, behind, behind + 120) else None


def _before(text: str, start: int) -> str:
    """What stands before a phrase in its sentence, up to 200 characters."""
    return _SENTENCE_START.split(text[max(0, start - 200) : start])[-1]


def _is_a_step(phrase: str) -> bool:
    """Whether the phrase names a step, or says what the answer should be."""
    return phrase.lower().startswith(phrases.INTERMEDIATE) or _PLANNED.search(phrase) is not None


def _state(sentence: str) -> str | None:
    """The value or the words that follow a final-answer phrase."""
    found = values(sentence)
    if not found:
        return sentence if 0 < len(sentence) <= 300 else None
    if _BOUNDED.search(sentence[: found[0].start]):
        return ""
    return _choose(sentence, found, last=words(sentence[: found[0].start], 4))


def _last_value(text: str) -> str | None:
    """The value in the last sentence that has one; "" when it is denied or hedged there."""
    code = _CODE.search(text[-500:])
    line = text.rpartition("\n")[2][-MAX_SENTENCE:]
    for sentence in sentences_from_the_end(text[-2 * MAX_SENTENCE :]):
        if found := values(sentence):
            if code and not any(mark in sentence for mark in ("$", "\\(", "\\[")):
                return None  # the last number of a program is not an answer
            if sentence in line and _HEDGED.search(line):
                return ""
            found += [v for v in plain_values(sentence, found[-1].end) if not _counts(sentence, v)]
            return _choose(sentence, found, last=True)
    return None


def _counts(sentence: str, value: Value) -> bool:
    """Whether a number behind a formula only counts or names: in 3 steps."""
    return _NOT_A_VALUE.search(sentence[max(0, value.start - 20) : value.start]) is not None


def _choose(sentence: str, found: list[Value], *, last: bool) -> str:
    """The first or last run of values that stand side by side; "" when the sentence takes it back."""
    runs = _runs(sentence, found)
    at = len(runs) - 1 if last else 0
    if at + 1 < len(runs) and _replaces(sentence, runs, at + 1):
        at += 1
    replaces = _replaces(sentence, runs, at)
    run, end = _without_repeats(runs[at]), runs[at][-1].end
    before, after = sentence[: run[0].start], sentence[end:]
    clause = "" if replaces else _CLAUSE.split(before)[-1]
    negative = _NEGATIVE.search(clause)
    if negative:
        clause = clause[: negative.start()]
    if _DENIED.search(clause) or before.endswith("—") or _HEDGED.search(sentence):
        return ""
    if _RETRACTED.match(after) and not any(same(run[-1].text, v.text) for v in plain_values(sentence, end)[:1]):
        return ""
    if negative:
        return _negated(run[0].text) if len(run) == 1 else ""
    joint = r" \text{ or } " if any(_OR.search(sentence, a.end, b.start) for a, b in pairwise(run)) else ", "
    return joint.join(value.text for value in run)


def _replaces(sentence: str, runs: list[list[Value]], at: int) -> bool:
    """Whether a run of values stands instead of a denied one before it: not 6 but 5."""
    if at == 0 or not _INSTEAD.fullmatch(sentence, runs[at - 1][-1].end, runs[at][0].start):
        return False
    return _DENIED.search(_CLAUSE.split(sentence[: runs[at - 1][0].start])[-1]) is not None


def _negated(text: str) -> str:
    return f"-({text})" if re.search(r"[-+=]", text) else f"-{text}"


def _runs(sentence: str, found: list[Value]) -> list[list[Value]]:
    runs = [[found[0]]]
    for before, after in pairwise(found):
        if _JOINT.fullmatch(sentence, before.end, after.start):
            runs[-1].append(after)
        else:
            runs.append([after])
    return runs


def _without_repeats(run: list[Value]) -> list[Value]:
    """The run without values that say the one before them again: 3/4 or 0.75."""
    return run[:1] + [after for before, after in pairwise(run) if not same(before.text, after.text)]
