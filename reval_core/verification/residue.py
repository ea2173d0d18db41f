"""Exact identity of rational functions by their values in a finite field (Schwartz 1980, Zippel 1979).

Every symbol, and pi and e, which no rational relation ties to anything, becomes a random residue modulo a random
prime of about 90 bits; i and square roots of rational numbers become roots in the field, which every relation between
them survives. Equal functions have equal residues, different ones differ but for a chance below 10^-20: no precision,
no magnitude. Prime and residues are drawn from the system's entropy when the process starts.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from functools import lru_cache

from flint import fmpq, fmpz

from reval_core.verification import exact
from reval_core.verification.budget import spend
from reval_core.verification.program import Program, Step
from reval_core.verification.tree import Undecided

_SQUARES = (2, 3, 5, 7, 11, 13, 17, 19, 23)
_MAX_EXPONENT = 1_000_000
_SMALL_PRIMES = tuple(n for n in range(2, 1_000) if all(n % d for d in range(2, math.isqrt(n) + 1)))


def values(program: Program) -> list[int]:
    """The residues of a program's trees. Raises Undecided outside the field, and at a division by zero."""
    found: list[int] = []
    for step in program.steps:
        found.append(_residue(step, [found[arg] for arg in step.args], program))
    return [found[place] for place in program.roots]


def _residue(step: Step, args: list[int], program: Program) -> int:
    op = step.op
    if op == "number":
        assert step.value is not None
        return _of_rational(step.value)
    if op == "add":
        return sum(args) % _PRIME
    if op == "neg":
        return -args[0] % _PRIME
    if op == "mul":
        return args[0] * args[1] % _PRIME
    if op == "div":
        return args[0] * _inverse(args[1]) % _PRIME
    if op == "pow":
        return _power(args[0], step, program)
    if op == "symbol":
        return _random("symbol " + step.name)
    if op == "sqrt":
        return _square_root(_rational(step.args[0], program))
    if op == "degrees":
        return args[0] * _random("pi") * _inverse(180) % _PRIME
    if op in ("pi", "e"):
        return _random(op)
    if op == "i":
        return _root_of_unit()
    if op in ("factorial", "factorial2", "binomial"):
        return int(exact.combinatorial(op, [_rational(arg, program) for arg in step.args])) % _PRIME
    raise Undecided(f"{op} is not rational")


def _power(base: int, step: Step, program: Program) -> int:
    exponent = _rational(step.args[1], program)
    spend(5)
    if exponent.q == 2:
        base, exponent = _square_root(_rational(step.args[0], program)), fmpq(exponent.p)
    if exponent.q != 1 or abs(exponent) > _MAX_EXPONENT:
        raise Undecided("a power that is not whole")
    power = int(exponent.p)
    if base == 0 and power <= 0:
        raise Undecided("a power of zero")
    return pow(base, power, _PRIME)


def _rational(place: int, program: Program) -> fmpq:
    value = program.steps[place].value
    if value is None:
        raise Undecided("not a rational number")
    return value


def _of_rational(value: fmpq) -> int:
    if value.q == 1:
        return int(value.p) % _PRIME
    return int(value.p) * _inverse(int(value.q)) % _PRIME


def _inverse(value: int) -> int:
    if value % _PRIME == 0:
        raise Undecided("division by zero")
    spend(3)
    return pow(value, -1, _PRIME)


@lru_cache(maxsize=256)
def _random(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), key=_SECRET, digest_size=24).digest()) % _PRIME


def _square_root(value: fmpq) -> int:
    """The root of a rational number as a product of the roots of its primes, so that sqrt2 sqrt3 is sqrt6."""
    if exact.bits(value) > 500:
        raise Undecided("a long radicand")
    rest = abs(int(value.p) * int(value.q))
    spend(50)
    root = _root_of_unit() if value < 0 else 1
    for prime in _SMALL_PRIMES:
        if prime * prime > rest:
            break
        while rest % (prime * prime) == 0:
            rest //= prime * prime
            root = root * prime % _PRIME
        if rest % prime == 0:
            rest //= prime
            root = root * _prime_root(prime) % _PRIME
    whole = math.isqrt(rest)
    if whole * whole == rest:
        root = root * whole % _PRIME
    elif rest < _SMALL_PRIMES[-1] ** 2:
        root = root * _prime_root(rest) % _PRIME
    else:
        raise Undecided("a radicand with unknown primes")
    return root * _inverse(int(value.q)) % _PRIME


@lru_cache(maxsize=256)
def _prime_root(prime: int) -> int:
    if fmpz(prime % _PRIME).jacobi(_PRIME) != 1:
        raise Undecided("no such root in the field")
    return int(fmpz(prime).sqrtmod(_PRIME))


def _root_of_unit() -> int:
    return _prime_root(-1)


def _draw() -> int:
    """A prime p with square roots of -1 and of every prime up to 23, and a large prime in p - 1.

    p = 1 modulo 8 and each of those primes, so each is a square by reciprocity; powers cannot wrap round in a small
    group."""
    step = 8 * math.prod(_SQUARES[1:])
    while True:
        cofactor = secrets.randbits(60) | 1 << 59
        prime = step * cofactor + 1
        if fmpz(prime).is_prime() and fmpz(cofactor).is_prime():
            return prime


_SECRET = secrets.token_bytes(32)
_PRIME = _draw()
