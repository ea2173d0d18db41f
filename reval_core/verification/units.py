"""Units after a value: what is cut off, and which units contradict each other."""

from __future__ import annotations

import re

_NAMES: dict[str, str] = {
    spelling: canonical
    for canonical, spellings in {
        "millimetre": "mm millimeter millimeters millimetre millimetres",
        "centimetre": "cm centimeter centimeters centimetre centimetres",
        "metre": "m meter meters metre metres",
        "kilometre": "km kilometer kilometers kilometre kilometres",
        "inch": "in inch inches",
        "foot": "ft foot feet",
        "yard": "yd yard yards",
        "mile": "mi mile miles",
        "gram": "g gram grams",
        "kilogram": "kg kilogram kilograms",
        "pound": "lb lbs pound pounds",
        "ounce": "oz ounce ounces",
        "second": "s sec secs second seconds",
        "minute": "min mins minute minutes",
        "hour": "h hr hrs hour hours",
        "day": "day days",
        "week": "week weeks",
        "month": "month months",
        "year": "yr yrs year years",
        "litre": "l liter liters litre litres",
        "millilitre": "ml milliliter milliliters",
        "degree": "deg degree degrees °",
        "radian": "rad radian radians",
        "dollar": "dollar dollars usd",
        "cent": "cent cents",
        "mph": "mph",
        "am": "am",
        "pm": "pm",
    }.items()
    for spelling in spellings.split()
}
_SUFFIX = re.compile(
    r"^(?P<value>.*[\d.)}%a-zA-Z])\s*\\text\s*\{(?P<unit>[A-Za-z°µ .,/'-]{0,60})\}(?P<power> ?\^ ?\{?\d\}?)?$"
)
_MATHEMATICS = frozenset(["sin", "cos", "tan", "log", "sqrt", "exp", "mod"])
_NO_UNIT = frozenset(["or", "and", "not", "maybe", "either", "but"])
_DEGREES = re.compile(r"^(?P<value>[^\\]*[\d.)}]|.*\d|.*\\pi)\s*\^\s*\\circ(?:\s*[CF])?$")
_PLAIN = re.compile(r"^(?P<value>.*[\d}%)])\s*(?P<unit>[a-zA-Z]{2,20}(?: [a-zA-Z]{2,20})*)(?P<power>\^\{?[23]\}?)?$")
_TRAILING_WORDS = re.compile(r"(?<=[\d}%)])\s+[A-Za-z]+(?:\s+[A-Za-z]+){0,11}$")
_METRES = re.compile(r"^(?P<value>\d[\d.]*)\s?m\s?\^\{?(?P<power>[23])\}?$")


def split(text: str) -> tuple[str, str]:
    """(value, unit) of a normalised scalar; the unit is "" when there is none.

    A unit is \\text{} after a value, the degree sign, or a known unit word or plain English words
    after a number. `5x` has no unit, `5 m` neither: a single letter may be a variable.
    """
    match = _SUFFIX.match(text)
    if match and "\\text" not in match["value"] and not _NO_UNIT & set(match["unit"].casefold().split()):
        return match["value"].strip(), _canonical(match["unit"], match["power"])
    match = _DEGREES.match(text)
    if match and "\\circ" not in match["value"]:
        return match["value"].strip(), "degree"
    match = _METRES.match(text)
    if match:
        return match["value"], "metre^" + match["power"]
    match = _PLAIN.match(text)
    if match and _is_unit(match["unit"]):
        return match["value"].strip(), _canonical(match["unit"], match["power"])
    return text, ""


def compatible(gold: str, answer: str, *, drop: bool) -> bool:
    """Whether the units allow equality: the same, one missing (if `drop`), or one unknown."""
    if gold == answer:
        return True
    if not gold or not answer:
        return drop
    known = [unit.partition("^")[0] in _NAMES.values() for unit in (gold, answer)]
    return not all(known)


def _is_unit(text: str) -> bool:
    words = text.casefold().split()
    known = all(word in _NAMES or len(word) >= 3 for word in words)
    return known and not _NO_UNIT & set(words) and text not in _MATHEMATICS


def _canonical(unit: str, power: str | None) -> str:
    name = " ".join(unit.replace(".", " ").split()).casefold()
    for prefix, exponent in (("square ", "2"), ("sq ", "2"), ("cubic ", "3")):
        if name.startswith(prefix):
            name, power = name.removeprefix(prefix), exponent
    digits = "".join(char for char in power or "" if char.isdigit())
    name = _NAMES.get(name) or _NAMES.get(name.replace(" ", ""), name)
    return f"{name}^{digits}" if digits else name
