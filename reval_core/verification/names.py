"""What stands left of an equals sign: the name of what was asked for, or an equation that is still to be solved.

Parts that the grammar of values does not read (calls, angles, segments, words, derivatives) are unknowns of their own
here. The rest is then arithmetic: several unknowns (x + y, AB/CD, f(2) - f(1)) are what was asked for; arithmetic on
one (x/2, f(2) + 3, the answer squared) is an equation.
"""

from __future__ import annotations

import re

from reval_core.verification.parser import parse
from reval_core.verification.tree import Apply, Node, Number, Symbol, Undecided, symbols

_ASKED = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
"""Functions of one unknown that problems ask for."""

_MOST_NESTED = 6
_LETTER_BEFORE = r"(?<![\\a-zA-Z])"
_OPERATOR = r"\\(?:ast|circ|oplus|otimes|ominus|odot|diamond|bullet|heartsuit|spadesuit|clubsuit|bigstar|triangle)"
_ACCENT = r"\\(?:vec|hat|bar|dot|ddot|tilde|overline|overrightarrow|overleftarrow|widehat|widetilde|mathbb|mathcal)"
_NAMED = re.compile(
    "|".join(
        (
            r"(?P<function>\\text ?\{[^{}]*\}(?:_(?:\{[^{}]*\}|\w))?"
            rf"|{_ACCENT} ?(?:\{{[^{{}}]*\}}|[A-Za-z])(?:_(?:\{{[^{{}}]*\}}|\w))?'*"
            rf"|{_LETTER_BEFORE}[A-Za-z]'*_\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}'*(?:\^\{{?\*\}}?)?)",
            r"(?:m ?)?\\(?:angle|measuredangle|triangle|odot) ?"
            r"(?:\{[^{}]*\}|(?:[A-Z]'*(?:_(?:\w|\{\w\}))?'* ?)+|\d|[a-z](?![a-z])|\\[a-z]+)",
            rf"(?<!\d)\d{{1,9}} ?{_OPERATOR} ?\d{{1,9}}(?!\d)",
            rf"{_LETTER_BEFORE}[a-zA-Z] ?{_OPERATOR} ?[a-zA-Z](?![a-zA-Z])(?: ?\([^()]*\))?",
            r"\( ?[a-zA-Z] ?\\circ ?[a-zA-Z] ?\) ?\([^()]*\)",
            r"\\frac ?\{ ?(?:d|\\partial)[^{}+\-]{0,12}\} ?\{ ?(?:d|\\partial) ?\\?[a-zA-Z][^{}+\-]{0,12}\}",
            r"\\# ?(?:[A-Za-z]|\\\{[^{}]*\\\})",
            r"\\Delta ?[A-Za-z](?![a-zA-Z])",
            r"\\(?:triangle|square|Box|hbar|diamond|bigcirc|heartsuit|spadesuit|clubsuit|bigstar)(?![a-zA-Z])",
            r"\[ ?[A-Z]{3,12} ?\]",
            r"\\begin\{vmatrix\}[^$]{0,400}?\\end\{vmatrix\}",
            rf"{_LETTER_BEFORE}[A-Za-z](?:\^\{{?\*\}}?|\*$)",
            rf"{_LETTER_BEFORE}[A-Z]{{2,12}}(?![a-z])'*(?:_(?:\{{\w*\}}|\w))?(?: ?\^ ?\{{?2\}}?(?!\d))?",
        )
    )
)
"""Each is one unknown; so is AB^2, which geometry asks for."""
_CALL = re.compile(
    r"(?:\\(?:gcd|lcm|max|min|det|Pr|deg|dim|arg|Re|Im|sgn|sigma|tau|mu|Gamma|zeta|psi|phi|varphi|Phi|Psi)"
    rf"|{_LETTER_BEFORE}(?:[fghFGHPQRWT]|[A-Za-z](?= ?\(\d{{1,9}}\))|n(?= ?\([A-Z]\))|v(?=_))|\\Xi_\{{\d+\}})"
    r"'*(?:_(?:\{\w*\}|\w))?(?: ?\^ ?(?:\{ ?-1 ?\}|\{?\(\w\)\}?|-1))? ?\((?P<inside>[^()]*)\)"
    rf"|(?:{_LETTER_BEFORE}[EV]|\\Xi_\{{\d+\}}) ?\[(?P<within>[^\[\]]*)\]"
)
_BARS = re.compile(r"\\?\|[^|]*\|")
_NORM_OR_COUNT = re.compile(r"^\\\||\\(?:cap|cup|setminus|times|triangle)(?![a-zA-Z])")
_GATHERS = re.compile(r"\\(?:sum|prod|i*nt|oint|lim|limsup|liminf|max|min|sup|inf|gcd|lcm|det|deg|dim|arg)(?![a-zA-Z])")
_AND_A_NUMBER = re.compile(r"(?:[-+*/]|\\cdot|\\times) ?\d+(?:\.\d+)?$|\) ?\^ ?\{?\d+\}?$")
_DOTS = re.compile(r"\\(?:cdots|ldots|dots)(?![a-zA-Z])|\.\.\.")
_WHERE = re.compile(r"\|_ ?(?:\{[^{}]*\}|\w)$")
_LETTERS = re.compile(r"\\?[A-Za-z]+")
_COMPUTED = re.compile(
    r"\b(?:twice|thrice|doubled|tripled|halved|squared|cubed|plus|minus|(?:square|cube) root"
    r"|(?:double|triple|half|times|square|cube) (?:of|the)|(?:a|one|two) (?:third|quarter|fifth|tenth)s? of"
    r"|(?:two|three|four|five|ten|hundred|\d+) times|(?:divided|multiplied|increased|decreased|reduced) by"
    r"|added to|subtracted from|less (?:one|two|three|\d+)|(?:more|less|fewer|greater) than the"
    r"|(?:reciprocal|inverse|opposite|negative|multiple|logarithm|factorial) of)\b",
    re.IGNORECASE,
)
_COMPUTES = re.compile(r"\\?(?:ln|lg|log|exp|sqrt)(?![a-zA-Z])|[a-z] ?[fgh] ?\(")
_TEXTS = re.compile(r"\\text ?\{([^{}]*)\}")
_SIGNS = re.compile(r"[+*^=<>]|(?<!\w)-|-(?!\w)|[-/] ?\d")


