"""Whether two scalar expressions are the same function: exactly where they are rational, else at random points.

Rational functions (with pi, e, i and square roots of numbers) are compared in a finite field: sure both ways. All
others are compared by balls with proved bounds at points from the system's entropy. Functions without cuts and kinks
are equal everywhere when they are equal at one such point. Where roots, logarithms, absolute values, inverse functions
or steps occur, real points of both signs, of many magnitudes and beside every number of the text decide, and only
those where both sides are real count: different at one with positive variables is False. Different for negative
variables alone is Undecided, as is what costs too much. So is what differs on the complex plane when not all of the
real line is in the domain, as 2 ln x and ln x^2 do; several variables that may all be positive, as in ln(x/y) and
ln x - ln y, are taken to be so. A decimal within an expression is exact; only a lone literal may be a rounded value.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations

from flint import fmpq

from reval_core.verification import ball, exact, residue
from reval_core.verification.budget import Exhausted, allowance
from reval_core.verification.parser import LOG_OF_BASE
from reval_core.verification.program import Program, compiled, renamed
from reval_core.verification.tree import Apply, Node, Number, Undecided, leaves, replaced, symbols
from reval_core.verification.verdict import GradingPolicy

_WORK = 25_000  # microseconds
_GENERIC_POINTS = 2
_LEAST_POINTS = 4
_MAX_TURNED = 5  # variables that are put on the other side of the real line alone
_MAX_CHOICES = 4  # variables of which every choice is put there
_SCALES = range(-3, 7)  # powers of ten
_MAX_CONSTANTS = 8
_STEPS = frozenset({"floor", "ceil"})
_COMBINATORIAL = frozenset({"factorial", "factorial2", "binomial"})
_WHOLE_NUMBERED = _STEPS | _COMBINATORIAL
_LARGEST_FACTORIAL = 60
_NOT_ANALYTIC = _STEPS | {"abs", "conjugate", "factorial2"}
_COMPLEX_NAMES = frozenset({"z", "w"})

_LOGS = (Apply("ln", (Number(Fraction(10)),)), Number(Fraction(1)))
_OTHER = "\0"  # in no name that the parser makes

_random = random.SystemRandom()


def equal(gold: Node, answer: Node, policy: GradingPolicy) -> bool:
    """Whether two scalar trees have the same value. Raises Undecided when that cannot be said.

    A decimal literal against a value that no decimal can write follows `policy.rounded_digits`.
    """
    if gold == answer:
        return True
    if LOG_OF_BASE in leaves(gold) or LOG_OF_BASE in leaves(answer):
        return _equal_in_both_bases(gold, answer, policy)
    with allowance(_WORK):
        if not symbols(gold) and not symbols(answer):
            if policy.relative_tolerance > 0 and _within(gold, answer, policy.relative_tolerance):
                return True
            if exact.is_decimal(gold) != exact.is_decimal(answer):
                literal, value = (gold, answer) if exact.is_decimal(gold) else (answer, gold)
                return _shows(literal, value, policy)
        return _same(gold, answer)


def shows_digits_of(fewer: Node, more: Node, policy: GradingPolicy) -> bool:
    """Whether one decimal is another, of which further digits are known, rounded or cut. Raises Undecided."""
    return _rounds_to(fewer, exact.rational(more), policy)


def _equal_in_both_bases(gold: Node, answer: Node, policy: GradingPolicy) -> bool:
    """Whether two trees with \\log are equal whatever its base, 10 or e. Raises Undecided where that depends on it."""
    verdicts = {equal(replaced(gold, LOG_OF_BASE, log), replaced(answer, LOG_OF_BASE, log), policy) for log in _LOGS}
    if len(verdicts) > 1:
        raise Undecided("equal in one base of the logarithm only")
    return verdicts.pop()


def proportional(left: Node, right: Node) -> bool:
    """Whether left = c * right for one constant c other than 0: equations with the same solutions.

    That is left(x) right(y) = left(y) right(x) for independent x and y. Raises Undecided.
    """
    with allowance(_WORK):
        if _vanishes(left) or _vanishes(right):
            raise Undecided("an equation that always holds")
        crossed = [Apply("mul", (a, renamed(b, _OTHER))) for a, b in ((left, right), (right, left))]
        return _same(*crossed)


def less(left: Node, right: Node) -> bool:
    """Whether one real constant is smaller than another. Raises Undecided for what is not real or not constant."""
    with allowance(_WORK):
        first, second = _real(left), _real(right)
    return first < second


def within(left: Node, right: Node, tolerance: float) -> bool:
    """Whether two real constants are within a relative distance of the first. Raises Undecided."""
    with allowance(_WORK):
        first, second = _real(left), _real(right)
    return abs(first - second) <= Fraction(tolerance) * abs(first)


def _real(node: Node) -> Fraction:
    value = None if symbols(node) else _constant(node)
    if value is None:
        raise Undecided("no real constant")
    return value


def _vanishes(node: Node) -> bool:
    return _same(node, Number(Fraction(0)))


def _same(gold: Node, answer: Node) -> bool:
    program = compiled(gold, answer)
    first, second = (program.steps[root] for root in program.roots)
    if first is second or first.op == second.op == "number":
        return first is second
    try:
        left, right = residue.values(program)
    except Undecided:
        pass
    else:
        return left == right
    if not program.names:
        return ball.equal_at(program, {})[0]
    branching = program.branching()
    return _equal_with_branches(program, branching) if branching else _equal_analytic(program)


def _equal_analytic(program: Program) -> bool:
    """Meromorphic on the whole plane: equal at a random point is equal everywhere."""
    return all(ball.equal_at(program, _generic(program.names))[0] for _ in range(_GENERIC_POINTS))


def _equal_with_branches(program: Program, branching: frozenset[str]) -> bool:
    counted, apart, everywhere, where_positive = 0, False, True, True
    for point, positive, decisive in _real_points(program, branching):
        try:
            same, real = ball.equal_at(program, point)
        except Exhausted:
            raise
        except Undecided:
            everywhere, where_positive = False, where_positive and not positive
            continue  # not defined there, or too large
        if not real:
            everywhere, where_positive, apart = False, where_positive and not positive, apart or not same
            continue
        if not same and (positive or "abs" in branching) and decisive:
            return False
        if not same:
            raise Undecided("equal for positive values only" if not positive else "equal for whole numbers only")
        counted += 1
    if len(program.kinks()) > _MAX_CONSTANTS:
        raise Undecided("too many numbers beside which the functions may branch")
    if counted < _LEAST_POINTS:
        raise Undecided("too few points where both are real")
    if "abs" in branching and _COMPLEX_NAMES & set(program.names):
        _compare_off_the_line(program)
    elif (everywhere and not branching & _COMBINATORIAL) or "alternating" in branching:
        return True
    elif apart and branching & _NOT_ANALYTIC:  # ln|x| and ln x, say
        raise Undecided("equal where both are real, different elsewhere")
    elif not branching & _NOT_ANALYTIC and not (where_positive and len(program.names) > 1):
        _compare_off_the_line(program)
    return True


def _compare_off_the_line(program: Program) -> None:
    """Raise Undecided where the values differ at complex points on both sides of every cut.

    All real parts are negative, so that products, squares and quotients of variables cross the cuts of sqrt and ln.
    """
    names = program.names[:_MAX_TURNED]
    above = [frozenset[str](), frozenset(program.names)]
    above += [side for name in names for side in (frozenset([name]), frozenset(program.names) - {name})]
    for upper in dict.fromkeys(above):
        point = {
            name: (-size, _coordinate(_ordinary(), whole=False) * (1 if name in upper else -1))
            for name, size in _generic(program.names).items()
        }
        if not ball.equal_at(program, point)[0]:
            raise Undecided("equal on the real line, different on the complex plane")


def _real_points(program: Program, branching: frozenset[str]) -> Iterator[tuple[ball.Point, bool, bool]]:
    """(point, whether all of it is positive, whether a difference there counts), positive points first.

    Steps are compared at whole numbers, where sequences live, and then between them: a difference there
    is not decisive.
    """
    names = program.names
    whole = frozenset(names) if branching & _WHOLE_NUMBERED else program.alternating()
    sizes = _sizes(program)
    signs: tuple[int, ...] = (1, -1)
    if branching & _COMBINATORIAL:
        sizes = [Fraction(n) for n in range(1, 9)] + [size for size in sizes if size <= _LARGEST_FACTORIAL]
    if branching <= _COMBINATORIAL | {"alternating"}:  # below 0 they have poles
        sizes, signs = [Fraction(n) for n in dict.fromkeys(max(round(size), 1) for size in sizes)], (1,)
    rounds = [(True, whole)] + ([(False, frozenset())] if branching & _STEPS else [])
    for decisive, rounded in rounds:
        for sign in signs:
            columns = {name: _random.sample(sizes, len(sizes)) for name in names}
            below_zero = _some_below_zero(names)
            for row in range(len(sizes)):
                point = {name: _coordinate(columns[name][row], name in rounded) for name in names}
                if sign < 0:
                    flipped = next(below_zero)
                    point = {name: -value if name in flipped else value for name, value in point.items()}
                yield point, sign > 0, decisive


def _some_below_zero(names: list[str]) -> Iterator[frozenset[str]]:
    """Which variables are negative: of few every choice in turn, again and again; of many each alone, then any."""
    if len(names) <= _MAX_CHOICES:
        choices = [frozenset(some) for size in range(len(names)) for some in combinations(names, size + 1)]
        while True:
            yield from _random.sample(choices, len(choices))
    yield from (frozenset([name]) for name in names[:_MAX_TURNED])
    while True:
        yield frozenset(name for name in names if _random.random() < 0.5) or frozenset(names)


def _sizes(program: Program) -> list[Fraction]:
    """Positive numbers of every magnitude, and beside each number that a branch may lie at, on both sides."""
    sizes = [_between(Fraction(1, 2), Fraction(5, 2)) for _ in range(3)]
    sizes += [_below_one() for _ in range(4)]
    sizes += [_between(Fraction(10) ** scale, Fraction(10) ** (scale + 1)) for scale in _SCALES]
    sizes += [Fraction(_random.randrange(2, 60)) + _between(Fraction(0), Fraction(1)) for _ in range(6)]
    constants = program.kinks()[:_MAX_CONSTANTS]
    for value in constants:
        size = Fraction(int(value.p), int(value.q))
        for distance in (size / 1000, size * _between(Fraction(1, 20), Fraction(9, 20)), _below_one()):
            sizes += [size + distance, abs(size - distance)]
    for quotient in {a / b for a in constants for b in constants if b != 1} - set(constants):
        size = Fraction(int(quotient.p), int(quotient.q))
        sizes += [size * Fraction(1001, 1000), size * Fraction(999, 1000)]
    return sizes


def _below_one() -> Fraction:
    return _between(Fraction(1, 20), Fraction(19, 20))


def _between(low: Fraction, high: Fraction) -> Fraction:
    return low + (high - low) * Fraction(_random.getrandbits(64) | 1, 2**64)


def _coordinate(size: Fraction, whole: bool) -> fmpq:
    """The size rounded to a whole number, or to a dyadic one, which a ball holds exactly."""
    scale = 1 if whole else 2**80
    return fmpq(max(round(size * scale), 1), scale)


def _generic(names: list[str]) -> dict[str, fmpq]:
    return {name: _coordinate(_ordinary(), whole=False) for name in names}


def _ordinary() -> Fraction:
    return _between(Fraction(1, 2), Fraction(2))


def _shows(literal: Node, value: Node, policy: GradingPolicy) -> bool:
    """Whether a decimal literal is the value of a constant, or that value rounded when no decimal can write it."""
    shown = exact.rational(literal)
    try:
        rational = exact.rational(value)
    except Undecided:
        if _same(literal, value):
            return True
        real = ball.real_value(compiled(value))
        return real is not None and _rounds_to(literal, real, policy)
    return shown == rational or (not _terminates(rational) and _rounds_to(literal, rational, policy))


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
    if shown * value <= 0:
        return False
    gap = abs(value) - abs(shown)
    # cut off, or rounded; 4e-16: digits printed beyond double precision need not be right
    return 0 <= gap < unit or abs(gap) <= unit / 2 or abs(gap) < abs(value) * Fraction(4, 10**16)


def _within(gold: Node, answer: Node, tolerance: float) -> bool:
    left, right = _constant(gold), _constant(answer)
    return left is not None and right is not None and abs(left - right) <= Fraction(tolerance) * abs(left)


def _constant(node: Node) -> Fraction | None:
    try:
        return exact.rational(node)
    except Undecided:
        return ball.real_value(compiled(node))


def _terminates(value: Fraction) -> bool:
    """Whether the value can be written as a decimal."""
    bottom = value.denominator
    for prime in (2, 5):
        while bottom % prime == 0:
            bottom //= prime
    return bottom == 1
