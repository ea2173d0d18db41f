"""Trees as programs: one flat list of steps without repeats, rational parts already worked out.

A program is run once for each test point, by `residue` in a finite field or by `ball` with error bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from flint import fmpq

from reval_core.verification import exact
from reval_core.verification.budget import spend
from reval_core.verification.tree import Apply, Node, Number, Symbol, Undecided

_MAX_BITS = 4_000  # of a rational that is worked out beforehand
_INVERSES = frozenset(["sqrt", "root", "ln", "arcsin", "arccos", "arctan"])
_BRANCHING = _INVERSES | {"abs", "floor", "ceil", "conjugate", "factorial", "factorial2", "binomial"}


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on the results of earlier steps."""

    op: str
    """Of the parser's operations, or `number` or `symbol`."""
    args: tuple[int, ...] = ()
    value: fmpq | None = None
    """Of a number."""
    name: str = ""
    """Of a symbol."""
    names: frozenset[str] = frozenset()
    """Every symbol that it depends on."""


@dataclass
class Program:
    """Steps in the order in which they can be run; `roots` are the places of the trees' results."""

    steps: list[Step] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    _places: dict[tuple[object, ...], int] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The symbols, sorted."""
        return sorted({step.name for step in self.steps if step.op == "symbol"})

    def branching(self) -> frozenset[str]:
        """Operations on symbols with a cut, a kink or a jump: two such functions may agree on a part of the line.

        `pow` stands for a power that is not whole, `alternating` for one of a negative number.
        """
        return frozenset(name for step in self.steps if step.names and (name := self._branch(step)))

    def alternating(self) -> frozenset[str]:
        """The symbols that are whole numbers because a negative number is raised to them: n in (-1)^n."""
        found = [self.steps[step.args[1]].names for step in self.steps if self._branch(step) == "alternating"]
        return frozenset().union(*found)

    def kinks(self) -> list[fmpq]:
        """The distinct rational numbers but 0 that go into branching operations, which may branch beside them."""
        inside = {arg for step in self.steps if step.names and self._branch(step) for arg in step.args}
        for place in range(len(self.steps) - 1, -1, -1):  # a step comes after all that it depends on
            if place in inside:
                inside.update(self.steps[place].args)
        values = [self.steps[place].value for place in sorted(inside)]
        return list(dict.fromkeys(abs(value) for value in values if value is not None and value != 0))

    def _branch(self, step: Step) -> str:
        if step.op != "pow":
            return step.op if step.op in _BRANCHING and self._of_symbols(step) else ""
        base, exponent = (self.steps[arg] for arg in step.args)
        if exponent.names:
            negative = base.value is not None and base.value < 0
            return "alternating" if negative else "pow" if base.names else ""
        whole = exponent.value is not None and exponent.value.q == 1
        return "" if whole or not base.names else "pow"

    def _of_symbols(self, step: Step) -> bool:
        return any(self.steps[arg].names for arg in step.args)

    def add(self, node: Node) -> int:
        """Append a tree, and say where its result will be."""
        if isinstance(node, Number):
            return self._number(exact.number(node))
        if isinstance(node, Symbol):
            return self._place(("symbol", node.name), Step("symbol", name=node.name, names=frozenset([node.name])))
        args = tuple(self.add(arg) for arg in node.args)
        values = [value for arg in args if (value := self.steps[arg].value) is not None]
        if args and len(values) == len(args):
            try:
                return self._number(exact.operate(node.op, values, _MAX_BITS))
            except Undecided:
                pass  # irrational, undefined or long: the step stays
        names = frozenset().union(*(self.steps[arg].names for arg in args))
        return self._place((node.op, *args), Step(node.op, args, names=names))

    def _number(self, value: fmpq) -> int:
        return self._place(("number", int(value.p), int(value.q)), Step("number", value=value))

    def _place(self, key: tuple[object, ...], step: Step) -> int:
        found = self._places.get(key)
        if found is None:
            spend(2)
            found = self._places[key] = len(self.steps)
            self.steps.append(step)
        return found


def compiled(*trees: Node) -> Program:
    """The program of several trees."""
    program = Program()
    program.roots = [program.add(tree) for tree in trees]
    return program


def renamed(node: Node, mark: str) -> Node:
    """The tree with `mark` behind the name of every symbol: the same function of other variables."""
    if isinstance(node, Symbol):
        return Symbol(node.name + mark)
    if isinstance(node, Apply):
        return Apply(node.op, tuple(renamed(arg, mark) for arg in node.args))
    return node
