"""Whether a box is an answer or part of a larger formula, by what stands directly beside it.

Few things stand beside an answer: the delimiters of its formula, `=` and arrows before it, punctuation and prose,
units and end marks behind it. Anything else mathematical (an operator, factor, bound, digit, the other elements of a
tuple) makes a formula whose value is not the box's content. Outside math delimiters whitespace parts a box from
bullets, numbering and words, and only an operator with its operand reaches across.
"""

from __future__ import annotations

import re

from reval_core.verification import units

REACH = 400
"""So many characters on each side are looked at."""

TOKEN = 100
"""What directly precedes a box is read within so many characters, a command that only sets its style within `STYLE`."""

STYLE = 40

_EMPHASIS = ("*", "_", "'", "`")
_FUNCTION = r"(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|lim|max|min|gcd|lcm|det|pi|root)"
_MULTIPLES = (
    r"(?:hundred|thousand|lakh|crore|[mbtr]+illion|dozen|score|half|halve|third|quarter|fourth|fifth|tenth|hundredth|"
    r"thousandth|squared|cubed|factorial|plus|minus|times|over|divided|and\s+a|mod|modulo|base|pi)s?"
)
_NOT_ASCII = r"[^\x00-\x7f°²³¹±·×÷¼-¾Ͱ-Ͽ⁰-₟⅐-⅟∀-∍∏-∳∶-⋿]"
"""Prose and marks of any script, no Greek letter, superscript or operator."""

_STYLES = (
    r"(?:displaystyle|textstyle|centering|noindent|tiny|small|normalsize|large|Large|LARGE|huge|Huge|bf|rm|bfseries|"
    r"[bB]igg?[lr]?|left|right|q?quad|hfill|hspace\*?\s*\{[^{}]*\}|color\s*\{[^{}]*\})(?![a-zA-Z])"
)
_SPACING = rf"(?:\s|~|(?<!\\)\\[ ,;:!>\n]|\\{_STYLES})"
_TEXT = r"\\(?:text(?!color)[a-z]*|math(?:rm|bf|sf|it|normal)|[mh]box|emph|underline)\s*"
_WRAPPER = (
    rf"(?:{_TEXT}|\\(?:boldsymbol|bm|bold|ensuremath|{_STYLES})\s*|\\(?:textcolor|colorbox)\s*\{{[^{{}}]*\}}\s*)?"
)
_ARROWS = (
    r"(?:implies|impliedby|iff|[Rr]ightarrow|Long(?:left)?rightarrow|longrightarrow|Leftrightarrow|leadsto|to|therefore|"
    r"because|approx(?:eq)?|simeq|sim|cong|equiv|doteq|triangleq|coloneqq|in|colon|pounds|euro)"
)
_BEFORE = (
    r"^",
    r"(?<!\\)\$|\\[$()\[\]#\\]|&",  # delimiters of formulas, rows and cells; a sign of money
    r"\\(?:begin|end)\s*\{[a-z]+\*?\}(?:\{[^{}]*\}|\[[^\[\]]*\])?",
    r"\\(?:item|hline|newline|par)|\\(?:sub)*section\*?\s*\{[^{}]*\}",
    rf"(?<![!<>])(?<!\\not)=|[=-]>|\\{_ARROWS}|[∈≈≃≅≡]",
    r"(?<!\d)[,.:]|[;?\"'`‘“#]|(?<=[a-zA-Z])-{2,3}",
    r"<[/|]?[^\W\d][^<>\s]{0,40}>",  # a tag or special token
    rf"{_TEXT}\{{(?:[^{{}}]*[^{{}}a-zA-Z])?(?!{_FUNCTION}\}})(?:[a-zA-Z]{{2,}})?\W*\}}",
    r"\\[fb](?:box|oxed)\s*\{(?:[^{}]|\{[^{}]*\})*\}",
    rf"(?<![^\W\d_])(?<!\\)(?!{_FUNCTION}$)[^\W\d_]{{2,30}}|{_NOT_ASCII}",
)
_MAY_STAND_BEFORE = re.compile("(?:" + "|".join(_BEFORE) + ")$")
_PASSED_BEFORE = re.compile(rf"(?:{_SPACING}|(?<![\w\\}}^]){_WRAPPER}\{{|(?:\\left\s*)?(?:(?<!\\)[(\[]|\\\{{)|\*\*)$")
_OPERATOR_BEFORE = re.compile(  # with an operand before it, or a function
    r"(?:[\w)}\]]\s*(?:(?<!\*)[+/^<>×÷·−±≤≥≠∓√]|!=|<=|>=)|[\w)}\]]\s+\*|\\[a-zA-Z]+"
    rf"|(?<![a-zA-Z]){_FUNCTION})\s+$"
)
_SPACED = re.compile(r"(?<!(?<!\\)\\)\s$")
_SPACE_BEFORE = re.compile(rf"{_SPACING}$")
_SPACES_BEHIND = re.compile(rf"{_SPACING}+")

