"""Sets of real numbers as sorted spans: unions, intersections and complements of intervals with constant ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cmp_to_key

from reval_core.verification import numeric
from reval_core.verification.parser import parse
from reval_core.verification.tree import Apply, Node, Undecided, symbols
from reval_core.verification.verdict import GradingPolicy

_INFINITY = Apply("infinity")
_EXACT = GradingPolicy()
_MOST = 60


@dataclass(frozen=True, slots=True)
class End:
    """An end of a span: its text and tree, and whether it belongs to the span."""

    text: str
    node: Node
    closed: bool

    @property
    def infinite(self) -> int:
        """-1 or 1 for an infinite end, 0 for a finite one."""
        if self.node == _INFINITY:
            return 1
        return -1 if self.node == Apply("neg", (_INFINITY,)) else 0


@dataclass(frozen=True, slots=True)
class Span:
    """All numbers from `low` to `high`; a point where both are one closed end."""

    low: End
    high: End


def end(text: str, closed: bool) -> End:
    """An end out of the text of a constant. Raises Undecided for anything else."""
    node = parse(text)
    if symbols(node):
        raise Undecided("an end that is not constant")
    return End(text, node, closed and node not in (_INFINITY, Apply("neg", (_INFINITY,))))


def point(text: str) -> Span:
    """The span of one number."""
    return Span(end(text, True), end(text, True))


def everything() -> Span:
    """All real numbers."""
    return Span(end("-\\infty", False), end("\\infty", False))


def union(spans: Iterable[Span]) -> list[Span]:
    """The same numbers as sorted spans that neither overlap nor touch. Raises Undecided."""
    ordered = sorted(spans, key=cmp_to_key(_by_low))
    if len(ordered) > _MOST:
        raise Undecided("too many spans")
    merged: list[Span] = []
    for span in ordered:
        if _empty(span):
            continue
        if merged and _touch(merged[-1].high, span.low):
            if _compare(merged[-1].high, span.high) <= 0:
                merged[-1] = Span(merged[-1].low, _wider(merged[-1].high, span.high))
        else:
            merged.append(span)
    return merged


def intersection(left: Sequence[Span], right: Sequence[Span]) -> list[Span]:
    """The numbers that are in both. Raises Undecided."""
    found = []
    for one in left:
        for other in right:
            low = one.low if _compare(one.low, other.low) > 0 else other.low
            high = one.high if _compare(one.high, other.high) < 0 else other.high
            if _compare(one.low, other.low) == 0:
                low = End(low.text, low.node, one.low.closed and other.low.closed)
            if _compare(one.high, other.high) == 0:
                high = End(high.text, high.node, one.high.closed and other.high.closed)
            found.append(Span(low, high))
    return union(found)


def without(spans: Sequence[Span], removed: Sequence[Span]) -> list[Span]:
    """The numbers of the first that are not in the second. Raises Undecided."""
    rest = list(spans)
    for gap in union(removed):
        pieces = []
        for low, high in ((everything().low, _turned(gap.low)), (_turned(gap.high), everything().high)):
            if low.infinite != high.infinite or not low.infinite:
                pieces.append(Span(low, high))
        rest = intersection(rest, pieces)
    return rest


def equal(left: Sequence[Span], right: Sequence[Span]) -> bool:
    """Whether two unions (of `union`) are the same numbers. Raises Undecided."""
    if len(left) != len(right):
        return False
    pairs = [
        pair for one, other in zip(left, right, strict=True) for pair in ((one.low, other.low), (one.high, other.high))
    ]
    return all(one.closed == other.closed and _compare(one, other) == 0 for one, other in pairs)


def _turned(side: End) -> End:
    return End(side.text, side.node, not side.closed and not side.infinite)


def _by_low(left: Span, right: Span) -> int:
    return _compare(left.low, right.low) or right.low.closed - left.low.closed


def _empty(span: Span) -> bool:
    order = _compare(span.low, span.high)
    return order > 0 or (order == 0 and not (span.low.closed and span.high.closed))


def _touch(high: End, low: End) -> bool:
    order = _compare(low, high)
    return order < 0 or (order == 0 and (low.closed or high.closed))


def _wider(one: End, other: End) -> End:
    if _compare(one, other) == 0:
        return End(one.text, one.node, one.closed or other.closed)
    return one if _compare(one, other) > 0 else other


def _compare(left: End, right: End) -> int:
    """-1, 0 or 1 as the first is smaller, equal or larger. Raises Undecided."""
    if left.infinite or right.infinite:
        return (left.infinite > right.infinite) - (left.infinite < right.infinite)
    if numeric.equal(left.node, right.node, _EXACT):
        return 0
    return -1 if numeric.less(left.node, right.node) else 1
