"""One spelling for what LaTeX and people spell in many ways. Text in, text out, linear time.

Nothing here changes a value: what is dropped is spacing, sizing, dollar signs, a final full stop.
"""

from __future__ import annotations

import re

from reval_core.verification.extraction import unwrap

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SIGNS = str.maketrans(
    {
        "−": "-", "–": "-", "‐": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
        "÷": r"\div ", "°": r"^\circ ", "º": r"^\circ ", "π": r"\pi ", "∞": r"\infty ",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
        "±": r"\pm ", "≈": r"\approx ", "θ": r"\theta ", "∅": r"\emptyset ", "√": r"\sqrt ",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ", "，": ",", "\t": " ", "\n": " ", "\r": " ",
    }
)  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_UNSENDABLE = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_THIN_GROUPS = re.compile(r"(?<=\d)\s*(?:\{,\}|\\!,\\!|,\s?\\!|\\!,|\\,)\s*(?=\d{3}(?!\d))")
_COMMA_GROUPS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_INNER_DELIMITERS = re.compile(r"(?<!\\)\\[()\[\]]")
_SPACE_GROUPS = re.compile(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_SIZING = re.compile(
    r"\\(?:left|right|middle|bigl|bigr|Bigl|Bigr|biggl|biggr|Biggl|Biggr|big|Big|bigg|Bigg)"
    r"(?![a-zA-Z])\s*|\\(?:displaystyle|textstyle|limits|nolimits|rm|bf|it|strut)(?![a-zA-Z])"
)
_SPACING = re.compile(r"(?<!\\)\\[,;:> ]|\\(?:quad|qquad|hfill|enspace|thinspace)(?![a-zA-Z])|~")
_PERCENT = re.compile(r"\\%|(?<=[\d }]) ?\b(?:percent|pct)\b|\\text\{ ?(?:percent|pct|%|\\%) ?\}")
_ALIASES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern + r"(?![a-zA-Z])"), replacement)
    for pattern, replacement in (
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\[dt]binom", r"\\binom"),
        (r"\\leqslant|\\leq", r"\\le"),
        (r"\\geqslant|\\geq", r"\\ge"),
        (r"\\lt", "<"),
        (r"\\gt", ">"),
        (r"\\neq", r"\\ne"),
        (r"\\(?:textbf|textit|textsc|textrm|textnormal|texttt|textsf|mbox|hbox|mathrm|mathbf|mathit"
         r"|operatorname\*?)", r"\\text"),
        (r"\\(?:lbrace)", r"\\{"),
        (r"\\(?:rbrace)", r"\\}"),
        (r"\\(?:lvert|rvert|vert|mid)", "|"),
        (r"\\(?:simeq|approxeq|doteq)", r"\\approx"),
        (r"\\(?:degree|degrees)", r"^\\circ"),
        (r"\\varnothing", r"\\emptyset"),
        (r"\\(?:dots|cdots|ldots|dotsc)", r"\\ldots"),
        (r"\\lcm", r"\\text{lcm}"),
    )
)  # fmt: skip
_RELATIONS = (("!=", r"\ne "), ("<=", r"\le "), (">=", r"\ge "), ("**", "^"))
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_TEXT_SUBSCRIPT = re.compile(r"_\s?\{\s?\\text\s?\{\s?(\w+)\s?\}\s?\}")
_ORDINAL = re.compile(r"(?<=\d) ?\^ ?\{? ?\\text ?\{ ?(?:st|nd|rd|th) ?\} ?\}?")
_BARE_POINT = re.compile(r"(?<=\d)\.(?=[/*)}])")
_UPRIGHT_CONSTANT = re.compile(r"\\text\s*\{([ei])\}")
_PAIRS = (("**", "**"), ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))


def printable(text: str) -> str:
    """`text` with lone surrogates and control characters as U+FFFD, so any pipe or log takes it."""
    return _UNSENDABLE.sub("\ufffd", text)


def strip_delimiters(text: str) -> str:
    """Without the dollars, \\(..\\), \\[..\\] or box that enclose the whole text."""
    for _ in range(4):
        text = text.strip()
        before = text
        for opening, closing in _PAIRS:
            inner = text[len(opening) : -len(closing)]
            enclosed = text.startswith(opening) and text.endswith(closing)
            if enclosed and len(text) > len(opening) + len(closing) and opening not in inner:
                text = inner.strip()
                break
        if text.startswith((r"\boxed{", r"\fbox{")) and text.endswith("}"):
            inner = text[text.index("{") + 1 : -1]
            if _closed(inner):
                text = unwrap(inner)
        if text == before:
            break
    return text


def normalise(text: str) -> str:
    """The common spelling of an answer or gold; idempotent on what it returns."""
    text = printable(text).translate(_FULL_WIDTH).translate(_SIGNS)
    if not text.isascii():
        text = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + run.group().translate(_SUPERSCRIPTS) + "}", text)
        text = _SUBSCRIPT_RUN.sub(lambda run: "_{" + run.group().translate(_SUBSCRIPTS) + "}", text)
    text = strip_delimiters(" ".join(text.split()))
    if "\\" in text or "{" in text:
        text = text.replace(r"\$", "").replace("$", " ")
        text = _THIN_GROUPS.sub("", text).replace("\\!", "")
        text = _INNER_DELIMITERS.sub(" ", _SPACING.sub(" ", _SIZING.sub("", text)))
        for pattern, replacement in _ALIASES:
            text = pattern.sub(replacement, text)
        text = _TEXT_SUBSCRIPT.sub(r"_{\1}", text)
        text = _ORDINAL.sub("", text)
        text = _UPRIGHT_CONSTANT.sub(r" \1 ", text)
        text = text.replace(r"^{\circ}", r"^\circ").replace(r"{,}", ",")
    text = _PERCENT.sub("%", " ".join(text.replace("$", " ").split()))
    if "." in text:
        text = _BARE_POINT.sub("", text)
    for plain, command in _RELATIONS:
        text = text.replace(plain, command)
    text = " ".join(text.split()).rstrip("\\ ;,")
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip()
    if "," in text:
        text = _join_thousands(text)
    if _SPACE_GROUPS.fullmatch(text):
        text = text.replace(" ", "")
    return strip_delimiters(text)


def compact(text: str) -> str:
    """Normalised text without spaces and without \\text{}: equal strings are the same answer."""
    text = _TEXT.sub(r"\1", normalise(text))
    text = re.sub(r"\\(frac|sqrt)\s*(\d)\s*(?=\d)", r"\\\1{\2}", text)
    return re.sub(r"(?<![a-zA-Z])\s+|\s+(?![a-zA-Z0-9])", "", text)


def words_of(text: str) -> str:
    """A text answer in lower case: \\text{} unwrapped, outer punctuation and spaces dropped."""
    return " ".join(_TEXT.sub(r" \1 ", text).replace("{", " ").replace("}", " ").split()).strip(" .,;:!\"'").casefold()


def _closed(text: str) -> bool:
    depth = 0
    for char in text.replace("\\{", "").replace("\\}", ""):
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0


def _join_thousands(text: str) -> str:
    """1,234 as 1234, but only outside brackets: (1,234) is a pair."""
    if not any(bracket in text for bracket in "()[]{}"):
        return _COMMA_GROUPS.sub(lambda match: match.group().replace(",", ""), text)
    depth = 0
    depths = []
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        depths.append(depth)
    return _COMMA_GROUPS.sub(
        lambda match: match.group() if depths[match.start()] else match.group().replace(",", ""),
        text,
    )
