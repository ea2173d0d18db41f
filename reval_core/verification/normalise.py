"""One spelling for what LaTeX and people spell in many ways. Text in, text out, linear time.

Nothing here changes a value: what is dropped is spacing, sizing, fonts, dollar signs, a final full stop. Unicode is
characters.py's; this module knows TeX.
"""

from __future__ import annotations

import re
from functools import lru_cache

from reval_core.verification.characters import printable, to_latex
from reval_core.verification.extraction import unwrap

__all__ = ["compact", "normalise", "printable", "strip_delimiters", "words_of"]

_THIN_GROUPS = re.compile(r"(?<=\d)\s*(?:\{,\}|\\!,\\!|,\s?\\!|\\!,|\\,)\s*(?=\d{3}(?!\d))")
_COMMA_GROUPS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_OTHER_GROUPS = re.compile(r"-?\d{1,3}(?:(?:_\d{3})+|(?:'\d{3})+|(?:\.\d{3}){2,}(?:,\d+)?)")
_DOT_GROUPS_COMMA = re.compile(r"-?\d{1,3}(?:\.\d{3})+,\d\d?")
_SPACE_GROUPS = re.compile(r"[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_INNER_DELIMITERS = re.compile(r"(?<!\\)\\[()\[\]](?!\d*(?:pt|ex|em|mm|cm)\])")
_DOUBLED = re.compile(r"\\\\(?=(?:frac|sqrt|text|le|leq|ge|geq|pi|infty|cdot|times|left|right|dfrac|cup|in|pm)\b)")
_SIZING = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?(?=[\s()\[\]{}|\\.]|$)\.?"
    r"|\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|rm|bf|it|strut|Large|large|LARGE|huge|Huge|normalsize"
    r"|small|boldmath)(?![a-zA-Z])"
)
_SPACING = re.compile(
    r"(?<!\\)\\[,;:> ]|\\(?:quad|qquad|hfill|enspace|thinspace|medspace|thickspace|space)(?![a-zA-Z])|~"
    r"|\\neg(?:thin|med|thick)space(?![a-zA-Z])"
    r"|\\(?:hspace|vspace|hskip|mspace|[hv]?phantom)\*?\s?\{[^{}]*\}|\\mkern\s?-?[\d.]+\s?mu"
)
_QUAD = re.compile(
    r"\\q?quad(?=[a-zA-Z](?![a-zA-Z]))|(?<=[\w})\]])\s*\\q?quad\s*(?=[\w(+\-\\])(?!\\(?:text|mathrm|quad|qquad))"
)
_QUANTITY = re.compile(r"\\(?:SI|qty)\s?\{([^{}]*)\}\s?\{([^{}]*)\}|\\unit\s?\{([^{}]*)\}")
_END_MARKS = re.compile(r"(?:\s|\\(?:blacksquare|square|qed|checkmark)(?![a-zA-Z])|∎|✓|✔|✅)+$")
_PERCENT = re.compile(
    r"\\%|(?<=[\d }]) ?(?:per ?cent|percentage|pct)\b|\\text\{ ?(?:per ?cent|percentage|pct|%|\\%) ?\}", re.IGNORECASE
)
_FUNCTIONS = re.findall(
    r"\S+",
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh ln exp log lg gcd lcm max min det floor ceil"
    " sgn cis Re Im mod",
)
_FUNCTION_NAMES = {name: name for name in _FUNCTIONS} | {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "arctg": "arctan", "tg": "tan", "ctg": "cot", "cosec": "csc",
    "Log": "log", "Ln": "ln", "sign": "sgn", "Det": "det",
}  # fmt: skip
_NAMED_FUNCTION = re.compile(
    r"\\(?:operatorname\*?|mathrm|text|mathop|textrm)\s?\{\s?("
    + "|".join(sorted(_FUNCTION_NAMES, key=len, reverse=True))
    + r")\s?\}"
)
_UNITS_TOO = ("min", "sec")
_PLAIN_FUNCTION = re.compile(
    r"(?<![\\a-zA-Z])(arc(?:sin|cos|tan)|a(?:sin|cos|tan)|(?:sin|cos|tan)h|cis|gcd|lcm|max|min|lg|floor|ceil|det)(?=\s?\()"
)
_BASED_LOGARITHM = re.compile(r"(?<![\\a-zA-Z])log_?(\d+)(?=\s?\()")
_INFINITY = re.compile(r"(?<![a-zA-Z\\])(?:inf(?:ty|inity)?|Inf(?:inity)?|oo)(?![a-zA-Z])")
_UNION = re.compile(r"(?<=[)\]}])\s?(?:U|\\bigcup|\\text\s?\{\s?U\s?\})\s?(?=[(\[\\{])")
_ALIASES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern + r"(?![a-zA-Z])"), replacement)
    for pattern, replacement in (
        (r"\\[dtc]frac|\\sfrac|\\nicefrac|\\tfrac", r"\\frac"),
        (r"\\[dt]binom", r"\\binom"),
        (r"\\leqslant|\\leqq|\\leq", r"\\le"),
        (r"\\geqslant|\\geqq|\\geq", r"\\ge"),
        (r"\\lt", "<"),
        (r"\\gt", ">"),
        (r"\\not\s?=|\\neq", r"\\ne"),
        (r"\\(?:text(?:bf|it|sc|rm|normal|tt|sf)|emph|mbox|hbox|mathrm|operatorname\*?)", r"\\text"),
        (r"\\lbrace", r"\\{"),
        (r"\\rbrace", r"\\}"),
        (r"\\ulcorner", r"\\lceil"),
        (r"\\urcorner", r"\\rceil"),
        (r"\\llcorner", r"\\lfloor"),
        (r"\\lrcorner", r"\\rfloor"),
        (r"\\exponentialE", "e"),
        (r"\\lgroup", "("),
        (r"\\rgroup", ")"),
        (r"\\(?:lbrack)", "["),
        (r"\\(?:rbrack)", "]"),
        (r"\\(?:lparen)", "("),
        (r"\\(?:rparen)", ")"),
        (r"\\(?:lvert|rvert|vert)", "|"),
        (r"\\(?:simeq|approxeq|doteq|cong)", r"\\approx"),
        (r"\\(?:degree|degrees|textdegree)", r"^\\circ"),
        (r"\\(?:varnothing|empty)", r"\\emptyset"),
        (r"\\(?:dots|cdots|ldots|dotsc|dotsb)", r"\\ldots"),
        (r"\\(?:ast|centerdot|star)", r"\\cdot"),
        (r"\\surd", r"\\sqrt"),
        (r"\\bigcap", r"\\cap"),
        (r"\\(?:backslash|smallsetminus)", r"\\setminus"),
        (r"\\(?:implies|Longrightarrow|Rightarrow)", r"\\Rightarrow"),
        (r"\\(?:rightarrow|longrightarrow)", r"\\to"),
        (r"\\colon", ":"),
        (r"\\(?:bmod|mod)", r"\\mod"),
        (r"\\(?:textsterling)", r"\\pounds"),
        (r"\\lg", r"\\log"),
        (r"\\langle", "("),
        (r"\\rangle", ")"),
    )
)  # fmt: skip
_PLAIN_ALIASES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<![\\a-zA-Z])sqrt\s?(\d+)", r"\\sqrt{\1}"),
        (r"(?<![\\a-zA-Z])cbrt\s?\(([^()]*)\)", r"\\sqrt[3]{\1}"),
        (r"(?<![\\a-zA-Z])(alpha|beta|gamma|delta|theta|lambda|omega|sigma|phi)(?![a-zA-Z])", r"\\\1 "),
        (r"(?<![a-zA-Z])\\?(sin|cos|tan)\s?\^\s?\{\s?-1\s?\}", r"\\arc\1 "),
        (r"^<([^<>]*,[^<>]*)>$", r"(\1)"),
        (r"^([a-zA-Z])\s?:\s?([a-z])\s?\\mapsto(?![a-zA-Z])\s?(.+)$", r"\1(\2)=\3"),
        (r"^(-?\d+)\s?(?:to|\\text\{\s?to\s?\})\s?(\d+)$", r"\1:\2"),
        (r"^(?:\\overline\s?)?[({]\s?([0-9A-Z]+)\s?[)}]\s?_\s?\{?\s?(\d+)\s?\}?$", r"\1_\2"),
        (
            r"^([0-9A-Z]+)\s?_?\s?[({]?\s?(?:\\text\s?\{\s?)?\(?\s?(?:in )?base\s?(?:\}\s?)?\{?\s?(\d+)"
            r"\s?\)?\s?\}?\)?$",
            r"\1_\2",
        ),
        (r"_\s?\{\s?(\d+)\s?\}$", r"_\1"),
        (r"^(?:minus|negative)\s(?=[\d\\(])", "-"),
        (r"(?<=\d)\{(\\frac\{\d+\}\{\d+\})\}", r"\1"),
        (r"(?<![\w.)}/^])\((\d+)\)/\((\d+)\)(?=\s?[\\a-z(])", r"\\frac{\1}{\2}"),
        (r"(?<![\w.)}/^])(\d+)/(\d+)(?=\s?\\?pi\b|\s[a-z](?![a-zA-Z]))", r"\\frac{\1}{\2}"),
    )
)
_FONT = (
    r"\\(?:mathbf|mathit|mathsf|mathtt|mathnormal|boldsymbol|bm|pmb|underline|ensuremath|framebox|bbox|mathbin|mathrel"
)
_PRIMES = re.compile(r"\^\s?(?:\{\s?((?:\\prime\s?)+)\}|(\\prime)(?![a-zA-Z]))")
_ORDER = re.compile(r"\\mathcal\s?(?:\{\s?O\s?\}|O)(?=\s?\()")
_FONTS = re.compile(
    _FONT + r"|mathopen|mathclose|mathord|smash|displaystyle|textcolor\s?\{[^{}]*\}|color\s?\{[^{}]*\})(?![a-zA-Z])"
)
_NUMBER_SETS = re.compile(r"\\(?:mathbb|Bbb|mathds|mathbf|mathcal)\s?(?:\{\s?([RZQNC])\s?\}|\s([RZQNC])(?![a-zA-Z]))")
_SIGN_GROUP = re.compile(r"\{\s?([-+=:<>,])\s?\}")
_BARE_OVER = re.compile(r"^([^{}=,]*)\\(over|choose)(?![a-zA-Z])([^{}=,]*)$")
_BAR = re.compile(r"\\bar(?![a-zA-Z])")
_OVER = re.compile(r"\{([^{}]*)\\(over|choose)(?![a-zA-Z])([^{}]*)\}")
_RELATIONS = (("!=", r"\ne "), ("<=", r"\le "), (">=", r"\ge "), ("**", "^"), ("=>", r"\Rightarrow "), ("->", r"\to "))
_PLUS_MINUS = re.compile(r"\+/?-(?=\s?[\d\\a-z(])|\\mp(?![a-zA-Z])")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_EMPTY_TEXT = re.compile(r"\\(?:text[a-z]*|mathrm|[mh]box)\s?\{\s*\}")
_TEXT_POWER = re.compile(r"\\text\s?\{(?:[^{}]|\^\{-?\d\})*\^\{-?\d\}(?:[^{}]|\^\{-?\d\})*\}")
_TEXT_DEGREES = re.compile(r"\\text\s?\{\s*\^\s?\\circ\s*([CF])\s*\}")
_TEXT_QUANTITY = re.compile(r"^\\text\s?\{\s?(-?\d[^{}\\]*)\}$")
_TEXT_NUMBER = re.compile(r"\\text\s*\{\s?(-?[\d.,/]*\d)\s?\}")
_TEXT_MARK = re.compile(r"\\text\s*\{\s?([^\w\s{}\\]+)\s?\}")
_TEXT_SUBSCRIPT = re.compile(r"_\s?\{\s?\\text\s?\{\s?(\w+)\s?\}\s?\}")
_ORDINAL = re.compile(r"(?<=\d) ?\^ ?\{? ?\\text ?\{ ?(?:st|nd|rd|th) ?\} ?\}?")
_DEGREE_SPELLINGS = re.compile(
    r"\^\s?\{\s?(?:\\text\s?\{\s?)?(?:\\circ|o)\s?\}{1,2}|\^\s?\\text\s?\{\s?o\s?\}|(?<=\d)\s?\^\s?o(?![a-z])|(?<=\d)\s?\\circ"
)
_BARE_POINT = re.compile(r"(?<=\d)\.(?=[/*)}])")
_UPRIGHT_CONSTANT = re.compile(r"\\text\s*\{\s?([eid]|\\[a-zA-Z]+)\s?\}")
_TEXT_AFTER_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}\s*\\text\s?\{")
_PERIOD = re.compile(r"(?<![\d.])(\d{0,60})\.(\d{0,60})\\(?:overline|bar|dot)\s?(?:\{(\d{1,60})\}|(\d))(?!\d)")
_DOTTED = re.compile(r"(?<![\d.])(\d{1,60})\.(\d{1,60})\s?(?:\.\.\.|\\ldots)$")
_DOTS = re.compile(r"\.\.\.+")
_REPEATING = re.compile(r"(\d{0,60}?)(?:(\d)\2\2+|(\d{2,3})\3+|(\d{4,6})\4\4+)|()()()(\d{4,6})\8+")
"""Digits that end in a period: told often enough that it is none by chance, as the 1828 1828 of e is."""
_SAID_TO_REPEAT = re.compile(r"(?<![\d.])(\d{1,60}\.)(\d)\s?(?:\\text\s?\{\s?)?\(?(?:repeating|recurring)\)?\s?\}?$")
_PERIOD_BRACKET = re.compile(r"(?<![\w.])(-?\d+)\.(\d*)\((\d+)\)(?![\w(])")
_LEADING = re.compile(r"^(?:=|:|\\approx|\\therefore|\\Rightarrow|\\to|\\implies)(?![a-zA-Z])\s*(?=\S)")
_SCIENTIFIC = re.compile(r"(?<=\d)\s?[xX]\s?(?=10\s?\^)")
_CHOOSE = re.compile(
    r"(?<![a-zA-Z\\])C\((\w+(?:[+-]\d+)?),\s?(\w+)\)|\{?\}?(?:\^\{?(\d+|[a-z])\}?|_\{?(\d+|[a-z])\}?)\s?C\s?_\{?(\d+|[a-z])\}?"
)
_PAIRS = (
    ("**", "**"),
    ("$$", "$$"),
    ("$", "$"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ("`", "`"),
    ("*", "*"),
    ("_", "_"),
    ('"', '"'),
    ("'", "'"),
)


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
            if closed(inner):
                text = unwrap(inner)
        if text[:1] == "{" and text[-1:] == "}" and closed(text[1:-1]):
            text = text[1:-1]
        if text == before:
            break
    return text


@lru_cache(maxsize=4096)
def _normalised_short(text: str) -> str:
    return _normalise(text)


def normalise(text: str) -> str:
    """The common spelling of an answer or gold; idempotent on what it returns."""
    return _normalised_short(text) if len(text) <= 300 else _normalise(text)


def _normalise(text: str) -> str:
    text = to_latex(printable(text))
    text = strip_delimiters(" ".join(re.sub(r"US\s?\\?\$", "$", text).split()))
    if "\\" in text or "{" in text:
        text = _tex(text)
    text = _PERCENT.sub("%", " ".join(text.replace("$", " ").split()))
    text = _DOTS.sub(r"\\ldots ", _plain(text))
    for plain, command in _RELATIONS:
        text = text.replace(plain, command)
    text = " ".join(text.split()).rstrip("\\ ;,")
    if text.endswith((".", "!?")) and not text.endswith(".."):
        text = text[:-1].rstrip()
    if "," in text:
        text = _join_thousands(text)
    if _SPACE_GROUPS.fullmatch(text):
        text = text.replace(" ", "")
    return strip_delimiters(_LEADING.sub("", text))


def _tex(text: str) -> str:
    """What TeX says in many ways in one; fonts, sizes and spacing go."""
    text = re.sub(r"(?<!\\)\{\s*\}", "", _EMPTY_TEXT.sub(" ", _END_MARKS.sub("", text)))
    text = _QUAD.sub(
        ", ", _QUANTITY.sub(lambda found: (found[1] or "") + "\\text{ " + (found[2] or found[3]) + "}", text)
    )
    text = unwrap(_DOUBLED.sub(r"\\", text))
    text = _money(text)
    text = _THIN_GROUPS.sub("", text).replace("\\!", "")
    text = _INNER_DELIMITERS.sub(" ", _SPACING.sub(" ", _SIZING.sub("", text)))
    text = _PRIMES.sub(lambda found: "'" * found.group().count("\\prime"), _ORDER.sub("O", text))
    text = _NUMBER_SETS.sub(lambda found: rf"\mathbb{{{found[1] or found[2]}}}", text)
    text = _FONTS.sub("", text)
    text = _NAMED_FUNCTION.sub(_function_or_unit, text)
    for pattern, replacement in _ALIASES:
        text = pattern.sub(replacement, text)
    if "\\text" in text:
        text = _TEXT_POWER.sub(lambda found: found.group().replace("^{", "^").replace("}", "") + "}", text)
        text = _TEXT_DEGREES.sub(r"^\\circ \1", text)
        text = _TEXT_QUANTITY.sub(r"\1", text)
    text = _TEXT_AFTER_TEXT.sub(r"\\text{\1", text)
    text = _TEXT_SUBSCRIPT.sub(r"_{\1}", text)
    text = _TEXT_MARK.sub(r"\1", text)
    text = _TEXT_NUMBER.sub(r" \1 ", text)
    text = _ORDINAL.sub("", text)
    text = _UPRIGHT_CONSTANT.sub(r" \1 ", text)
    text = _DEGREE_SPELLINGS.sub(r"^\\circ", text)
    text = _SIGN_GROUP.sub(r"\1", text)
    if "{" in text and ("\\over" in text or "\\choose" in text):
        text = _OVER.sub(_fraction_of, text)
    if "\\over" in text or "\\choose" in text:
        text = _BARE_OVER.sub(_fraction_of, text)
    return _BAR.sub(r"\\overline", _PERIOD.sub(_periodic, text))


def _plain(text: str) -> str:
    """What plain text says in many ways in one."""
    text = text.replace("~", " ")
    if "." in text:
        text = _SAID_TO_REPEAT.sub(r"\1\2\2\2...", text)
        text = _DOTTED.sub(_dotted, text)
        text = _PERIOD_BRACKET.sub(_periodic_bracket, _BARE_POINT.sub("", text))
    if text.isdecimal() and text.isascii():
        return text
    if _OTHER_GROUPS.fullmatch(text):
        return re.sub(r"[_'.](?=\d{3})", "", text).replace(",", ".")
    if _DOT_GROUPS_COMMA.fullmatch(text):
        return text.replace(".", "").replace(",", ".")
    for pattern, replacement in _PLAIN_ALIASES:
        text = pattern.sub(replacement, text)
    text = _PLUS_MINUS.sub(r"\\pm ", text)
    text = _SCIENTIFIC.sub(r"\\times ", text)
    text = _INFINITY.sub(r"\\infty ", text)
    text = _UNION.sub(r"\\cup ", text)
    text = _BASED_LOGARITHM.sub(r"\\log_{\1}", text)
    text = _CHOOSE.sub(_binomial, text)
    return _PLAIN_FUNCTION.sub(lambda found: f"\\{_FUNCTION_NAMES[found[1]]} ", text)


def _function_or_unit(match: re.Match[str]) -> str:
    """\\text{gcd} as the function; 5 \\text{min} is five minutes."""
    before = match.string[max(0, match.start() - 9) : match.start()].rstrip()
    if match[1] in _UNITS_TOO and before[-1:].isdigit() and not match.group().startswith("\\op"):
        return match.group()
    return f"\\{_FUNCTION_NAMES[match[1]]} "


def _money(text: str) -> str:
    """\\$5 as 5 dollars when that is all; elsewhere the sign goes."""
    text = re.sub(r"\\textdollar(?![a-zA-Z])|US\s?\\?\$", r"\\$", text)
    match = re.fullmatch(r"(-?)\s?\\\$\s?(-?[\d,]*\.?\d+)", text)
    if match:
        return f"{match[1]}{match[2]}\\text{{ dollars}}"
    return text.replace(r"\$", " ").replace("$", " ")


def _fraction_of(match: re.Match[str]) -> str:
    command = "frac" if match[2] == "over" else "binom"
    return f"\\{command}{{{match[1].strip()}}}{{{match[3].strip()}}}"


def _periodic(match: re.Match[str]) -> str:
    """0.1\\overline{6} as the fraction that it is."""
    return _periodic_fraction(match[1], match[2], match[3] or match[4])


def _dotted(match: re.Match[str]) -> str:
    """0.1666... as the fraction that it is; digits without a period stay."""
    found = _REPEATING.fullmatch(match[2])
    if found is None:
        return match.group()
    return _periodic_fraction(match[1], found[1] or "", found[2] or found[3] or found[4] or found[8])


def _periodic_bracket(match: re.Match[str]) -> str:
    return _periodic_fraction(match[1], match[2], match[3])


def _periodic_fraction(whole: str, start: str, period: str) -> str:
    sign = "-" if whole.startswith("-") else ""
    whole = whole.lstrip("-")
    if len(start) + len(period) > 60:
        return f"{sign}{whole}.{start}{period}\\ldots"
    above = int(whole + start + period) - int((whole + start) or "0")
    return f"{sign}\\frac{{{above}}}{{{'9' * len(period) + '0' * len(start)}}}"


def _binomial(match: re.Match[str]) -> str:
    above, below = (match[1], match[2]) if match[1] else (match[3] or match[4], match[5])
    return f"\\binom{{{above}}}{{{below}}}"


_CAPITALISED = re.compile(r"\b[A-Z][a-z]{2,40}\b")
_SEPARATING = re.compile(
    r"(?<=[\d.])\s+(?=[\d.])|(\\[a-zA-Z]+)\s+(?=[a-zA-Z])|(?<=[a-zA-Z]{2})\s+(?=[a-zA-Z])|(?<=[a-zA-Z])\s+(?=[a-zA-Z]{2})"
)


def compact(text: str) -> str:
    """Normalised text without spaces and without \\text{}: equal strings are the same answer.

    A space between two digits separates and stays: 1 1/2 is not 11/2.
    """
    text = _TEXT.sub(r" \1 ", normalise(text)) if "\\text" in text else normalise(text)
    text = re.sub(r"\\(frac|sqrt)\s*(\d)\s*(?=\d)", r"\\\1{\2}", text)
    text = re.sub(r"\\mid(?![A-Za-z])", "|", text)
    text = _SEPARATING.sub(lambda found: (found[1] or "") + "\0", text.strip())
    return "".join(text.split()).replace("\0", " ")


def same_words(left: str, right: str) -> bool:
    """Whether two normalised texts are the same but for capitals at the beginning of words inside \\text{}."""
    if "\\text" not in left or "\\text" not in right:
        return False
    sides = [
        _TEXT.sub(lambda said: _CAPITALISED.sub(lambda word: word.group().lower(), said.group()), text)
        for text in (left, right)
    ]
    return compact(sides[0]) == compact(sides[1])


def words_of(text: str) -> str:
    """A text answer in lower case: \\text{} unwrapped, outer punctuation and spaces dropped."""
    return " ".join(_TEXT.sub(r" \1 ", text).replace("{", " ").replace("}", " ").split()).strip(" .,;:!?\"'").casefold()


def closed(text: str) -> bool:
    """Whether every brace is closed and none is closed that was not opened."""
    depth = 0
    for char in text.replace("\\\\", "").replace("\\{", "").replace("\\}", ""):
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
