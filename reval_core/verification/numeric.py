"""Identity of scalar expressions by their values at random points, confirmed at 50 digits.

The points come from the system's entropy, so no policy can learn them. Values are taken at positive
real points (what school algebra means by sqrt(x)) and at complex points (where an identity of analytic
functions cannot hide). Equal everywhere: True. Different at a real point: False. Equal at the real
points and different at the complex ones: undecided, left to the symbolic tier.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import mpmath

from reval_core.verification import exact
from reval_core.verification.parser import Apply, Node, Number, Symbol, Undecided, leaves, symbols
from reval_core.verification.verdict import GradingPolicy

DIGITS = 50
_WORKING_DIGITS = 70
_REAL_POINTS = 2
_STEPS = frozenset({"floor", "ceil"})
_STEP_POINTS = 24
_MAX_MAGNITUDE = 100_000  # bits of exponent

_random = random.SystemRandom()
_mp = mpmath.MPContext()  # our own: mpmath's shared context has one precision for all threads
_mp.dps = _WORKING_DIGITS
_lock = threading.RLock()  # mpmath memoises constants without one
MPC = Any  # a value of _mp: mpmath has no types
_Point = Mapping[str, MPC]


def equal(gold: Node, answer: Node, policy: GradingPolicy) -> bool:
    """Whether two scalar trees have the same value. Raises Undecided when that cannot be said.

    Rational values are compared exactly; a decimal literal against a value that no decimal can
    write follows `policy.rounded_digits`.
    """
    if gold == answer:
        return True
    names = symbols(gold) | symbols(answer)
    with _lock:
        if names:
            return _identical(gold, answer, names)
        return _equal_constants(gold, answer, policy)


def proportional(left: Node, right: Node) -> bool:
    """Whether left = c * right for one constant c other than 0: equations with the same solutions.

    Raises Undecided."""
    names = sorted(symbols(left) | symbols(right))
    ratios = []
    with _lock:
        for _ in range(3):
            point = _point(names, complex_plane=True)
            bottom = evaluate(right, point)
            if bottom == 0:
                raise Undecided("a zero")
            ratios.append(evaluate(left, point) / bottom)
    if ratios[0] == 0:
        return False
    return all(_close(ratios[0], ratio) for ratio in ratios[1:])


def evaluate(node: Node, point: _Point) -> MPC:
    """The value of a tree at a point, at mpmath's current precision.

    Raises Undecided for infinities, poles and magnitudes beyond 2**100000.
    """
    if isinstance(node, Number):
        return _mp.mpf(node.value.numerator) / node.value.denominator
    if isinstance(node, Symbol):
        return point[node.name]
    try:
        value = _apply(node.op, [evaluate(arg, point) for arg in node.args])
    except (ZeroDivisionError, ValueError, OverflowError) as error:
        raise Undecided(f"{node.op} is not defined there") from error
    size = abs(value)
    if not _mp.isfinite(size) or (size != 0 and abs(_mp.mag(size)) > _MAX_MAGNITUDE):
        raise Undecided("a magnitude out of range")
    return value


def _equal_constants(gold: Node, answer: Node, policy: GradingPolicy) -> bool:
    left, right = _rational(gold), _rational(answer)
    if left is not None and left == right:
        return True
    decimals = [exact.is_decimal(node) for node in (gold, answer)]
    if policy.relative_tolerance > 0 and _within(gold, answer, policy.relative_tolerance):
        return True
    if left is not None and right is not None:
        if decimals[0] and not decimals[1] and not _terminates(right):
            return _rounds_to(gold, right, policy)
        if decimals[1] and not decimals[0] and not _terminates(left):
            return _rounds_to(answer, left, policy)
        return False
    values = [evaluate(node, {}) for node in (gold, answer)]
    if (values[0] == 0) != (values[1] == 0):
        return _vanishes(answer if values[0] == 0 else gold)
    if _close(values[0], values[1]):
        return True
    if any(_has_decimal(node) for node in (gold, answer)):
        return _close_decimals(gold, answer, values, decimals, policy)
    return False


def _vanishes(node: Node) -> bool:
    """Whether a constant is zero: a residue of cancellation shrinks with precision, e^{-1000} does not."""
    coarse = abs(evaluate(node, {}))
    with _mp.workdps(2 * _WORKING_DIGITS):
        fine = abs(evaluate(node, {}))
    return bool(fine <= coarse * _mp.mpf(10) ** -30)


def _close_decimals(
    gold: Node,
    answer: Node,
    values: list[MPC],
    decimals: list[bool],
    policy: GradingPolicy,
) -> bool:
    """A decimal literal against an irrational value, or two expressions with decimals in them."""
    if decimals[0] != decimals[1]:
        literal, value = (gold, values[1]) if decimals[0] else (answer, values[0])
        if _mp.im(value) != 0:
            return False
        real = _mp.re(value)
        scale = 10**60
        return _rounds_to(literal, Fraction(int(_mp.nint(real * scale)), scale), policy)
    gap = abs(values[0] - values[1])
    return bool(gap <= _mp.mpf(10) ** -policy.rounded_digits * abs(values[0]))


def _rounds_to(literal: Node, value: Fraction, policy: GradingPolicy) -> bool:
    """Whether a decimal literal is `value` rounded or cut at the literal's own last digit."""
    sign = 1
    while isinstance(literal, Apply):
        literal, sign = literal.args[0], -sign
    if not isinstance(literal, Number) or literal.decimals is None:
        return False
    shown = sign * literal.value
    unit = Fraction(1, 10**literal.decimals)
    significant = len(str(abs(int(shown / unit)))) if shown else 0
    if max(literal.decimals, significant) < policy.rounded_digits or significant < 4:
        return False
    gap = abs(value) - abs(shown) if shown * value > 0 else unit
    # cut off, or rounded; 4e-16: digits printed beyond double precision need not be right
    return 0 <= gap < unit or abs(gap) <= unit / 2 or abs(gap) < abs(value) * Fraction(4, 10**16)


