"""Values of programs at a point with proved error bounds (ball arithmetic, FLINT), and whether two of them are equal.

Different is proved: the balls are disjoint. Equal is a claim: the difference is below what could be built from the
magnitudes that occur, e^{-150} and 10^{-60} included, so the working precision follows the expression; where that
precision would be too dear, the pair is Undecided.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from fractions import Fraction
from operator import methodcaller
from typing import Any

from flint import acb, arb, ctx, fmpq

from reval_core.verification import exact
from reval_core.verification.budget import spend
from reval_core.verification.program import Program, Step
from reval_core.verification.tree import Undecided

Ball = Any
"""A real ball (arb) or a complex one (acb)."""
Point = Mapping[str, fmpq | tuple[fmpq, fmpq]]
"""Exact coordinates, as (real, imaginary) off the real line."""

_lock = threading.RLock()  # FLINT has one working precision for the process
_START_BITS = 192
_MAX_BITS = 6_000
_GUARD_BITS = 64
_MAX_MAGNITUDE = 100_000  # bits of exponent
_MAX_ARGUMENT = 10_000
_UNRESOLVED_ROUNDS = 2
_EXPONENTIAL = frozenset(["exp", "sinh", "cosh", "tanh", "sin", "cos", "tan", "cot", "sec", "csc"])
_CUT = frozenset(["sqrt", "root", "ln", "arcsin", "arccos", "arctan", "factorial", "binomial"])
_CHEAP = frozenset(["number", "symbol", "add", "neg", "mul", "div", "abs", "floor", "ceil", "i", "pi", "e", "degrees"])
_REAL: dict[str, Callable[[Ball], Ball]] = {
    "neg": lambda x: -x,
    "abs": abs,
    "floor": lambda x: _whole(x).floor(),
    "ceil": lambda x: _whole(x).ceil(),
    "degrees": lambda x: x * arb.pi() / 180,
    "arctan": lambda x: x.atan(),
    "conjugate": lambda x: x,
    **{name: methodcaller(name) for name in _EXPONENTIAL},
}
_COMPLEX: dict[str, Callable[[Ball], Ball]] = {
    **_REAL,
    "sqrt": lambda z: z.sqrt(),
    "ln": lambda z: z.log(),
    "arcsin": lambda z: z.asin(),
    "arccos": lambda z: z.acos(),
    "conjugate": lambda z: z.conjugate(),
}
_CONSTANTS: dict[str, Callable[[], Ball]] = {"pi": arb.pi, "e": arb.const_e, "i": lambda: acb(0, 1)}


class _Unresolved(Undecided):
    """A ball is too wide to go on: more precision may help."""


class _Run:
    """One run of a program: its values, whether no root or logarithm left the real line, and the bits of magnitude."""

    def __init__(self, program: Program, point: Point) -> None:
        self.program = program
        self.point = point
        self.real = True
        self.extent = 0.0
        self.balls: list[Ball] = []
        for step in program.steps:
            ball = self._value(step, [self.balls[arg] for arg in step.args])
            self.extent += _extent(ball)
            if isinstance(ball, acb) and step.op in _CUT:
                self.real = False
            self.balls.append(ball)

    @property
    def results(self) -> list[Ball]:
        return [self.balls[place] for place in self.program.roots]

    def _value(self, step: Step, args: list[Ball]) -> Ball:
        op = step.op
        if op == "number":
            return arb(step.value)
        if op == "symbol":
            where = self.point[step.name]
            return acb(arb(where[0]), arb(where[1])) if isinstance(where, tuple) else arb(where)
        if op in _CONSTANTS:
            return _CONSTANTS[op]()
        if not args:
            raise Undecided(op)  # infinity
        if op == "add":
            return sum(args[1:], args[0])
        if op == "mul":
            return args[0] * args[1]
        if op == "div":
            return _finite(args[0] / args[1], args[1])
        if op == "pow":
            return self._power(step, *args)
        if op == "root":
            return _root(args[0], self._rational(step.args[1]))
        if op in ("factorial", "factorial2", "binomial"):
            return self._combinatorial(op, args)
        if op in _EXPONENTIAL:
            self.extent += _exponential_extent(args[0])
        return _function(op, args[0])

    def _rational(self, place: int) -> fmpq | None:
        return self.program.steps[place].value

    def _power(self, step: Step, base: Ball, exponent: Ball) -> Ball:
        size = float(exponent.abs_upper())
        if not size * max(_extent(base), 1.0) <= _MAX_MAGNITUDE:
            raise Undecided("a power out of range")
        if self.program.steps[step.args[0]].op == "e":
            self.extent += _exponential_extent(exponent)
            return exponent.exp()
        written = self._rational(step.args[1])
        whole = int(written.p) if written is not None and written.q == 1 else _exact_whole(exponent)
        if whole is not None:
            if whole == 0 and base.contains(0):
                raise _Unresolved("a power of zero")
            return _finite(base**whole, base)
        if isinstance(base, acb) or isinstance(exponent, acb):
            self.real = False
            return _finite(acb(base) ** exponent, base)
        if base > 0:
            return base**exponent
        if base.is_zero() and exponent > 0:
            return arb(0)
        if base < 0 and written is not None and written.q == 2:
            self.real = False
            return acb(base).sqrt() ** int(written.p)
        raise Undecided("a root of a negative number") if base < 0 else _Unresolved("a power of zero")

    def _combinatorial(self, op: str, args: list[Ball]) -> Ball:
        whole = [_exact_whole(arg) for arg in args]
        if None not in whole:
            try:
                return arb(exact.combinatorial(op, [fmpq(value) for value in whole if value is not None]))
            except Undecided:
                pass  # a negative or a large number: by the gamma function
        if op == "factorial2" or any(not abs(arg) < _MAX_ARGUMENT for arg in args):
            raise Undecided(f"{op} out of range")
        spend(5 * _dear(ctx.prec))
        if op == "factorial":
            return _finite((args[0] + 1).gamma(), args[0])
        upper, lower = args
        chosen = whole[1]
        if chosen is not None and 0 <= chosen <= 50:
            return math.prod(((upper - k) / (k + 1) for k in range(chosen)), start=arb(1))
        return _finite((upper + 1).gamma() * (lower + 1).rgamma() * (upper - lower + 1).rgamma(), upper)


def equal_at(program: Program, point: Point) -> tuple[bool, bool]:
    """Whether the program's two trees have one value at a point, and whether all that has cuts was real there.

    Raises Undecided where a value is not defined, or for more work or precision than is granted.
    """
    precision, rounds = _START_BITS, 0
    with _lock, _restored_precision():
        while precision <= _MAX_BITS:
            ctx.prec = precision
            _charge(program, precision)
            try:
                run = _Run(program, point)
            except _Unresolved:
                if rounds == _UNRESOLVED_ROUNDS:
                    raise
                precision, rounds = 3 * precision, rounds + 1
                continue
            left, right = run.results
            gap = left - right
            if not gap.contains(0):
                return False, run.real
            needed = _GUARD_BITS + 2 * run.extent
            reached = -_upper_magnitude(gap)
            if reached >= needed:
                return True, run.real
            precision += max(int(min(needed - reached, 2.0 * _MAX_BITS)) + 32, precision // 2)
    raise Undecided("a difference too small to tell")


def real_value(program: Program) -> Fraction | None:
    """The value of a constant tree to about 50 digits, or None when it is not real. Raises Undecided."""
    with _lock, _restored_precision():
        ctx.prec = 2 * _START_BITS
        _charge(program, ctx.prec)
        ball = _Run(program, {}).results[0]
        if isinstance(ball, acb):
            if not ball.imag.contains(0):
                return None
            ball = ball.real
        if ball.rel_accuracy_bits() < _START_BITS:
            raise Undecided("a value that cancels")
        mantissa, exponent = ball.mid().man_exp()
        return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


class _restored_precision:
    """FLINT's precision as it was, afterwards."""

    def __enter__(self) -> None:
        self.before = ctx.prec

    def __exit__(self, *_: object) -> None:
        ctx.prec = self.before


