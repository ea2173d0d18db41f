"""Where the argument of a function ends that is written without brackets: \\sin 2x\\cos y is \\sin(2x)\\cos(y).

The argument is the run of factors that stand side by side behind the function: letters, numbers, powers, fractions,
roots. It ends at \\cdot, \\times, *, +, -, /, a relation, another function or a bracket. Where people read on, as in
\\sin 2(x+1) and \\sin \\pi/6, so does this; where they would not agree, as in \\ln 2(x+1), nothing is read. The
brackets are written into the text, so that our own grammar and the symbolic tier cannot disagree.
"""

from __future__ import annotations

import re

from reval_core.verification.tree import Undecided

_TRIGONOMETRIC = frozenset(re.findall(r"\w+", "sin cos tan cot sec csc cis sinh cosh tanh coth"))
_INVERSE = frozenset(["arcsin", "arccos", "arctan", "arccot"])
_FUNCTIONS = _TRIGONOMETRIC | _INVERSE | {"ln", "log", "exp"}
_PLAIN = "sin|cos|tan|cot|sec|csc|ln|exp|log"
_CALL = re.compile(rf"\\(?:{'|'.join(_FUNCTIONS)})(?![a-zA-Z])|(?<![\\a-zA-Z])(?:{_PLAIN})(?![a-zA-Z])")
_TOKEN = re.compile(
    rf"\s*(\\[a-zA-Z]+|\\.|\.\d|(?<![\\a-zA-Z])(?:{_PLAIN}|pi|sqrt)(?![a-zA-Z])|\S)", re.ASCII | re.DOTALL
)
_ARGUMENTS = {"\\frac": 2, "\\binom": 2, "\\sqrt": 1, "sqrt": 1, "\\overline": 1}
_NO_FACTOR = frozenset(
    re.findall(
        r"\w+",
        """
        cdot times div pm mp le ge ne in cup cap setminus text to mid Rightarrow approx equiv sum prod int lim begin end
        ldots lfloor rfloor lceil rceil max min gcd lcm det mod pmod forall circ prime angle triangle vee wedge
        """,
    )
)
_POSTFIX = frozenset(["'", "!", "%", "\\%", "\\prime"])
_CLOSING = {"(": ")", "[": "]", "{": "}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_OPERATORS = frozenset(["+", "-", "*", "/", "\\cdot", "\\times", "\\div"])
_MOST_NESTED = 20


def with_brackets(text: str) -> str:
    """A normalised text with brackets round the argument of every function. Raises Undecided where it is not clear."""
    if _CALL.search(text) is None:
        return text
    try:
        return _Text(text).rewritten()
    except RecursionError as error:
        raise Undecided("nested too deep") from error


class _Text:
    """One pass over the tokens of a text; digits and letters are tokens of their own, as they are for TeX."""

    def __init__(self, text: str) -> None:
        self.pieces = [found.group() for found in _TOKEN.finditer(text)]
        self.tokens = [piece.strip() for piece in self.pieces]
        self.partners = _partners(self.tokens)
        self.integral = "\\int" in self.tokens
        self.at = 0
        self.nested = 0

    def rewritten(self, stop: int | None = None) -> str:
        """What stands before `stop`, with brackets."""
        stop = len(self.tokens) if stop is None else stop
        written: list[str] = []
        while self.at < stop:
            if _name(self.tokens[self.at]):
                written.append(self._call())
            else:
                written.append(self.pieces[self.at])
                self.at += 1
        return "".join(written)

    def _token(self, at: int) -> str:
        return self.tokens[at] if at < len(self.tokens) else ""

    def _call(self) -> str:
        """A function with its scripts and its argument."""
        self.nested += 1
        if self.nested > _MOST_NESTED:
            raise Undecided("functions of functions")
        name = _name(self.tokens[self.at])
        self.at += 1
        head = f" \\{name}"
        while self._token(self.at) in ("^", "_"):
            head += self._script()
        written = head + self._argument(name)
        self.nested -= 1
        return written

    def _script(self) -> str:
        """^ or _ and what is raised or lowered, in braces."""
        mark, end = self.tokens[self.at], self._end_of_script(self.at)
        self.at += 1
        inner = self.rewritten(end).strip()
        return mark + (inner if inner.startswith("{") else f"{{{inner}}}")

    def _argument(self, name: str) -> str:
        token = self._token(self.at)
        if token in ("(", "["):
            return f"({self._inside()})"
        if token == "{" and _OPERATORS & set(self._top(self.at)):
            return f"({self._inside()})"
        if token == "|":
            return f"({self.rewritten(self._end_of_bars(self.at))})"
        if token in _CLOSING and token != "{":
            return f"({self.rewritten(self._partner(self.at) + 1)})"
        if _name(token):
            return f"({self._call()})"
        end = self._end_of_run(name)
        if end == self.at:
            raise Undecided("a function without an argument")
        return f"({self.rewritten(end).strip()})"

    def _inside(self) -> str:
        """What the bracket at hand holds; moves behind it."""
        end = self._partner(self.at)
        self.at += 1
        inner = self.rewritten(end)
        self.at += 1
        return inner.strip()

    def _partner(self, at: int) -> int:
        if at not in self.partners:
            raise Undecided("brackets that do not match")
        return self.partners[at]

    def _top(self, at: int) -> list[str]:
        """The tokens that stand directly in a group."""
        end, found = self._partner(at), []
        at += 1
        while at < end:
            found.append(self.tokens[at])
            at = self.partners.get(at, at) + 1
        return found

    def _end_of_bars(self, at: int) -> int:
        try:
            return self.tokens.index("|", at + 1) + 1
        except ValueError:
            raise Undecided("bars that do not match") from None

    def _end_of_run(self, name: str) -> int:
        """Where the argument of a function ends whose first token is at hand."""
        start = at = self.at + (self._token(self.at) in ("+", "-"))
        letters: set[str] = set()
        while True:
            end = self._end_of_factor(at)
            if end == at or (letters and self._is_exponential(at, name)):
                break
            if self.integral and at > start and self._token(at) == "d":
                break  # \int \sin x dx
            letters |= self._variables(at, end)
            at = end
        if at == start:
            return self.at
        following = _name(self._token(at))
        if following in _INVERSE and not letters:
            raise Undecided("a multiple of an inverse function may be the argument")
        return self._beyond(name, start, at, letters)

    def _beyond(self, name: str, start: int, at: int, letters: set[str]) -> int:
        """The end of an argument whose run of factors ends at `at`: where people read on, behind that."""
        token = self._token(at)
        run = self.tokens[start:at]
        if token in ("/", "\\div") and name in _TRIGONOMETRIC and ("\\pi" in run or "pi" in run):
            if letters:
                raise Undecided("a quotient behind a multiple of pi")
            return self._end_of_factor(at + 1)
        if token not in ("(", "[", "|"):
            return at
        end = self._end_of_bars(at) if token == "|" else self._partner(at) + 1
        inside = self._variables(at, end)
        if not inside or inside & letters:
            return at
        if letters or name not in _TRIGONOMETRIC or token == "|" or "\\circ" in run:
            raise Undecided("a bracket of other variables behind an argument")
        return end

    def _is_exponential(self, at: int, name: str) -> bool:
        """Whether e^{...} stands behind a variable, a factor of its own: \\cos t e^{-t}."""
        if self._token(at) != "e" or self._token(at + 1) != "^":
            return False
        if name not in _TRIGONOMETRIC:
            raise Undecided("an exponential behind an argument")
        return True

    def _variables(self, start: int, end: int) -> set[str]:
        return {
            token
            for token in self.tokens[start:end]
            if (len(token) == 1 and token.isalpha() and token not in "ei")
            or (token.startswith("\\") and token[1:].isalpha() and token != "\\pi" and self._is_base(token))
        }

    def _is_base(self, token: str) -> bool:
        """Whether a token is a letter, a digit or a constant."""
        if token.startswith("\\"):
            name = token[1:]
            return name.isalpha() and name not in _NO_FACTOR and token not in _ARGUMENTS and not _name(token)
        return token.isascii() and token.lstrip(".").isalnum() and not _name(token)

    def _end_of_factor(self, at: int) -> int:
        """Behind the factor that begins at a token; the same place where none does."""
        token = self._token(at)
        if token in _ARGUMENTS:
            end = at + 1
            if token == "\\sqrt" and self._token(end) == "[":
                end = self._partner(end) + 1
            for _ in range(_ARGUMENTS[token]):
                end = self._end_of_argument(end, round_too=token.endswith("sqrt"))
        elif token == "{":
            end = self._partner(at) + 1
        elif self._is_base(token):
            end = at + 1
        else:
            return at
        while True:
            if self._token(end) in ("^", "_"):
                end = self._end_of_script(end)
            elif self._token(end) in _POSTFIX:
                end += 1
            else:
                return end

    def _end_of_script(self, at: int) -> int:
        """Behind ^ or _ and what is raised or lowered."""
        end = at + 1
        if self.tokens[at] == "^" and self._token(end) in ("-", "+"):
            end += 1
        if self.tokens[at : end + 2] == ["_", "1", "0"] and self._token(end + 2):  # \log_10 x, without braces
            return end + 2
        return self._end_of_argument(end, round_too=self.tokens[at] == "^")

    def _end_of_argument(self, at: int, *, round_too: bool) -> int:
        """Behind what TeX takes for one argument: a group or one token."""
        token = self._token(at)
        if token == "{" or (token == "(" and round_too):
            return self._partner(at) + 1
        if token in _ARGUMENTS:
            return self._end_of_factor(at)
        if token == "\\circ" or self._is_base(token):
            return at + 1
        raise Undecided("an argument without braces")


def _name(token: str) -> str:
    """The function that a token is, or nothing."""
    name = token.removeprefix("\\")
    return name if name in _FUNCTIONS else ""


def _partners(tokens: list[str]) -> dict[int, int]:
    """The place of the closing bracket for that of each opening one that is closed by its own kind."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for at, token in enumerate(tokens):
        if token in _CLOSING:
            opened.append(at)
        elif token in _CLOSING.values() and opened and _CLOSING[tokens[opened[-1]]] == token:
            found[opened.pop()] = at
    return found