def _identical(gold: Node, answer: Node, names: frozenset[str]) -> bool:
    used = {leaf.op for node in (gold, answer) for leaf in leaves(node) if isinstance(leaf, Apply)}
    if used & _STEPS:
        return _identical_steps(gold, answer, sorted(names))
    tolerance = 12 if _has_float(gold) != _has_float(answer) else DIGITS
    ordered = sorted(names)
    for _ in range(_REAL_POINTS):
        point = _point(ordered, complex_plane=False)
        if not _close(evaluate(gold, point), evaluate(answer, point), tolerance):
            return False
    if "abs" in used:
        point = {name: -value for name, value in _point(ordered, complex_plane=False).items()}
        if not _close(evaluate(gold, point), evaluate(answer, point), tolerance):
            raise Undecided("equal for positive values only")
        return True
    first = _point(ordered, complex_plane=True)
    for point in (first, {name: -value for name, value in first.items()}):  # both sides of every branch cut
        if not _close(evaluate(gold, point), evaluate(answer, point), tolerance):
            raise Undecided("equal for positive values, different on the complex plane")
    return True


def _identical_steps(gold: Node, answer: Node, names: list[str]) -> bool:
    """floor and ceil are constant nearly everywhere: many points, and wide apart, whole numbers first."""
    for scale in [1] * _STEP_POINTS + [1000] * _STEP_POINTS:
        point = {name: _mp.mpf(_random.randrange(2 * scale, 60 * scale)) / scale for name in names}
        if not _close(evaluate(gold, point), evaluate(answer, point)):
            if scale == 1:
                return False
            raise Undecided("equal for whole numbers, different between them")
    return True


def _point(names: list[str], *, complex_plane: bool) -> dict[str, MPC]:
    def coordinate() -> MPC:
        return _mp.mpf(_random.getrandbits(100)) / 2**99 + _mp.mpf(1) / 2  # [0.5, 2.5)

    if not complex_plane:
        return {name: coordinate() for name in names}
    signs = (-1, 1)
    return {name: _mp.mpc(_random.choice(signs) * coordinate(), _random.choice(signs) * coordinate()) for name in names}