def _charge(program: Program, precision: int) -> None:
    dear = sum(step.op not in _CHEAP for step in program.steps)
    spend(4 * len(program.steps) + dear * _dear(precision))


def _dear(precision: int) -> float:
    """Microseconds of an elementary function at a precision in bits."""
    return 3.0 * max(precision / 256, 1.0) ** 1.6


def _function(op: str, argument: Ball) -> Ball:
    if isinstance(argument, arb):
        if op in _REAL:
            return _finite(_REAL[op](argument), argument)
        if op == "sqrt" and argument >= 0:
            return argument.sqrt()
        if op == "ln" and argument > 0:
            return argument.log()
        if op in ("arcsin", "arccos") and argument >= -1 and argument <= 1:
            return argument.asin() if op == "arcsin" else argument.acos()
    elif op in ("floor", "ceil"):
        raise Undecided(f"{op} of a complex number")
    if op == "ln" and argument.is_zero():
        raise Undecided("a logarithm of zero")
    return _finite(_COMPLEX[_known(op)](acb(argument)), argument)


def _known(op: str) -> str:
    if op not in _COMPLEX:
        raise Undecided(op)
    return op


def _root(radicand: Ball, degree: fmpq | None) -> Ball:
    """\\sqrt[n] for an odd n: the real root of a real number, the principal one of a complex number."""
    if degree is None or not 1 <= degree <= 1_000:
        raise Undecided("a root of high degree")
    order = int(degree.p)
    if isinstance(radicand, acb) or radicand >= 0:
        return radicand.root(order)
    if not radicand < 0:
        raise _Unresolved("a root of about zero")
    return -(-radicand).root(order)


