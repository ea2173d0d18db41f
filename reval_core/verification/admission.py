"""What may be handed to the symbolic tier: text that it reads whole, and that is cheap to work with.

math-verify drops what its grammar does not know (primes, subscripts of numbers, \\text, accents), so such text would
be judged by the rest. And sympy's algorithms have no bounds of their own. Both are told here by linear scans.
"""

from __future__ import annotations

import re

from reval_core.verification.parser import is_improper

_READ = frozenset(
    re.findall(
        r"\S+",
        """
        frac sqrt pi infty cdot times div pm sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp lg
        binom le ge ne in cup cap setminus emptyset begin end mathbb lfloor rfloor lceil rceil sum prod int lim to max
        min gcd lcm det alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho
        sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell Re Im
        """,
    )
)
_COMMAND = re.compile(r"\\([a-zA-Z]+|.)")
_SUBSCRIPT = re.compile(r"(\\[a-zA-Z]+|[^\s])\s*_")
_TAKES_SUBSCRIPT = frozenset({"log", "sum", "prod", "int", "lim", "max", "min"})
_UNREAD_SIGNS = re.compile(
    r"['\"`@#;?~]|(?<![\\a-zA-Z]):|(?<![\d^_.}])\d+\s+\d|\d\s*\{\s*\d|\}\s*\{\s*\d+\s*\}\s*\{|!\s*!"
)
_DIFFERENTIALS = re.compile(r"\\frac\s?\{\s?d\s?[a-z]\s?\}\s?\{\s?d")
_CALLED = re.compile(
    r"(?:(?<![\\a-zA-Z])[fghFGH]|\\gamma)\s*\("
    r"|(?:(?<![\\a-zA-Z])[a-zA-Z]|\\(?:[a-z]eta|alpha|gamma|delta|rho|sigma|tau|psi|phi|varphi|omega|Omega|Psi|Phi))"
    r"'*(?:_\{?\w{1,4}\}?)?\s*\(\s*-?\d+\s*\)"
)
_DIVISORS = re.compile(r"\\(?:gcd|lcm)(?![a-zA-Z])[^)]*?[a-zA-Z]")
_MODULUS = re.compile(r"^(?!.*(?:[<>=]|\\[lg]e(?![a-zA-Z])))[^|]*\|[^|]*(?<![\\a-zA-Z])[zw](?![a-zA-Z])")
_CURRENT = re.compile(r"(?<![\\a-zA-Z])I(?![a-zA-Z])")
_WORD = re.compile(r"(?<![\\a-zA-Z{])(?!(?:and|or)\b)[a-zA-Z]{7,}")
_EVALUATED = ("\\int", "\\sum", "\\prod", "\\lim")
_FACTORIAL = re.compile(r"(\d+)\s*!")
_CALL = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|arc\w+|\w+h|ln|log|exp|sqrt|frac|max|min|gcd|lcm)(?![a-zA-Z])")
_POWER = re.compile(r"\^\s*\{?\s*-?\s*(\d+)")
_POWER_OF_GROUP = re.compile(r"([)\]}|])\s*\^\s*\{?\s*-?\s*(\d+)")
_NUMBER = re.compile(r"\d+")
_DIVISION_BY_ZERO = re.compile(r"\\frac\s?(?:\{[^{}]*\}|\d)\s?(?:\{\s?0\s?\}|0)|(?:/|\\div)\s?0(?![\d.])")
_GAMMA = re.compile(r"\\Gamma\s?[({]")
_HYPERBOLIC = re.compile(r"\\(?:sinh|cosh|tanh|coth)(?![a-zA-Z])")
_LARGE = re.compile(r"\d{5,}|\d\s*\^")
_LARGE_FACTOR = re.compile(r"(?<![.\d])(?:\d{6,}|\d{3,}\s*(?:\\cdot|\\times|\^|\())")
_MOST_CHARACTERS = 600
_MOST_TERMS = 60
_MOST_CALLS = 24
_MOST_LETTERS = 80
_MOST_NESTING = 12
_MOST_BARS = 12


def unread(text: str) -> str | None:
    """What of a normalised text the symbolic tier would drop or misread, or None."""
    if not text.isascii():
        return "a character outside ASCII"
    for match in _COMMAND.finditer(text):
        name = match[1]
        if name.isalpha() and name not in _READ:
            return f"\\{name}"
        if not name.isalpha() and name not in "{}|\\":
            return f"\\{name}"
    found = _UNREAD_SIGNS.search(text)
    if found:
        return repr(found.group())
    if "\\begin" not in text and ("&" in text or "\\\\" in text):
        return "rows outside a matrix"
    for match in _SUBSCRIPT.finditer(text):
        base = match[1]
        if any(command in text for command in _EVALUATED) and (base == "}" or text[: match.start()].endswith("^")):
            continue  # \int^1_0, \sum^{3}_{k=1}
        if not (base.isalpha() or base.lstrip("\\") in _TAKES_SUBSCRIPT or base.lstrip("\\") in _READ):
            return "a subscript of what is no name"
    if is_improper(text):
        return "a whole number beside a fraction above 1"
    if _DIFFERENTIALS.search(text):
        return "a derivative"
    if _CALLED.search(text):
        return "a call of a function without a value"
    if _DIVISORS.search(text):
        return "a divisor of letters, for sympy polynomials without a common one"
    if _MODULUS.search(text):
        return "the modulus of a complex letter, for sympy a real one"
    if _CURRENT.search(text):
        return "the letter I, for sympy the root of -1"
    word = _WORD.search(text)
    return f"the word {word.group()}" if word else None