_NO_MULTIPLE = rf"(?![\s~]*{_MULTIPLES}\b)"
_PROSE_COMMAND = rf"\\(?:text(?!color)[a-z]*|[mh]box|emph)\s*\{{{_NO_MULTIPLE}"
_FONT_COMMAND = rf"\\(?:math(?:rm|bf|sf|it)|unit|si)\s*\{{{_NO_MULTIPLE}(?![\s~]*(?![mgshLJNKCVWAFHT])\w\s*\}})"
_POWER = r"(?:\s*[\^_]\s*(?:\{[^{}]*\}|-?\w|\\circ))?"
_NAMED = rf"(?:\\mu\s*)?(?:{_PROSE_COMMAND}|{_FONT_COMMAND})[^{{}}]*\}}{_POWER}"
_UNITS = (
    rf"{_NAMED}(?:\s*(?:/|\\cdot|\\,)\s*{_NAMED})*",
    rf"\\frac\s*\{{\s*{_NAMED}\s*\}}\s*\{{\s*{_NAMED}\s*\}}",
    r"\\?%|\\\$|°|\^\s*\{?\s*\\(?:circ|degree)\s*\}?",
    r"\\(?:circ|degree|pounds|euro|yen|rupee|Omega|AA)(?![a-zA-Z])",
)
_MARKS = (
    r"\\(?:blacksquare|square|qed(?:symbol)?|Box|checkmark|because|notag|nonumber|newline|par)(?![a-zA-Z])",
    r"\\(?:tag\*?|label)\s*\{[^{}]*\}|\\pmod\s*(?:\{[^{}]*\}|\w)",
    r"[)\]}]|\\\}",
)
_PASSED_BEHIND = re.compile("|".join((_SPACING, *_MARKS, *_UNITS)))
_OPERATOR = r"(?:[-+−*/=<>·×÷^_\d]|\\(?:cdot|times|div|pm|mp|over|sqrt|[dt]?frac|pi)(?![a-zA-Z]))"
_BEHIND = (
    r"\\?$",
    r"\\(?:approx(?:eq)?|in)(?![a-zA-Z])|[≈∈]",  # what it is about, or of what kind
    r"\$|\\[()\[\]\\]|&|\\(?:begin|end|item|section|boxed|fbox)(?![a-zA-Z])",
    rf"{_PROSE_COMMAND}(?![^{{}}]*\}}{_POWER}\s*{_OPERATOR})",
    r"[.,](?!\s?\\?!?\d|\{)|[,.]\s+(?=\D|\d.*[a-z]{2})|[;?\"`]|:(?!\s?\d)|['’]s\b",
    r"\*{2,3}(?![*\w(])|\*(?![\s*]*[\w(\\])|\*\s+[a-zA-Z]{2}|<[/|｜!a-zA-Z]",  # markdown, tags, special tokens
    rf"\((?=\s*(?:\\text|\\?[bp]?mod|(?!{_FUNCTION}(?![a-zA-Z]))[a-zA-Z]{{3}}))",
    _NOT_ASCII.replace("[^", "[^←-⇿"),
)
_MAY_STAND_BEHIND = re.compile("|".join(_BEHIND))
_OPERATION_BEHIND = re.compile(  # an operator with its operand, or a command
    r"\s+(?:(?:[-+*/^<>=×÷·−±≤≥≠]|[<>!]=|\*\*)\s*(?:\d|\\(?!text)|[(√$]|(?![aAI]\b)[a-zA-Z](?![a-zA-Z]))|[_^!√π×]"
    rf"|\\(?!begin|end|item|section|boxed|fbox|approx|in(?![a-zA-Z])|[()\[\]\\])|{_FUNCTION}(?![a-zA-Z]))"
)
_WORD_BEHIND = re.compile(r"\s*([a-zA-ZÀ-ɏ]+(?:\.[a-z])?)")
_NO_WORD = re.compile(rf"{_FUNCTION}|over|i")
_MULTIPLE = re.compile(_MULTIPLES)

_DELIMITER = re.compile(
    r"\\[\\$]|\$\$?|\\[()\[\]]|\\(?:begin|end)\{(?!center|document|itemize|enumerate|quote|flush)[a-z]+"
)
_BRACKET = re.compile(r"\\\\|\\?\$|\\[()\[\]]|\\?[{}]|[()\[\]]")
_PROSE = re.compile(r"(?<![\\a-zA-Z])(?:[a-zA-Z]{3,}|so|or|is)(?![a-zA-Z])|\\text")
_LAST_ELEMENT = re.compile(r"[,;]\s*-?[\d./]+\s*(?:\$|\\[)\]])")
_FIRST_ELEMENTS = re.compile(r"(?:\$|\\[(\[])\s*(?:-?[\d./]+\s*[,;]\s*)+$")
_ELEMENT_BEHIND = re.compile(r"[,;]\s*\\?[-−{(\d]|[,;](?!\s+[a-zA-Z]{2}|\s*\\text|\s*$)")
_CELL = re.compile(r"\\(begin|end)\{(?:[bBpvV]?matrix|smallmatrix|cases)")
_OPENED = re.compile(r"(?:(?<!\\)\$|\\[(\[]|\b(?:is|are)[ :]|(?<!\d):)\s*$")
_CLOSED = re.compile(r"\.?\s*(?:\$|\\[)\]]|$)")


