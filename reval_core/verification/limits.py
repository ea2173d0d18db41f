"""Static limits: refuse what would be dear to evaluate before anything evaluates it.

`check(text)` reads the text once or twice with linear scans and returns the reason to refuse it, or
None. It proves nothing safe: what passes still runs under the pool's hard limits. It is there so that
an ordinary hostile answer costs microseconds, not a killed worker.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 2_000
MAX_NESTING = 50
MAX_DIGIT_RUN = 300
MAX_EXPONENT = 10_000
MAX_EXPONENT_DEPTH = 2
MAX_FACTORIAL = 5_000
MAX_TERMS = 200
MAX_BOUND = 9_999
MAX_DETERMINANT_ROWS = 5

_DIGIT_RUN = re.compile(rf"\d{{{MAX_DIGIT_RUN + 1},}}")
_SCIENTIFIC = re.compile(r"[0-9][eE][+-]?([0-9]+)")
_FACTORIAL = re.compile(r"([0-9]+)\s*!")
_UNBOUNDED = re.compile(r"\^|(?:[7-9]|[0-9]{2})\s*!|!\s*!|[)\]}]\s*!|[0-9]{5,}")
_BIG_NUMBER = re.compile(r"\d{5,}")
_TEX = re.compile(
    r"\\(?:input|include|write|read|open(?:in|out)|csname|def|edef|gdef|let|catcode|loop|repeat"
    r"|immediate|newcommand|renewcommand|usepackage|expandafter|special|directlua)(?![a-zA-Z])"
)
_DIGITS = frozenset("0123456789")
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|[0-9]+(?:\.[0-9]+)?|[\s\S]")


def check(text: str) -> str | None:
    """Why `text` is over a limit, or None. `text` may be raw or normalised."""
    return shape(text) or _powers(text) or _combinatorics(text)


def shape(text: str) -> str | None:
    """Why `text` is too large or no mathematics as text, whatever its value would be; or None."""
    if len(text) > MAX_CHARACTERS:
        return f"longer than {MAX_CHARACTERS} characters ({len(text)})"
    if _DIGIT_RUN.search(text):
        return f"a run of more than {MAX_DIGIT_RUN} digits"
    command = _TEX.search(text)
    if command:
        return f"TeX command {command.group()} is not mathematics"
    nesting = _nesting(text)
    if nesting > MAX_NESTING:
        return f"nested deeper than {MAX_NESTING}"
    terms = text.count("+") + text.count("-") + text.count("=") + text.count("*")
    if terms > MAX_TERMS:
        return f"more than {MAX_TERMS} terms"
    return None


def _nesting(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return deepest


def _powers(text: str) -> str | None:
    """Exponents above the limit, towers, and scientific notation out of range."""
    scientific = _SCIENTIFIC.search(text)
    if scientific and (len(scientific[1]) > 5 or int(scientific[1]) > MAX_EXPONENT):
        return f"decimal exponent above {MAX_EXPONENT}"
    if "^" not in text and "**" not in text:
        return None
    tokens = [t for t in _TOKEN.findall(text.replace("**", "^")) if not t.isspace()]
    depth = 0  # how many exponents enclose this token
    closing: list[int] = []  # for each open brace, the depth to return to
    bare = 0  # exponents without braces that are still open: 9^9^9
    for index, token in enumerate(tokens):
        following = tokens[index + 1] if index + 1 < len(tokens) else ""
        if token in ("{", "(", "["):
            closing.append(depth)
            if index and tokens[index - 1] == "^":
                depth, bare = depth + 1, 0
        elif token in ("}", ")", "]"):
            depth = closing.pop() if closing else 0
            bare = bare if following == "^" else 0
        elif token == "^":
            bare += 1
            if depth + bare > MAX_EXPONENT_DEPTH and following != "\\circ":
                return "a tower of powers"
        elif token[0] in _DIGITS:
            in_exponent = depth > 0 or bare > 0
            if in_exponent and (len(token.partition(".")[0]) > 5 or float(token) > MAX_EXPONENT):
                return f"an exponent above {MAX_EXPONENT}"
            if in_exponent and following == "^" and _power_too_big(token, tokens[index + 2 :]):
                return f"an exponent above {MAX_EXPONENT}"
            if following != "^":
                bare = 0
        elif token not in ("+", "-") and following != "^":
            bare = 0
    return None


def _power_too_big(base: str, rest: list[str]) -> bool:
    """Whether base^rest, itself an exponent, is above the limit (base >= 2, first number of rest)."""
    power = next((float(token) for token in rest[:3] if token[0] in _DIGITS), 1.0)
    return float(base) > 1.0 and (power > 14 or float(base) ** power > MAX_EXPONENT)


def _combinatorics(text: str) -> str | None:
    """Factorials, sums, products, binomials, determinants and modular powers that are too large."""
    if "!!!" in text.replace(" ", ""):
        return "repeated factorials"
    for match in _FACTORIAL.finditer(text):
        if len(match[1]) > 4 or int(match[1]) > MAX_FACTORIAL:
            return f"a factorial above {MAX_FACTORIAL}!"
    if "!" in text and _unbounded_factorial(text):
        return "a factorial of powers, factorials or large numbers"
    big = _BIG_NUMBER.search(text) or re.search(r"10\s*\^", text)
    for command in (r"\sum", r"\prod", r"\binom", r"\int", r"\choose"):
        if command in text and big:
            return f"{command} with a number above {MAX_BOUND}"
    if "vmatrix" in text or r"\det" in text:
        rows = text.count(r"\\") + 1
        if rows > MAX_DETERMINANT_ROWS:
            return f"a determinant of more than {MAX_DETERMINANT_ROWS} rows"
    return None


def _unbounded_factorial(text: str) -> bool:
    """Whether a bracket before ! holds a power, a factorial or a large number."""
    opened: list[int] = []
    for index, char in enumerate(text):
        if char in "([{":
            opened.append(index)
        elif char in ")]}" and opened:
            start = opened.pop()
            if text[index + 1 : index + 3].lstrip().startswith("!") and (_UNBOUNDED.search(text, start, index)):
                return True
    return False
