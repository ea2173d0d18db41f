"""Other spellings of one answer, and answers that are nearly it: the inputs of benchmarks/verifier.py and of tests.

Every spelling of `respellings` has the gold's value for sure; no answer of `near_misses` has it. Both work on the
text of MATH-like golds and know nothing of the verifier.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction

_INTEGER = re.compile(r"-?\d+")
_DECIMAL = re.compile(r"-?\d*\.\d+")
_FRACTION = re.compile(r"(-?)\\d?frac\{(\d+)\}\{(\d+)\}")
_TEXT = re.compile(r"\\text\{([A-Za-z ]+)\}")
_ROOT = re.compile(r"(\d+)\\sqrt\{(\d+)\}")
_SET = re.compile(r"\\\{([^{}\\]+)\\\}")
_INTERVAL = re.compile(r"[\[(][^,()\[\]]+,[^,()\[\]]+[\])]")
_SUM = re.compile(r"[0-9a-z]+(?:\^\d)?(?:[+][0-9a-z]+(?:\^\d)?)+")
_EQUATION = re.compile(r"[a-z]=[^=]*[a-z][^=]*")
_UNICODE = str.maketrans({"-": "−"})
_FULL_WIDTH = {ord(str(digit)): 0xFF10 + digit for digit in range(10)}


def respellings(gold: str) -> Iterator[tuple[str, str]]:
    """(rule, spelling) for each rule that applies to `gold` and changes its text."""
    for name, rule in _RULES.items():
        spelling = rule(gold)
        if spelling is not None and spelling != gold:
            yield name, spelling


def near_misses(gold: str, chance: random.Random) -> list[str]:
    """Up to three answers with another value: a digit changed, a sign changed, a term or an element added."""
    if re.search(r"[|!]|\\pm|\\ldots|\\pmod|\\circ.*\\circ|\\equiv", gold):
        return []  # there a changed text may have the same value
    found = [change(gold, chance) for change in (_other_digit, _other_sign, _one_more)]
    return [miss for miss in found if miss is not None]


def _other_digit(gold: str, chance: random.Random) -> str | None:
    places = [
        match.start() for match in re.finditer(r"\d", re.sub(r"\\text\{[^}]*\}", lambda m: "x" * len(m[0]), gold))
    ]
    if not places:
        return None
    place = chance.choice(places)
    digit = chance.choice([d for d in "123456789" if d != gold[place]])
    return gold[:place] + digit + gold[place + 1 :]


def _other_sign(gold: str, chance: random.Random) -> str | None:
    """The sign of a number or of a term in a sum; not within a power, where it may not matter."""
    if "^" in gold or "(" in gold or "," in gold or "\\text" in gold:
        return None
    if re.fullmatch(r"-.*\d.*", gold) and not re.search(r"[+=]|-.*-", gold):
        return gold[1:]
    if re.fullmatch(r"[\d.]*[1-9][\d.]*|\\frac\{\d+\}\{\d+\}|\d*\\sqrt\{\d+\}|\d*\\pi", gold):
        return "-" + gold
    places = [match.start() for match in re.finditer(r"(?<=[0-9a-z}])[+-](?=[0-9a-z\\])", gold)]
    if not places:
        return None
    place = chance.choice(places)
    return gold[:place] + ("-" if gold[place] == "+" else "+") + gold[place + 1 :]


def _one_more(gold: str, chance: random.Random) -> str | None:
    if re.fullmatch(r"-?\d+(?:,-?\d+)+", gold):
        return gold + f",{chance.randrange(200, 999)}"
    if re.fullmatch(r"[0-9a-z+^-]*\d", gold) and not re.search(r"\^\d*$", gold):
        return gold + f"+{chance.randrange(1, 9)}"
    return None


def _when(pattern: str, change: Callable[[str], str | None]) -> Callable[[str], str | None]:
    return lambda gold: change(gold) if re.fullmatch(pattern, gold) else None


def _thousands(separator: str) -> Callable[[str], str | None]:
    return _when(r"[1-9]\d{3,}", lambda gold: f"{int(gold):,}".replace(",", separator))


def _fraction(gold: str) -> Fraction | None:
    match = _FRACTION.fullmatch(gold)
    return Fraction(int(match[1] + match[2]), int(match[3])) if match and int(match[3]) else None


def _as_decimal(gold: str) -> str | None:
    value = _fraction(gold)
    if value is None or 10**6 % value.denominator:
        return None
    return f"{float(value):.6f}".rstrip("0").rstrip(".")


def _as_mixed(gold: str) -> str | None:
    value = _fraction(gold)
    if value is None or value <= 1 or value.denominator == 1:
        return None
    whole, rest = divmod(value.numerator, value.denominator)
    return f"{whole}\\frac{{{rest}}}{{{value.denominator}}}"


def _as_slash(gold: str) -> str | None:
    value = _fraction(gold)
    match = _FRACTION.fullmatch(gold)
    return f"{match[1]}{match[2]}/{match[3]}" if match and value is not None else None


def _decimal_as_fraction(gold: str) -> str | None:
    value = Fraction(gold) if _DECIMAL.fullmatch(gold) else None
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}" if value is not None else None


def _reversed_parts(gold: str, pattern: re.Pattern[str], separator: str) -> str | None:
    match = pattern.fullmatch(gold)
    if not match:
        return None
    inner = match[1] if match.groups() else match[0]
    return gold.replace(inner, separator.join(reversed(inner.split(separator))))


def _under_root(gold: str) -> str | None:
    match = _ROOT.fullmatch(gold)
    return f"\\sqrt{{{int(match[1]) ** 2 * int(match[2])}}}" if match else None


def _spaced(gold: str) -> str | None:
    if "\\text" in gold or "\\begin" in gold or re.search(r"\d,\d{3}", gold):
        return None
    return re.sub(r"(?<=[\w}])([+=,]|-)(?=[\w\\])", r" \1 ", gold)


_RULES: dict[str, Callable[[str], str | None]] = {
    "dfrac": lambda gold: gold.replace("\\frac", "\\dfrac"),
    "tfrac": lambda gold: gold.replace("\\frac", "\\tfrac"),
    "dollars": lambda gold: None if "$" in gold else f"${gold}$",
    "parentheses of TeX": lambda gold: None if "$" in gold else f"\\({gold}\\)",
    "display style": lambda gold: None if "$" in gold else f"\\displaystyle {gold}",
    "a full stop": _when(r".*[\d}a-z]", lambda gold: gold + "."),
    "lines": lambda gold: f"\n  {gold}\n",
    "spaces": _spaced,
    "thin spaces": lambda gold: None if "\\text" in gold else re.sub(r"(?<=\d)([+=])(?=[\w\\])", r"\\,\1\\;", gold),
    "left and right": lambda gold: (
        gold.replace("(", "\\left(").replace(")", "\\right)") if "\\left" not in gold and "[" not in gold else None
    ),
    "bold": _when(r"-?[\d.]+", lambda gold: f"\\mathbf{{{gold}}}"),
    "thousands by comma": _thousands(","),
    "thousands in braces": _thousands("{,}"),
    "thousands by thin space": _thousands("\\,"),
    "thousands by comma and thin space": _thousands(",\\!"),
    "full-width digits": _when(r"\d+", lambda gold: gold.translate(_FULL_WIDTH)),
    "one decimal": _when(r"-?\d+", lambda gold: gold + ".0"),
    "plus sign": _when(r"\d+", lambda gold: "+" + gold),
    "named": _when(r"-?\d+|\\frac\{\d+\}\{\d+\}", lambda gold: f"x = {gold}"),
    "named n": _when(r"-?\d+", lambda gold: f"n={gold}"),
    "approximately itself": _when(
        r"\\frac\{\d+\}\{\d+\}", lambda gold: f"{gold} \\approx {float(_fraction(gold) or 0):.4f}"
    ),
    "unicode minus": _when(r"-[\d.]+", lambda gold: gold.translate(_UNICODE)),
    "slash": _as_slash,
    "decimal": _as_decimal,
    "mixed number": _as_mixed,
    "sign above": _when(r"-\\frac\{\d+\}\{\d+\}", lambda gold: "\\frac{-" + gold[len("-\\frac{") :]),
    "decimal as fraction": _decimal_as_fraction,
    "no leading zero": _when(r"-?0\.\d+", lambda gold: gold.replace("0.", ".", 1)),
    "trailing zero": _when(r"-?\d*\.\d+", lambda gold: gold + "0"),
    "textbf": lambda gold: _TEXT.sub(r"\\textbf{\1}", gold) if _TEXT.search(gold) else None,
    "plain words": lambda gold: _TEXT.sub(r"\1", gold) if _TEXT.fullmatch(gold) else None,
    "degree sign": lambda gold: gold.replace("^\\circ", "°").replace("^{\\circ}", "°") if "circ" in gold else None,
    "degrees": _when(r"\d+\^\\circ", lambda gold: gold.replace("^\\circ", " degrees")),
    "root without braces": lambda gold: re.sub(r"\\sqrt\{(\d)\}", r"\\sqrt\1", gold),
    "unicode root": _when(r"\d*\\sqrt\{\d\}", lambda gold: gold.replace("\\sqrt{", "√").replace("}", "")),
    "times a root": _when(r"\d+\\sqrt\{\d+\}", lambda gold: gold.replace("\\sqrt", "\\cdot\\sqrt")),
    "root first": _when(_ROOT.pattern, lambda gold: "\\cdot ".join(reversed(gold.replace("\\", " \\").split()))),
    "under the root": _under_root,
    "pi": lambda gold: gold.replace("\\pi", "π") if "\\pi" in gold else None,
    "unicode infinity": lambda gold: gold.replace("\\infty", "∞") if "\\infty" in gold else None,
    "unicode union": lambda gold: gold.replace("\\cup", "∪") if "\\cup" in gold else None,
    "terms in another order": lambda gold: _reversed_parts(gold, _SUM, "+"),
    "set in another order": lambda gold: _reversed_parts(gold, _SET, ","),
    "element of": lambda gold: f"x \\in {gold}" if _INTERVAL.fullmatch(gold) and "infty" in gold else None,
    "sides swapped": lambda gold: "=".join(reversed(gold.split("="))) if _EQUATION.fullmatch(gold) else None,
    "percent without backslash": lambda gold: gold.replace("\\%", "%") if "\\%" in gold else None,
    "nested box": lambda gold: f"\\boxed{{{gold}}}",
    "explicit product": _when(r"\d[a-z](?:\^\d)?", lambda gold: f"{gold[0]} \\cdot {gold[1:]}"),
    "divided by one": _when(r"\d+", lambda gold: f"\\frac{{{gold}}}{{1}}"),
    "doubled fraction": _when(
        _FRACTION.pattern,
        lambda gold: _FRACTION.sub(lambda m: f"{m[1]}\\frac{{{int(m[2]) * 2}}}{{{int(m[3]) * 2}}}", gold),
    ),
}
