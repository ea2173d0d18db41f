"""The symbolic tier: math-verify, with its known wrong acceptances vetoed. Runs in worker processes only.

math-verify's own alarms are off (they work on main threads alone and cannot stop C code); the pool's
hard limit replaces them. Only boxed LaTeX is given and only its LaTeX grammar is enabled, which leaves one path to
sympy's parse_expr, the function that evaluates text: its number tokens. Importing this module puts `read_number`, which
evaluates nothing, in the place of that function wherever these libraries hold it.
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
from latex2sympy2_extended.sets import FiniteSet as LatexFiniteSet

from reval_core.verification.confine import Confined

_CONFIG = [math_verify.LatexExtractionConfig(boxed_match_priority=0)]
_RELATIVE_GAP = 1e-5

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns once that its alarms are off


def read_number(text: str, *_: object, **__: object) -> sympy.Number:
    """A number token as sympy's parse_expr reads it, without its evaluation.

    Raises:
        Confined: the text is no number.
    """
    if re.fullmatch(r"\d+", text, re.ASCII):
        return sympy.Integer(int(text))
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
    """(equal, reason) for two normalised LaTeX texts. May take for ever; may raise anything."""
    if any(mark in text for text in (gold, answer) for mark in ("\\ldots", "...")):
        return False, "lists with dots are only compared as text"
    golds, answers = _parse(gold), _parse(answer)
    if not golds:
        return False, "the gold is no LaTeX that math-verify reads, and the texts differ"
    if not answers:
        return False, "the answer is no LaTeX that math-verify reads, and the texts differ"
    if not math_verify.verify(golds, answers, timeout_seconds=None):
        return False, "math-verify: different"
    reason = _veto(golds[0], answers[0])
    return (False, reason) if reason else (True, "math-verify: equal")


def warm_up() -> None:
    """Grade a few ordinary pairs, so that the first real one does not pay for cold caches."""
    for gold, answer in (
        (r"\frac{x}{7}+1", r"\frac{x+7}{7}"),
        (r"x<1", r"-x>-1"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
        (r"(-\infty,2]\cup[3,\infty)", r"x\le 2 \text{ or } x\ge 3"),
        (r"\log 8", r"3\log 2"),
    ):
        compare(gold, answer)


def _parse(text: str) -> list[Any]:
    parsed = math_verify.parse("\\boxed{" + text + "}", _CONFIG, fallback_mode="no_fallback", parsing_timeout=None)
    return [part for part in parsed if not isinstance(part, str)]


def _veto(gold: Any, answer: Any) -> str | None:
    """Why an acceptance by math-verify is not believed, or None."""
    kinds = [_kind(value) for value in (gold, answer)]
    if set(kinds) == {"interval", "finite"}:
        return "an interval is not a finite set"
    if _says_nothing(answer) and not _says_nothing(gold):
        return "the answer holds for every value"
    if kinds == ["number", "number"]:
        left, right = (sympy.N(value, 50) for value in (gold, answer))
        gap = abs(left - right)
        if gap > _RELATIVE_GAP * max(abs(left), abs(right)):
            return "the numbers differ at 50 digits"
    return None


def _says_nothing(value: Any) -> bool:
    """Whether it is `true`, `false` or an equation of a thing with itself."""
    if isinstance(value, sympy.logic.boolalg.BooleanAtom):
        return True
    return isinstance(value, sympy.Equality) and value.lhs == value.rhs


def _kind(value: Any) -> str:
    if isinstance(value, sympy.Interval | sympy.Union):
        return "interval"
    if isinstance(value, sympy.FiniteSet | LatexFiniteSet):
        return "finite"
    if isinstance(value, sympy.Expr) and not value.free_symbols and value.is_number:
        return "number"
    return "other"