def is_part(text: str, start: int, end: int) -> bool:
    """Whether text[start:end], a box or a list of boxes, is part of a larger formula."""
    # Most boxes are all of their formula or sentence.
    if _OPENED.search(text, max(0, start - 16), start) and _CLOSED.match(text, end):
        return False
    before, behind = text[max(0, start - REACH) : start], text[end : end + REACH]
    while before[-1:] == behind[:1] and before[-1:] in _EMPHASIS:
        before, behind = before[:-1], behind[1:]
    formula = _in_formula(before, behind)
    return (
        not _may_stand_before(before, formula)
        or not _may_stand_behind(behind, formula)
        or _is_element(before, behind, formula)
        or _is_cell(before)
    )


def _in_formula(before: str, behind: str) -> bool:
    """Whether a math delimiter opened in this paragraph is open at the box and closed behind it."""
    opened = False
    for token in _DELIMITER.finditer(before, before.rfind("\n\n") + 1):
        mark = token.group()
        if mark[0] == "$":
            opened = not opened
        elif mark not in ("\\\\", "\\$"):
            opened = mark in ("\\(", "\\[") or mark.startswith("\\begin")
    closing = next((t.group() for t in _DELIMITER.finditer(behind) if t.group() not in ("\\\\", "\\$")), "")
    return opened and closing.startswith(("$", "\\)", "\\]", "\\end"))


def _may_stand_before(before: str, formula: bool) -> bool:
    line = before.rpartition("\n")[2]
    if not formula and _SPACED.search(before) and (not line.strip() or not _OPERATOR_BEFORE.search(line[-TOKEN:])):
        return True
    end = len(before)
    while passed := _PASSED_BEFORE.search(before, max(0, end - STYLE), end):
        end = passed.start()
    return _MAY_STAND_BEFORE.search(before, max(0, end - TOKEN), end) is not None


def _may_stand_behind(behind: str, formula: bool) -> bool:
    at = 0
    while True:
        if not formula and behind[at : at + 1].isspace():
            line = behind[at:].partition("\n")[0]
            if not line.strip() or not _OPERATION_BEHIND.match(line):
                word = _WORD_BEHIND.match(line)
                return word is None or _is_prose(word)
        if _MAY_STAND_BEHIND.match(behind, at):
            return True
        passed = _PASSED_BEHIND.match(behind, at)
        if passed is None:
            break
        at = passed.end()
    word = _WORD_BEHIND.match(behind, at)
    return word is not None and not _MULTIPLE.fullmatch(word[1]) and _is_prose(word, spaced=at > 0)


def _is_prose(word: re.Match[str], *, spaced: bool = True) -> bool:
    """Whether the letters behind a box are a word or a unit, and no variable or function."""
    name = word[1]
    if _NO_WORD.fullmatch(name):
        return False
    return units.read(name) is not None or len(name) > 2 or (spaced and (len(name) == 2 or name in "aAIÅ"))


def _is_element(before: str, behind: str, formula: bool) -> bool:
    """Whether a comma beside the box parts it from other elements of a tuple, set, interval or list."""
    end = len(before)
    while passed := _SPACE_BEFORE.search(before, max(0, end - STYLE), end):
        end = passed.start()
    before = before[:end]
    if spaces := _SPACES_BEHIND.match(behind):
        behind = behind[spaces.end() :]
    if formula and (_FIRST_ELEMENTS.search(before) or _LAST_ELEMENT.match(behind)):
        return True
    if before[-1:] not in (",", ";") and not _ELEMENT_BEHIND.match(behind):
        return False
    inside = _since_the_open_bracket(before)
    return inside is not None and _PROSE.search(inside) is None


def _since_the_open_bracket(before: str) -> str | None:
    """What stands behind the last bracket that is still open in the formula; None without one."""
    depth = 0
    for token in reversed(list(_BRACKET.finditer(before))):
        mark = token.group()
        if mark in ("$", "\\(", "\\[", "\\)", "\\]"):
            return None
        if mark in (")", "]", "}", "\\}"):
            depth += 1
        elif mark in ("(", "[", "{", "\\{"):
            if depth == 0:
                return before[token.end() :]
            depth -= 1
    return None


def _is_cell(before: str) -> bool:
    """Whether the box stands in a matrix or in one of several cases."""
    marks = _CELL.findall(before)
    return bool(marks) and marks[-1] == "begin"