def _whole(ball: Ball) -> Ball:
    """The ball, when it lies within one step of floor and ceil."""
    if not isinstance(ball, arb) or not (ball.is_exact() or not ball.contains_integer()):
        raise _Unresolved("at a step")
    return ball


def _exact_whole(ball: Ball) -> int | None:
    """The value of a ball without width that is a whole number."""
    found = ball.unique_fmpz() if isinstance(ball, arb) and ball.is_exact() and ball.is_integer() else None
    return None if found is None else int(found)


def _finite(ball: Ball, argument: Ball) -> Ball:
    if ball.is_finite():
        return ball
    if argument.is_zero():
        raise Undecided("a pole")
    raise _Unresolved("about a pole")


def _extent(ball: Ball) -> float:
    """Bits between 1 and the value's magnitude, of both parts of a complex one; 0 for what may be zero.

    Raises Undecided for magnitudes beyond 2**100000."""
    if isinstance(ball, acb):
        return _extent(ball.real) + _extent(ball.imag)
    if ball.contains(0):
        return 0.0
    size = abs(_magnitude(ball))
    if size > _MAX_MAGNITUDE:
        raise Undecided("a magnitude out of range")
    return size


def _magnitude(ball: Ball) -> float:
    value = abs(float(ball))
    if 1e-300 < value < 1e300:
        return float(math.frexp(value)[1])
    mantissa, exponent = ball.mid().man_exp()
    return float(int(mantissa).bit_length() + int(exponent))


def _upper_magnitude(ball: Ball) -> float:
    upper = ball.abs_upper()
    return -math.inf if upper.is_zero() else _magnitude(upper)


def _exponential_extent(argument: Ball) -> float:
    """Bits of e^|argument|: how far sin, tanh and their like may come to a limit. Raises Undecided for huge ones."""
    size = float(argument.abs_upper())
    if not 1.45 * size <= _MAX_MAGNITUDE:
        raise Undecided("a function of a large argument")
    return 1.45 * size