def names_a_quantity(text: str) -> bool:
    """Whether a left side is what was asked for (x + y, \\sin\\theta, f(2)) and no equation to be solved (x^2, x/2).

    Args:
        text: the side, normalised.
    """
    if computes_in_words(text):
        return False
    written, inside = _with_unknowns(text.strip())
    try:
        tree = parse(written)
    except Undecided:
        return _GATHERS.match(written) is not None and _AND_A_NUMBER.search(written) is None
    names = symbols(tree)
    if len(names) > 1:
        return not names & inside
    return isinstance(tree, Symbol) or _is_asked(tree)


def computes_in_words(text: str) -> bool:
    """Whether words say that something was done to what was asked for: twice the answer, the answer + 1."""
    return _COMPUTED.search(text) is not None or any(_SIGNS.search(said) for said in _TEXTS.findall(text))


def is_phrase(text: str) -> bool:
    """Whether a side in letters and words is words: Area, the answer; not twice the answer, x f(x), ln(x)."""
    return len(text) > 2 and not computes_in_words(text) and _COMPUTES.match(text) is None


def _is_asked(tree: Node) -> bool:
    """Sines and their like, the size or the whole part of one unknown; \\lfloor 100x \\rfloor asks for its digits."""
    if not isinstance(tree, Apply) or not tree.args:
        return False
    inner = tree.args[0]
    if tree.op in _ASKED:
        return bool(symbols(inner))
    if (
        tree.op in ("floor", "ceil")
        and isinstance(inner, Apply)
        and inner.op == "mul"
        and _is_power_of_ten(inner.args[0])
    ):
        inner = inner.args[1]
    return tree.op in ("abs", "floor", "ceil") and isinstance(inner, Symbol)


def _is_power_of_ten(node: Node) -> bool:
    return isinstance(node, Number) and re.fullmatch(r"10+", str(node.value)) is not None


def _with_unknowns(text: str) -> tuple[str, frozenset[str]]:
    """The text with an unknown for each part that the parser does not read, and the letters inside their brackets."""
    known: dict[str, str] = {}
    inside: set[str] = set()

    def unknown(match: re.Match[str]) -> str:
        groups = match.groupdict()
        inside.update(
            name.lstrip("\\") for name in _LETTERS.findall(groups.get("inside") or groups.get("within") or "")
        )
        letter = "\\Xi" if groups.get("function") else "\\Lambda"  # \\Xi before brackets is called, and no factor
        return known.setdefault(re.sub(r"\s", "", match[0]), f"{letter}_{{{len(known)}}}")

    text = re.sub(r"\\log(?![a-zA-Z_]| ?_)", r"\\ln", _WHERE.sub("", text))
    text = _NAMED.sub(unknown, _DOTS.sub("(7)", text))  # terms left out are no unknown
    text = _BARS.sub(lambda match: unknown(match) if _NORM_OR_COUNT.search(match[0]) else match[0], text)
    for _ in range(_MOST_NESTED):
        text, calls = _CALL.subn(unknown, text)
        if not calls:
            break
    return text, frozenset(inside)