def _close(left: MPC, right: MPC, digits: int = DIGITS) -> bool:
    size = max(abs(left), abs(right))
    gap = abs(left - right)
    if size == 0:
        return True
    if left == 0 or right == 0:  # cancellation leaves a residue, not an exact zero
        return bool(gap < _mp.mpf(10) ** -60)
    return bool(gap <= size * _mp.mpf(10) ** -digits)


def _within(gold: Node, answer: Node, tolerance: float) -> bool:
    left, right = evaluate(gold, {}), evaluate(answer, {})
    return bool(abs(left - right) <= tolerance * abs(left))


def _rational(node: Node) -> Fraction | None:
    try:
        return exact.rational(node)
    except Undecided:
        return None


def _terminates(value: Fraction) -> bool:
    """Whether the value can be written as a decimal."""
    bottom = value.denominator
    for prime in (2, 5):
        while bottom % prime == 0:
            bottom //= prime
    return bottom == 1


def _has_decimal(node: Node) -> bool:
    return any(isinstance(leaf, Number) and leaf.decimals is not None for leaf in leaves(node))


def _has_float(node: Node) -> bool:
    """Whether a literal has so many decimals that it stands for a rounded value."""
    return any(isinstance(leaf, Number) and (leaf.decimals or 0) >= 12 for leaf in leaves(node))


def _apply(op: str, args: list[MPC]) -> MPC:
    first = args[0] if args else _mp.mpf(0)
    if op == "add":
        return _mp.fsum(args)
    if op == "pow":
        return _power(first, args[1])
    if op in ("factorial", "binomial"):
        return _combinatorial(op, args)
    if op in ("floor", "ceil"):
        return (_mp.floor if op == "floor" else _mp.ceil)(_mp.re(first))
    if op == "infinity":
        raise Undecided("infinity")
    if op in ("sin", "cos", "tan", "cot", "sec", "csc", "exp", "sinh", "cosh", "tanh") and abs(first) > 10**6:
        raise Undecided(f"{op} of a large argument")
    simple = {
        "neg": lambda: -first,
        "mul": lambda: first * args[1],
        "div": lambda: first / args[1],
        "abs": lambda: abs(first),
        "degrees": lambda: first * _mp.pi / 180,
        "pi": lambda: +_mp.pi,
        "e": lambda: +_mp.e,
        "i": lambda: _mp.mpc(0, 1),
        "arcsin": lambda: _mp.asin(first),
        "arccos": lambda: _mp.acos(first),
        "arctan": lambda: _mp.atan(first),
        "ln": lambda: _mp.log(first),
    }
    if op in simple:
        return simple[op]()
    return getattr(_mp, op)(first)


def _power(base: MPC, exponent: MPC) -> MPC:
    size = _mp.mag(base) if base != 0 else 0
    if abs(exponent) > 10_000 or abs(exponent) * max(abs(size), 1) > _MAX_MAGNITUDE:
        raise Undecided("a power out of range")
    if _mp.im(base) == 0 and _mp.re(base) < 0 and _mp.im(exponent) == 0:
        third = _mp.re(exponent)
        if third != int(third):
            raise Undecided("a root of a negative number")
    return _mp.power(base, exponent)


def _combinatorial(op: str, args: list[MPC]) -> MPC:
    if any(abs(arg) > 10_000 for arg in args):
        raise Undecided(f"{op} out of range")
    if op == "factorial":
        return _mp.factorial(args[0])
    return _mp.binomial(args[0], args[1])


def less(left: Node, right: Node) -> bool:
    """Whether one real constant is smaller than another. Raises Undecided for what is not real."""
    with _lock:
        values = [evaluate(node, {}) for node in (left, right)]
    if any(_mp.im(value) != 0 for value in values):
        raise Undecided("no order of complex numbers")
    return bool(_mp.re(values[0]) < _mp.re(values[1]))


def within(left: Node, right: Node, tolerance: float) -> bool:
    """Whether two constants are within a relative distance of each other. Raises Undecided."""
    if symbols(left) or symbols(right):
        raise Undecided("not constant")
    with _lock:
        return _within(left, right, tolerance)
