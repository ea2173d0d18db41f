"""A small strict grammar for scalar mathematics: LaTeX or plain text to a tree, by recursive descent.

It reads what has one meaning and raises Undecided for all else: an unknown word, a function call of an
unknown name, `1/2x`, `4{5}`, several +-. Nothing is ever evaluated as code.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from reval_core.verification.arguments import with_brackets
from reval_core.verification.tokens import PLAIN_WORDS, tokens
from reval_core.verification.tree import Apply, Node, Number, Symbol, Undecided, leaves, symbols

MAX_DEPTH = 80
_CACHED_CHARACTERS = 200

CONSTANTS = {"\\pi": "pi", "pi": "pi", "e": "e", "i": "i", "\\infty": "infinity", "infinity": "infinity"}
LOG_OF_BASE = Apply("logarithm of the base")
"""Of \\log without a base, which is 10 or e: `numeric` compares in both."""
_WORD = re.compile(r"\w+")
FUNCTIONS = frozenset(
    _WORD.findall(
        "sin cos tan cot sec csc cis arcsin arccos arctan arccot sinh cosh tanh ln exp log sqrt abs floor ceil"
    )
)
_GREEK = frozenset(
    _WORD.findall(
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau"
        " phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell"
    )
)
_GREEK_FUNCTIONS = frozenset({"Gamma", "zeta", "psi", "phi", "varphi", "Phi", "Psi"})
_KEEPS_SIGN = frozenset({"mul", "div", "sqrt", "pi"})
_CALLABLE_LETTERS = frozenset("fghFGHPQRWT")
_CONJUGATES = frozenset({"\\overline", "\\bar"})
_AFTER_WHOLE = re.compile(r"(?<![\d.}^_])\d{1,20}\s?\\frac\s?\{\s?(\d{1,20})\s?\}\s?\{\s?(\d{1,20})\s?\}")
_DERIVATIVE = re.compile(r"\\frac\s?\{\s?d\s?\w{0,2}\s?\}\s?\{\s?d\s?[a-z]\s?\}")
_STARTS = frozenset({"(", "{", "\\frac", "\\sqrt", "\\pi", "\\binom", "\\lfloor", "\\lceil"}) | _CONJUGATES
_CLOSING = {"(": ")", "{": "}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}


def parse(text: str) -> Node:
    """The tree of a normalised scalar expression. Raises Undecided."""
    return _parse_short(text) if len(text) <= _CACHED_CHARACTERS else _parse_long(text)


def _parse(text: str) -> Node:
    if "\\frac" in text and _DERIVATIVE.search(text):
        raise Undecided("a derivative")
    if "\\frac" in text and is_improper(text):
        raise Undecided("a whole number beside a fraction above 1 is no mixed number, and nobody writes products so")
    if not text or len(text) > 2_000:
        raise Undecided("empty or too long")
    parser = _Parser(list(tokens(with_brackets(text))))
    try:
        node = parser.sum()
    except RecursionError as error:
        raise Undecided("nested too deep") from error
    if parser.peek() is not None:
        raise Undecided(f"unexpected {parser.peek()!r}")
    _refuse_deep(node)
    return node


def is_improper(text: str) -> bool:
    """Whether a whole number stands directly before a fraction of numbers that is 1 or more: 3\\frac{9}{8}."""
    return any(int(found[1]) >= int(found[2]) for found in _AFTER_WHOLE.finditer(text))


# A tree takes about 150 bytes for each character of its text: the two caches hold at most some 60 and 5 MB.
_parse_short = lru_cache(maxsize=2_048)(_parse)
_parse_long = lru_cache(maxsize=16)(_parse)


def _refuse_deep(root: Node) -> None:
    """Raise Undecided for a tree that recursive evaluation could not walk."""
    pending = [(root, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise Undecided(f"deeper than {MAX_DEPTH} operations")
        if isinstance(node, Apply):
            pending.extend((arg, depth + 1) for arg in node.args)


class _Parser:
    """One pass over the tokens; each method reads one level of the grammar."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.bars = 0
        self.groups: set[int] = set()  # where braces close that only group, and are not seen in print

    def peek(self, ahead: int = 0) -> str | None:
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else None

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if token is None or (expected is not None and token != expected):
            raise Undecided(f"expected {expected or 'more'}, found {token!r}")
        self.at += 1
        return token

    def sum(self) -> Node:
        """Terms joined by + and -."""
        terms: list[Node] = []
        sign = self._sign()
        while True:
            term = self.product()
            terms.append(Apply("neg", (term,)) if sign < 0 else term)
            if self.peek() not in ("+", "-"):
                break
            sign = self._sign()
        return terms[0] if len(terms) == 1 else Apply("add", tuple(terms))

    def _sign(self) -> int:
        sign = 1
        for _ in range(3):
            if self.peek() not in ("+", "-"):
                return sign
            sign = -sign if self.take() == "-" else sign
        raise Undecided("a run of signs")

    def product(self) -> Node:
        """Factors joined by signs or by standing side by side."""
        node = self.factor()
        divided_inline = False
        while True:
            token = self.peek()
            if token in ("*", "\\cdot", "\\times"):
                self.take()
                node, divided_inline = Apply("mul", (node, self._signed_factor())), False
            elif token in ("/", "\\div"):
                self.take()
                node, divided_inline = Apply("div", (node, self._signed_factor())), True
            elif token is not None and self._starts_factor(token):
                if divided_inline:
                    raise Undecided("a/b c may mean (a/b)c or a/(bc)")
                before = self.tokens[self.at - 1]
                if token[0].isdigit() and before[-1].isdigit():
                    node = self._mixed(node)
                    continue
                if self._digits_meet():
                    raise Undecided("digits side by side but for braces")
                if token == "\\frac" and isinstance(node, Number) and self._mixed_fraction():
                    node = Apply("add", (node, self.factor()))
                    continue
                if token[0].isdigit() and isinstance(node, Symbol):
                    raise Undecided("a number after a letter")
                node = Apply("mul", (node, self.factor()))
            else:
                return node

    def _signed_factor(self) -> Node:
        if self.peek() in ("+", "-"):
            return self.factor() if self.take() == "+" else Apply("neg", (self.factor(),))
        return self.factor()

    def _starts_factor(self, token: str) -> bool:
        if token == "|":
            return self.bars == 0
        return (
            token in _STARTS
            or token[0].isalnum()
            or (token.startswith("\\") and (token[1:] in _GREEK or token[1:] in FUNCTIONS))
        )

    def _digits_meet(self) -> bool:
        """Whether a digit follows a digit in print, with nothing but grouping braces between: {5}{6} shows 56."""
        left, right = self.at - 1, self.at
        while left in self.groups:
            left -= 1
        while right < len(self.tokens) and self.tokens[right] == "{":
            right += 1
        return right < len(self.tokens) and self.tokens[left][-1].isdigit() and self.tokens[right][0] in "0123456789."

    def _mixed(self, whole: Node) -> Node:
        """`1 2/3` after its whole part."""
        parts = [self.peek(k) or "" for k in range(4)]
        if isinstance(whole, Number) and whole.decimals is None and parts[1] == "/":
            upper, lower, after = parts[0], parts[2], parts[3]
            if upper.isdigit() and lower.isdigit() and int(upper) < int(lower) and after in ("", "+", "-", ")"):
                self.at += 3
                return Number(whole.value + Fraction(int(upper), int(lower)))
        raise Undecided("two numbers side by side")

    def _mixed_fraction(self) -> bool:
        """Whether \\frac{a}{b} that follows a whole number is the rest of a mixed number."""
        if not self.tokens[self.at - 1].isdigit():
            return False
        window = [token for token in self.tokens[self.at + 1 : self.at + 7] if token not in "{}"]
        if len(window) >= 2 and window[0].isdigit() and window[1].isdigit():
            return int(window[0]) < int(window[1])
        return len(window) >= 1 and window[0].isdigit() and len(window[0]) == 2 and window[0][0] < window[0][1]

    def factor(self) -> Node:
        """A base with its postfix signs: powers, factorials, degrees, percent."""
        node = self.base()
        while True:
            token = self.peek()
            if token == "!":
                node = Apply(self._factorial(), (node,))
            elif token == "%":
                self.take()
                node = Apply("div", (node, Number(Fraction(100))))
            elif token == "^":
                self.take()
                node = Apply("degrees", (node,)) if self._degree_sign() else Apply("pow", (node, self.exponent()))
            else:
                return node

    def _factorial(self) -> str:
        """n! or n!!, which is n (n - 2) (n - 4) ...; the factorial of a factorial needs brackets."""
        marks = 0
        while self.peek() == "!":
            self.take()
            marks += 1
        if marks > 2:
            raise Undecided("a run of factorials")
        return "factorial" if marks == 1 else "factorial2"

    def _degree_sign(self) -> bool:
        """Take \\circ or {\\circ} after ^, if it is there."""
        braced = self.peek() == "{" and self.peek(1) == "\\circ" and self.peek(2) == "}"
        if not braced and self.peek() != "\\circ":
            return False
        self.at += 3 if braced else 1
        return True

    def exponent(self) -> Node:
        """What stands after ^: a group, or one signed number, letter or function-free base."""
        if self.peek() in ("-", "+"):
            sign = self.take()
            inner = self.exponent()
            return Apply("neg", (inner,)) if sign == "-" else inner
        node = self._raised_or_lowered()
        if self.peek() == "^":
            raise Undecided("a tower without braces")
        return node

    def _raised_or_lowered(self) -> Node:
        """A base that is not printed on the line: its braces do not join digits."""
        node = self.base()
        self.groups.discard(self.at - 1)
        return node

    def base(self) -> Node:
        """A number, letter, constant, group, fraction, root or function."""
        token = self.take()
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return _number(token)
        if token in _CLOSING:
            inner = self.sum()
            self.take(_CLOSING[token])
            if token == "{":
                self.groups.add(self.at - 1)
            if token in ("(", "{"):
                return inner
            return Apply("floor" if token == "\\lfloor" else "ceil", (inner,))
        if token == "|":
            self.bars += 1
            inner = self.sum()
            self.take("|")
            self.bars -= 1
            return Apply("abs", (inner,))
        name = token[1:] if token.startswith("\\") else token
        if token == "\\frac":
            return Apply("div", (self.argument(), self.argument()))
        if token in _CONJUGATES:
            return self.conjugate()
        if token == "\\binom":
            return Apply("binomial", (self.argument(), self.argument()))
        if name == "sqrt":
            return self.root()
        if name in FUNCTIONS and (token.startswith("\\") or token in PLAIN_WORDS):
            return self.function(name)
        letter = (name in _GREEK and token != name) or (len(token) == 1 and token.isalpha() and token.isascii())
        if letter and self._subscript_follows():
            return self._called_or_not(name + "_" + self.subscript())
        if token in CONSTANTS and not (letter and self._number_called()):
            return Apply(CONSTANTS[token])
        if letter:
            primes = ""
            while self.peek() == "'":
                primes += self.take()
            return self._called_or_not(name + primes)
        raise Undecided(f"{token!r}")

    def _called_or_not(self, name: str) -> Symbol:
        """A letter, or its value at a number as one name: V(0) is no product, and not 0. Raises Undecided for f(x)."""
        raised = self.at > 1 and self.tokens[self.at - 2] == "^"
        number = self._number_called()
        if number and not raised and name not in _GREEK_FUNCTIONS:
            self.at += 2 + len(number)
            return Symbol(f"{name}({''.join(number)})")
        if number or ((name in _CALLABLE_LETTERS or name in _GREEK_FUNCTIONS) and self.peek() == "("):
            raise Undecided(f"{name}( may be a call")
        return Symbol(name)

    def _number_called(self) -> list[str]:
        """The tokens of a number that stands alone in the brackets at hand: (0), (-1); else nothing."""
        inside = self.tokens[self.at + 1 : self.at + 3 + (self.peek(1) == "-")]
        if self.peek() != "(" or inside[-1:] != [")"] or not inside[-2][:1].isdigit():
            return []
        return inside[:-1]

    def argument(self) -> Node:
        """A group in braces, or TeX's single token: \\frac12 is one half."""
        token = self.peek()
        if token == "{":
            return self._raised_or_lowered()
        if token is not None and token.isdigit() and len(token) > 1:
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
        if token is not None and token.isascii() and token[0].isalnum():
            return self.base()
        if token in ("\\pi", "\\sqrt"):
            return self.base()
        raise Undecided("an argument without braces")

    def root(self) -> Node:
        """\\sqrt[n]{x}, \\sqrt2 or sqrt(x)."""
        degree: Node | None = None
        if self.peek() == "[":
            self.take()
            degree = self.sum()
            self.take("]")
        radicand = self.base() if self.peek() == "(" else self.argument()
        if degree is None:
            return Apply("sqrt", (radicand,))
        if isinstance(degree, Number) and degree.value.denominator == 1 and degree.value.numerator % 2 == 1:
            return Apply("root", (radicand, degree))  # real for negative numbers too
        return Apply("pow", (radicand, Apply("div", (Number(Fraction(1)), degree))))

    def conjugate(self) -> Node:
        """\\overline{3-4i}: of a constant with i in it; over digits or letters a bar means other things."""
        inner = self.argument()
        if symbols(inner) or Apply("i") not in leaves(inner):
            raise Undecided("a bar over something else than a complex number")
        return Apply("conjugate", (inner,))

    def function(self, name: str) -> Node:
        """A named function with an optional power or base, then its argument."""
        power = base = None
        if self.peek() == "_":
            self.take()
            base = self.argument() if self.peek() == "{" else self.base()
        if self.peek() == "^":
            self.take()
            power = self.exponent()
            if isinstance(power, Apply) and power.op == "neg":
                raise Undecided("an inverse function or a reciprocal")
        inner = self._called()
        if name == "log":
            below = LOG_OF_BASE if base is None else Apply("ln", (base,))
            node: Node = Apply("div", (Apply("ln", (inner,)), below))
        elif base is not None:
            raise Undecided("a subscript on a function")
        elif name == "cis":
            node = Apply("exp", (Apply("mul", (Apply("i"), inner)),))
        elif name == "arccot":
            node = _arccot(inner)
        else:
            node = Apply(name, (inner,))
        return node if power is None else Apply("pow", (node, power))

    def _called(self) -> Node:
        """The argument, in the brackets that it has or was given."""
        if self.peek() not in ("(", "{", "|"):
            raise Undecided("a function without an argument")
        inner = self.base()
        if self.peek() == "^":
            raise Undecided("f(x)^n")
        return inner

    def _subscript_follows(self) -> bool:
        return self.peek() == "_"

    def subscript(self) -> str:
        """The text of a subscript of letters and digits."""
        self.take("_")
        if self.peek() != "{":
            return self.take()
        self.take()
        parts: list[str] = []
        while self.peek() != "}":
            parts.append(self.take())
        self.take()
        text = "".join(parts)
        if not text.isalnum():
            raise Undecided("a subscript that is computed")
        return text


def _arccot(argument: Node) -> Node:
    """Of a positive constant; below 0 there are two conventions."""
    if not all(
        isinstance(leaf, Number) or (isinstance(leaf, Apply) and leaf.op in _KEEPS_SIGN) for leaf in leaves(argument)
    ):
        raise Undecided("arccot of what may be negative")
    right = Apply("div", (Apply("pi"), Number(Fraction(2))))
    return Apply("add", (right, Apply("neg", (Apply("arctan", (argument,)),))))


def _number(token: str) -> Number:
    if token.isdigit():
        return Number(Fraction(int(token)))
    mantissa = re.split("[eE]", token)[0]
    exponent = token[len(mantissa) + 1 :]
    if exponent and abs(int(exponent)) > 300:
        raise Undecided("a decimal exponent out of range")
    if "." not in mantissa:
        return Number(Fraction(token))
    return Number(Fraction(token), len(mantissa.partition(".")[2]))