def dear(gold: str, answer: str) -> str | None:
    """Why working with the answer could take for ever, or None. What the gold has, the answer may have too."""
    for command in _EVALUATED:
        if command in answer and command not in gold and (len(answer) > 60 or answer.count(command) > 1):
            return f"{command} is not evaluated"
    if "\\int" in answer and "\\int" not in gold and (_CALL.search(answer) or re.search(r"\^\s*\{?[a-z]", answer)):
        return "\\int is not evaluated"
    if _DIVISION_BY_ZERO.search(answer):
        return "a division by zero"
    if "\\log" in gold + answer and (_LARGE_FACTOR.search(gold) or _LARGE_FACTOR.search(answer)):
        return "a logarithm beside large numbers"  # sympy writes a log b as log b^a
    if "." not in gold and re.search(r"\.\d{7,}", answer):
        return "a long decimal beside an exact gold"
    return _size(answer) or _powers(answer) or _counts(answer)


def _size(text: str) -> str | None:
    if len(text) > _MOST_CHARACTERS:
        return f"longer than {_MOST_CHARACTERS} characters"
    terms = sum(text.count(sign) for sign in ("+", "-", "=", ",", "&", "\\cdot", "\\times", "<", ">"))
    if terms > _MOST_TERMS:
        return f"more than {_MOST_TERMS} terms"
    if len(_CALL.findall(text)) > _MOST_CALLS:
        return f"more than {_MOST_CALLS} functions"
    if sum(char.isalpha() for char in _COMMAND.sub("", text)) > _MOST_LETTERS:
        return f"more than {_MOST_LETTERS} letters"
    if text.count("|") > _MOST_BARS:
        return f"more than {_MOST_BARS} bars"
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return f"nested deeper than {_MOST_NESTING}" if deepest > _MOST_NESTING else None


def _powers(text: str) -> str | None:
    if re.search(r"\d\s*\^\s*\{?\s*\d+\s*\^", text):
        return "a power of powers"
    for match in _POWER_OF_GROUP.finditer(text):
        if len(match[2]) > 2 or int(match[2]) > 12:
            return f"a sum or product to the power of {match[2][:20]}"
    for match in _POWER.finditer(text):
        before = text[: match.start()].rstrip()
        if before[-1:].isdigit() and (len(match[1]) > 3 or int(match[1]) > 400):
            return f"a number to the power of {match[1][:20]}"
    return None


def _counts(text: str) -> str | None:
    for match in _FACTORIAL.finditer(text):
        if len(match[1]) > 2 or int(match[1]) > 60:
            return f"{match[1][:20]}!"
    if _GAMMA.search(text) and (_LARGE.search(text) or "!" in text or any(int(n) > 60 for n in _NUMBER.findall(text))):
        return "the gamma function of large numbers"
    if _HYPERBOLIC.search(text) and _LARGE.search(text):
        return "a hyperbolic function of large numbers"
    if "!" in text and re.search(r"[)\]}]\s*!", text) and _POWER.search(text):
        return "a factorial of powers"
    counting = any(command in text for command in ("\\binom", "\\sum", "\\prod", "\\lfloor", "\\lceil"))
    if counting and any(len(n) > 4 or int(n) > 1_000 for n in _NUMBER.findall(text)):
        return "counting with numbers above 1,000"
    if (
        "\\binom" in text
        and any(len(n) > 2 for n in _NUMBER.findall(text))
        and re.search(r"[a-z]", _COMMAND.sub("", text))
    ):
        return "a binomial coefficient of a variable and a number above 99"
    if "\\infty" in text and "\\sum" in text and _CALL.search(text.replace("\\frac", "")):
        return "an infinite sum of functions"
    if "\\sum" in text or "\\prod" in text:
        bounds = [int(n) for n in re.findall(r"\^\s*\{?\s*(\d{1,9})", text)]
        if any(bound > 60 for bound in bounds) or ("\\prod" in text and "\\infty" in text):
            return "a sum or product of many terms"
    rows = text.count("\\\\") + 1
    if ("\\det" in text or "vmatrix" in text) and rows > 3:
        return "a determinant of more than 3 rows"
    return None
