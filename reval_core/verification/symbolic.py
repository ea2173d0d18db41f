"""The symbolic tier: math-verify, with its known wrong acceptances vetoed. Runs in worker processes only.

math-verify's own alarms are off (they work on main threads alone and cannot stop C code); the pool's hard limit
replaces them. Its extraction is passed by: a text is parsed whole or not at all, by its LaTeX grammar alone. That
leaves one path to sympy's parse_expr, the function that evaluates text: number tokens. Importing this module puts
`read_number`, which evaluates nothing, in the place of that function wherever these libraries hold it.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import latex2sympy2_extended.latex2sympy2
import math_verify
import math_verify.parser
import sympy
import sympy.parsing
import sympy.parsing.sympy_parser
import sympy.physics.units  # its module reads the names of its prefixes with parse_expr
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from latex2sympy2_extended.sets import FiniteSet as LatexFiniteSet
from math_verify.grader import should_treat_as_complex

from reval_core.verification.confine import Confined

_NORMALIZATION = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True, boxed="none")
_CONVERSION = ConversionConfig(lowercase_symbols=False)
"""R - r is not 0."""
_ROUNDED_GAP = 1e-6
_EXACT_GAP = 1e-30

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns once that its alarms are off


def read_number(text: str, *_: object, **__: object) -> sympy.Number:
    """A number token as sympy's parse_expr reads it, without its evaluation.

    Raises:
        Confined: the text is no number.
    """
    if re.fullmatch(r"\d+", text, re.ASCII):
        return sympy.Integer(int(text))
    if re.fullmatch(r"\d+/\d+", text, re.ASCII):
        return sympy.Rational(*map(int, text.split("/")))
    if re.fullmatch(r"\d*\.\d+|\d+\.|\d*\.?\d+[eE][+-]?\d{1,4}", text, re.ASCII):
        return sympy.Float(text)
    raise Confined(f"sympy was asked to evaluate {text[:80]!r}")


for _module in (
    sympy.parsing,
    sympy.parsing.sympy_parser,
    latex2sympy2_extended.latex2sympy2,
    math_verify.parser,
):
    assert callable(_module.parse_expr)  # where a version of a library moves it, starting fails and not the promise
    _module.parse_expr = read_number


def compare(gold: str, answer: str) -> tuple[bool, str]:
    """(equal, reason) for two normalised LaTeX texts that passed admission.py. May take for ever."""
    wanted, found = _parse(gold), _parse(answer)
    if wanted is None:
        return False, "sympy does not read the gold, and the texts differ"
    if found is None:
        return False, "sympy does not read the answer, and the texts differ"
    if not math_verify.verify([wanted], [found], timeout_seconds=None):
        return False, "math-verify: different"
    reason = _veto(wanted, found, rounded="." in gold + answer)
    return (False, reason) if reason else (True, "math-verify: equal")


def warm_up() -> None:
    """Grade a few ordinary pairs, so that the first real one does not pay for cold caches.

    Raises:
        RuntimeError: one was judged wrongly: with these versions of the libraries every verdict would be worthless.
    """
    for gold, answer in (
        (r"\frac{x}{7}+1", r"\frac{x+7}{7}"),
        (r"x<1", r"-x>-1"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
        (r"\{1,2,3\}", r"\{1\}\cup\{2,3\}"),
        (r"\log 8", r"3\log 2"),
        (r"\int_0^1 x^2 dx", r"\frac{1}{3}"),
        (r"\sum_{i=1}^{4} i", "10"),
        (r"\lim_{x \to 0} \frac{\sin x}{x}", "1"),
    ):
        if not compare(gold, answer)[0]:
            raise RuntimeError(f"math-verify does not find {gold} and {answer} equal; are its versions those required?")


def _parse(text: str) -> Any:
    """The whole text as sympy reads it, None when it does not: never a part of it."""
    try:
        return latex2sympy(
            normalize_latex(text, _NORMALIZATION),
            is_real=not should_treat_as_complex(text),
            convert_degrees=False,
            normalization_config=None,
            conversion_config=_CONVERSION,
        )
    except Confined:
        raise
    except MemoryError:
        raise
    except Exception:  # whatever a parser of a hundred thousand lines raises, it has not read the text
        return None


def _veto(gold: Any, answer: Any, *, rounded: bool) -> str | None:
    """Why an acceptance by math-verify is not believed, or None."""
    kinds = [_kind(value) for value in (gold, answer)]
    if set(kinds) == {"interval", "finite"}:
        return "an interval is not a finite set"
    if _says_nothing(answer) and not _says_nothing(gold):
        return "the answer holds for every value"
    if isinstance(gold, sympy.Symbol) and isinstance(answer, sympy.Symbol) and gold.name != answer.name:
        return "two names"
    if kinds == ["number", "number"]:
        left, right = (sympy.N(value.doit(), 50) for value in (gold, answer))
        if left == right:
            return None
        gap = abs(left - right)
        if not (gap.is_comparable and left.is_finite and right.is_finite):
            return "no finite numbers"
        if gap > (_ROUNDED_GAP if rounded else _EXACT_GAP) * sympy.Max(abs(left), abs(right)):
            return "the numbers differ at 50 digits"
    return None


def _says_nothing(value: Any) -> bool:
    """Whether it is `true`, `false` or an equation of a thing with itself."""
    if isinstance(value, sympy.logic.boolalg.BooleanAtom):
        return True
    return isinstance(value, sympy.Equality) and value.lhs == value.rhs


def _kind(value: Any) -> str:
    if isinstance(value, sympy.Union) and all(isinstance(part, sympy.FiniteSet) for part in value.args):
        return "finite"
    if isinstance(value, sympy.Interval | sympy.Union):
        return "interval"
    if isinstance(value, sympy.FiniteSet | LatexFiniteSet):
        return "finite"
    if isinstance(value, sympy.Expr) and not value.free_symbols and value.is_number:
        return "number"
    return "other"
