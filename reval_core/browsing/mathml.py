"""LaTeX of a model as MathML that a browser may be given: only known elements and attributes, and everything escaped.

latex2mathml reads the LaTeX. Its own text output undoes the escaping of what stands in it, so that a completion could
write elements of its own; what is taken of it is its tree, of which the elements and attributes below are written out.
A formula that is too long, too deep or beyond what it reads stays as its source.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import lru_cache
from xml.etree.ElementTree import Element

from latex2mathml import exceptions
from latex2mathml.converter import Converter
from markupsafe import Markup, escape

MOST_CHARACTERS = 2_000
"""Of one formula; longer ones stay as source."""
MOST_DEPTH = 40
"""Of braces and environments; deeper ones stay as source."""
ELEMENTS = frozenset(
    """
    math mrow mi mn mo mtext ms mspace mfrac msqrt mroot mstyle mpadded mphantom menclose msub msup msubsup munder mover
    munderover mmultiscripts mprescripts none mtable mtr mlabeledtr mtd
    """.split()  # noqa: SIM905
)
ATTRIBUTES = frozenset(
    """
    display displaystyle scriptlevel stretchy fence separator form accent accentunder largeop movablelimits symmetric
    lspace rspace minsize maxsize linethickness width height depth columnalign columnlines columnspacing rowlines
    rowspacing mathvariant notation
    """.split()  # noqa: SIM905
)
"""Of an element; those that name an address, a style, a class or an id are not among them."""
_VALUE = re.compile(r"-?[A-Za-z0-9.%]{1,24}(?: [A-Za-z0-9.%]{1,24}){0,30}")
_HUGE = re.compile(r"\d{3}")
"""A width of a hundred of anything is there to hide what stands beside it."""
_BEGINS_OR_ENDS = re.compile(r"\\.|[{}]", re.DOTALL)
_DEFINES = re.compile(r"\\(?:re)?newcommand|\\def(?![A-Za-z])")
"""A definition may name itself twice, which takes for ever."""
_UNREAD: tuple[type[Exception], ...] = (
    exceptions.DenominatorNotFoundError,
    exceptions.DoubleSubscriptsError,
    exceptions.DoubleSuperscriptsError,
    exceptions.ExtraLeftOrMissingRightError,
    exceptions.InvalidAlignmentError,
    exceptions.InvalidStyleForGenfracError,
    exceptions.InvalidWidthError,
    exceptions.LimitsMustFollowMathOperatorError,
    exceptions.MissingEndError,
    exceptions.MissingSuperScriptOrSubscriptError,
    exceptions.NoAvailableTokensError,
    exceptions.NumeratorNotFoundError,
    *(ArithmeticError, AttributeError, LookupError, RuntimeError, StopIteration, TypeError, ValueError),
)
"""What latex2mathml raises of LaTeX that it does not read."""


@lru_cache(maxsize=4096)
def mathml(latex: str, *, block: bool) -> Markup | None:
    """The formula, or None where it cannot be shown.

    Args:
        latex: without its delimiters.
        block: on a line of its own.
    """
    if len(latex) > MOST_CHARACTERS or _depth(latex) > MOST_DEPTH or _DEFINES.search(latex) or not latex.strip():
        return None
    try:
        tree = Converter(display="block" if block else "inline").convert_to_element(_unnumbered(latex))
    except _UNREAD:
        return None
    return Markup("".join(_written(tree)))


def _unnumbered(latex: str) -> str:
    """Without the numbers that LaTeX puts behind the lines of a display."""
    return re.sub(r"\\(begin|end)\{(align|gather|equation)\}", r"\\\1{\2*}", latex)


def _depth(latex: str) -> int:
    depth = deepest = 0
    for token in _BEGINS_OR_ENDS.findall(latex):
        depth += {"{": 1, "}": -1}.get(token, 0)
        deepest = max(deepest, depth)
    return max(deepest, latex.count(r"\begin"), latex.count(r"\left"), _scripts(latex))


def _scripts(latex: str) -> int:
    """The longest row of commands that take what follows as their argument, such as a square root of a root."""
    rows = re.findall(r"(?:\\[A-Za-z]+\s*){2,}", latex)
    return max((row.count("\\") for row in rows), default=0)


def _written(element: Element) -> Iterator[str]:
    name = element.tag if element.tag in ELEMENTS else "mrow"
    yield f"<{name}"
    for attribute, value in element.attrib.items():
        if attribute in ATTRIBUTES and _VALUE.fullmatch(value) and not _HUGE.search(value):
            yield f' {attribute}="{value}"'
    yield ">"
    yield _text(element.text)
    for child in element:
        yield from _written(child)
        yield _text(child.tail)
    yield f"</{name}>"


def _text(text: str | None) -> str:
    """latex2mathml writes characters as entities, such as ``&#x02009;``."""
    return str(escape(html.unescape(text))) if text else ""
