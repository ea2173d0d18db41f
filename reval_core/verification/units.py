"""Units after a value: what is cut off, what two units have to do with each other.

A unit is read by a closed table (SI with prefixes, imperial, time, angle, money, energy) and its compounds, or it is
the name of what is counted: plain words that say nothing about the value. Words that do, such as `million`, `squared`,
`or five`, are never dropped: they leave the text unread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from reval_core.verification.counted import TRANSLATED, says_value


@dataclass(frozen=True, slots=True)
class Unit:
    """What a value is in: powers of base units, how many of these one is; `counted` names what has no table entry."""

    powers: tuple[tuple[str, int], ...]
    factor: Fraction = Fraction(1)
    counted: str = ""


_F = Fraction
_PREFIXES = {
    "n": _F(1, 10**9), "μ": _F(1, 10**6), "\\mu": _F(1, 10**6), "m": _F(1, 1000), "c": _F(1, 100), "d": _F(1, 10),
    "k": _F(1000), "M": _F(10**6), "G": _F(10**9), "T": _F(10**12),
    "nano": _F(1, 10**9), "micro": _F(1, 10**6), "milli": _F(1, 1000), "centi": _F(1, 100), "deci": _F(1, 10),
    "kilo": _F(1000), "mega": _F(10**6), "giga": _F(10**9),
}  # fmt: skip
_PREFIXED = {
    "length": "m meter meters metre metres",
    "mass": "g gram grams",
    "volume": "L l liter liters litre litres",
    "time": "s sec second seconds",
    "force": "N newton newtons",
    "energy": "J joule joules",
    "power": "W watt watts",
    "voltage": "V volt volts",
    "current": "A amp amps ampere amperes",
    "charge": "C coulomb coulombs",
    "resistance": "\\Omega ohm ohms",
    "capacitance": "F farad farads",
    "induction": "H henry henries",
    "field": "T tesla",
    "frequency": "Hz hertz",
    "pressure": "Pa pascal pascals",
    "electronvolt": "eV",
    "amount": "mol mole moles",
    "erg": "erg ergs",
    "dyne": "dyn dyne dynes",
    "parsec": "pc parsec parsecs",
    "bar": "bar bars",
    "flux": "Wb weber webers",
    "activity": "Bq becquerel becquerels",
    "dose": "Gy",
    "equivalent dose": "Sv sievert sieverts",
    "information": "B byte bytes",
    "calorie": "cal calorie calories",
}
_PLAIN: dict[str, tuple[str, Fraction, str]] = {
    "inch": ("length", _F(254, 10000), "in inch inches"),
    "foot": ("length", _F(3048, 10000), "ft foot feet"),
    "yard": ("length", _F(9144, 10000), "yd yard yards"),
    "mile": ("length", _F(1609344, 1000), "mi mile miles"),
    "furlong": ("length", _F(201168, 1000), "furlong furlongs"),
    "angstrom": ("length", _F(1, 10**10), "\\AA angstrom angstroms"),
    "lightyear": ("lightyear", _F(1), "ly lightyear lightyears"),
    "astronomical unit": ("astronomical unit", _F(1), "AU"),
    "solar mass": ("solar mass", _F(1), "M_\\odot"),
    "solar luminosity": ("solar luminosity", _F(1), "L_\\odot"),
    "solar radius": ("solar radius", _F(1), "R_\\odot"),
    "atmosphere": ("atmosphere", _F(1), "atm atmosphere atmospheres"),
    "torr": ("torr", _F(1), "torr Torr mmHg"),
    "gauss": ("gauss", _F(1), "gauss Gauss"),
    "hectare": ("hectare", _F(1), "ha hectare hectares"),
    "acre": ("acre", _F(1), "acre acres"),
    "gallon": ("gallon", _F(1), "gal gallon gallons"),
    "quart": ("gallon", _F(1, 4), "qt quart quarts"),
    "pint": ("gallon", _F(1, 8), "pt pint pints"),
    "cup": ("gallon", _F(1, 16), "cup cups"),
    "pound": ("pound", _F(1), "lb lbs pound pounds"),
    "ounce": ("pound", _F(1, 16), "oz ounce ounces"),
    "ton": ("ton", _F(1), "ton tons tonne tonnes"),
    "minute": ("time", _F(60), "min mins minute minutes"),
    "hour": ("time", _F(3600), "h hr hrs hour hours"),
    "day": ("time", _F(86400), "day days"),
    "week": ("time", _F(604800), "week weeks"),
    "month": ("month", _F(1), "month months"),
    "year": ("month", _F(12), "yr yrs year years"),
    "degree": ("degree", _F(1), "deg degree degrees"),
    "celsius": ("celsius", _F(1), "celsius"),
    "fahrenheit": ("fahrenheit", _F(1), "fahrenheit"),
    "kelvin": ("kelvin", _F(1), "K kelvin kelvins"),
    "radian": ("radian", _F(1), "rad rads radian radians"),
    "dollar": ("dollar", _F(1), "dollar dollars usd USD"),
    "cent": ("dollar", _F(1, 100), "cent cents"),
    "euro": ("euro", _F(1), "\\euro euro euros EUR"),
    "sterling": ("sterling", _F(1), "\\pounds GBP"),
    "yen": ("yen", _F(1), "\\yen yen JPY"),
    "rupee": ("rupee", _F(1), "\\rupee rupee rupees Rs Rs. INR"),
    "bit": ("information", _F(1, 8), "bit bits"),
    "am": ("am", _F(1), "am a.m. a.m"),
    "pm": ("pm", _F(1), "pm p.m. p.m"),
}
_DERIVED: dict[str, tuple[Fraction, dict[str, int]]] = {
    "volume": (_F(1, 1000), {"length": 3}),
    "frequency": (_F(1), {"time": -1}),
    "force": (_F(1000), {"mass": 1, "length": 1, "time": -2}),
    "energy": (_F(1000), {"mass": 1, "length": 2, "time": -2}),
    "power": (_F(1000), {"mass": 1, "length": 2, "time": -3}),
    "pressure": (_F(1000), {"mass": 1, "length": -1, "time": -2}),
    "charge": (_F(1), {"current": 1, "time": 1}),
    "voltage": (_F(1000), {"mass": 1, "length": 2, "time": -3, "current": -1}),
    "resistance": (_F(1000), {"mass": 1, "length": 2, "time": -3, "current": -2}),
    "capacitance": (_F(1, 1000), {"mass": -1, "length": -2, "time": 4, "current": 2}),
    "induction": (_F(1000), {"mass": 1, "length": 2, "time": -2, "current": -2}),
    "field": (_F(1000), {"mass": 1, "time": -2, "current": -1}),
    "erg": (_F(1, 10**4), {"mass": 1, "length": 2, "time": -2}),
    "dyne": (_F(1, 100), {"mass": 1, "length": 1, "time": -2}),
    "bar": (_F(10**8), {"mass": 1, "length": -1, "time": -2}),
    "atmosphere": (_F(101_325_000), {"mass": 1, "length": -1, "time": -2}),
    "gauss": (_F(1, 10), {"mass": 1, "time": -2, "current": -1}),
    "flux": (_F(1000), {"mass": 1, "length": 2, "time": -2, "current": -1}),
    "hectare": (_F(10_000), {"length": 2}),
    "acre": (_F(40468564224, 10**7), {"length": 2}),
}
"""Kinds by the kinds that they are made of, in metres, grams, seconds and amperes."""
_COMPOUND = {"mph": ("mile", "hour"), "kph": ("kilometer", "hour"), "kmh": ("kilometer", "hour"), "rpm": ("", "minute")}


def _table() -> dict[str, tuple[str, Fraction]]:
    known: dict[str, tuple[str, Fraction]] = {}
    for kind, spellings in _PREFIXED.items():
        for spelling in spellings.split():
            known[spelling] = (kind, _F(1))
            short = (len(spelling) <= 3 and spelling not in ("sec", "amp")) or spelling == "\\Omega"
            for prefix, factor in _PREFIXES.items():
                if (len(prefix.lstrip("\\")) <= 2) == short:
                    known[prefix + spelling] = (kind, factor)
    for kind, factor, spellings in _PLAIN.values():
        known |= dict.fromkeys(spellings.split(), (kind, factor))
    return known


_KNOWN = _table()
LETTERS = frozenset(name for name in _KNOWN if len(name) == 1)
"""Units of one letter, which may as well be variables."""

_MULTIPLES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_WORDS = re.compile(r"[A-Za-zÀ-ÖØ-öø-ɏ][A-Za-zÀ-ÖØ-öø-ɏ'-]*(?:[ ,]+[A-Za-zÀ-ÖØ-öø-ɏ][A-Za-zÀ-ÖØ-öø-ɏ'-]*){0,11}")
_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")
_NAME = re.compile(r"(?P<name>[kMGm]\\Omega|[MLR]_\\odot|\\?[A-Za-z.]+)\s?(?:\^\s?\{?\s?(?P<power>-?\d)\s?\}?)?")
_VALUE = r"(?P<value>.*[\d.)}%!]|.*\\pi|.*\\infty)"
_SUFFIX = re.compile(
    rf"^(?:{_VALUE}|(?P<letters>.*[a-zA-Z]))\s*(?P<unit>\\frac\s?\{{\s?\\text[^$]*|\\text\s?\{{.*)$", re.DOTALL
)
_DEGREES = re.compile(
    r"^(?P<value>[^\\]*[\d.)}]|(?:(?!\\(?:sin|cos|tan|sec|csc|cot|cis)).)*(?:[\d}]|\\pi))\s?\^\s?\{?\s?(?:\\circ|o)\s?\}?"
    r"\s*(?:\\text\s?\{\s?)?(?P<scale>[CF]|Celsius|Fahrenheit)?(?:\s?\})?$"
)
_PLAIN_SUFFIX = re.compile(
    rf"^{_VALUE}\s*(?P<unit>(?:[A-Za-z]{{2,}}|\\(?:pounds|euro|yen|rupee|Omega|AA))[A-Za-z /^\d{{}}.'-]*"
    r"|[^\W\dA-Za-z]{1,4})$"
)
_SLASHED = re.compile(rf"^{_VALUE}\s?(?P<unit>[A-Za-z]{{1,10}}\s?/\s?[A-Za-z]{{1,10}}(?:\^\{{?\d\}}?)?)$")
_LETTER = re.compile(rf"^{_VALUE}\s*(?P<unit>[A-Za-z])(?P<power>\s?\^\s?\{{?[23]\}}?)?$")
_BRACKETED = re.compile(
    rf"^{_VALUE}\s*\(\s?(?:in )?(?P<unit>\\text\{{[^{{}}]*\}}(?:\^\d)?|[A-Za-z][A-Za-z /^\d]*)\s?\)$"
)
_CURRENCY_FIRST = re.compile(
    r"^(?P<sign>-?)\s?(?:\\text\{\s?)?(?P<unit>\\(?:pounds|euro|yen|rupee)|USD|EUR|GBP|Rs\.?)\s?\}?\s?(?P<value>\d.*)$"
)
_NUMERAL = re.compile(r"-?[\d.]+(?:\s?(?:\\times|\\cdot)\s?10\s?\^\s?(?:\{\s?-?\d{1,3}\s?\}|\d))?")
_SIGNS = tuple(
    (re.compile(pattern), upright)
    for pattern, upright in (
        (r"\\mu\s?\\text\s?\{\s?", r"\\text{\\mu "),
        (r"(?<=\d)\s([kM])\\Omega$", r"\\text{\1\\Omega}"),
        (r"\\text\s?\{\s?([kMGm])\s?\}\s?\\Omega(?![a-zA-Z])", r"\\text{\1\\Omega}"),
        (r"(?<=[\d}])\s?\\Omega\s?(?:\\cdot)?\s?\\text\s?\{\s?", r"\\text{\\Omega "),
        (r"(?<=[\d}])\s?([MLR])_(?:\\odot|\{\s?\\odot\s?\})$", r"\\text{\1_\\odot}"),
        (r"\\text\s?\{\s?([MLR])\s?\}\s?_\s?(?:\\odot|\{\s?\\odot\s?\})$", r"\\text{\1_\\odot}"),
        (r"\\text\s?\{\s?([MLR])\s?_\s?\{\s?\\odot\s?\}\s?\}$", r"\\text{\1_\\odot}"),
    )
)
"""Units of which a part is a Greek letter or a sign, as one \\text{}."""
_UPRIGHT_ONLY = frozenset({"pc", "kpc", "Mpc", "Gpc", "AU", "Wb", "Bq", "kBq", "Gy", "mGy", "Sv", "mSv", "dyn"})
"""Units that are products of variables unless they stand in \\text{}: 2pc."""
_UNITS = re.compile(
    r"(?:(?P<measure>square|sq|cubic|cu)\.? )?units?(?P<power>\s?\^\s?\{?[23]\}?| (?=sq|cu)(?:squared|cubed))?"
)
_MEASURES = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def split(text: str) -> tuple[str, Unit | None]:
    """(value, unit) of a normalised scalar; the unit is None when there is none that can be cut off.

    `5x` has no unit, `5 m` neither: a single letter may be a variable (`split_letter`).
    """
    first = _CURRENCY_FIRST.match(text)
    if first:
        return first["sign"] + first["value"], read(first["unit"])
    match = _DEGREES.match(text)
    if match and "\\circ" not in match["value"]:
        scale = {"C": "celsius", "F": "fahrenheit"}.get((match["scale"] or "d")[0], "degree")
        return match["value"].strip(), read(scale)
    bracketed = _BRACKETED.match(text)
    if bracketed and len(plain(bracketed["unit"])) > 1:
        unit = read(bracketed["unit"])
        return (bracketed["value"].strip(), unit) if unit else (text, None)
    written = _upright(text)
    found = _split_suffix(written)
    return found if found[1] is not None or found[0] != written else (text, None)


def _upright(text: str) -> str:
    """The text with its Greek letters and signs of units inside \\text{}."""
    if "\\mu" in text or "\\Omega" in text or "\\odot" in text:
        for pattern, upright in _SIGNS:
            text = pattern.sub(upright, text)
    return text


def _split_suffix(text: str) -> tuple[str, Unit | None]:
    match = _SUFFIX.match(text) or _PLAIN_SUFFIX.match(text) or _SLASHED.match(text)
    if not match or match["unit"].strip() in _UPRIGHT_ONLY:
        return text, None
    if "\\text" in (match["value"] or match.groupdict().get("letters") or ""):
        return _split_several(text)
    value = (match["value"] or match["letters"]).strip()
    written = match["unit"].strip()
    words = plain(written).casefold().split()
    if words and words[0] in _MULTIPLES and re.fullmatch(r"[\d.]+", value):
        value, words = f"({value})\\cdot {_MULTIPLES[words[0]]}", words[1:]
        written = " ".join(words)
        if not written:
            return value, None
    unit = read(written)
    if unit is None or (match.groupdict().get("letters") and unit.counted):
        return text, None
    return value, unit


def _split_several(text: str) -> tuple[str, Unit | None]:
    """Powers of several units, each in its own \\text{}: 70\\text{ km s}^{-1}\\text{ Mpc}^{-1}."""
    value, unit = text[: text.index("\\text")].strip(), read(text[text.index("\\text") :])
    return (value, unit) if _NUMERAL.fullmatch(value) and unit is not None and not unit.counted else (text, None)


def split_letter(text: str) -> tuple[str, Unit | None]:
    """As `split` for a unit of one letter, `12 m`: for a value that is compared with one without variables."""
    match = _LETTER.match(text)
    if match is None or match["unit"] not in LETTERS:
        return text, None
    return match["value"].strip(), read(match["unit"] + (match["power"] or ""))


def plain(text: str) -> str:
    """A unit as it is written, without \\text{} and TeX's spaces."""
    text = re.sub(r"\\frac\s?\{(.*)\}\s?\{(.*)\}$", r"\1/\2", text)
    text = _TEXT.sub(r" \1 ", text).replace("\\cdot", "*").replace("~", " ").replace("\\,", " ")
    return " ".join(re.sub(r"[(){}](?![\d-])|(?<![\d])[}]", " ", text).split()).strip(" .,")


@lru_cache(maxsize=1024)
def read(text: str) -> Unit | None:
    """The unit of a text, None when the words say something about the value or are no words."""
    text = plain(text)
    text = TRANSLATED.get(text, text)
    if not text or len(text) > 80:
        return None
    nameless = _UNITS.fullmatch(text)
    if nameless:
        said = nameless["measure"] or nameless["power"] or "1"
        return Unit((("unit", {"sq": 2, "cu": 3}.get(said.strip()[:2]) or int(said.strip(" ^{}"))),))
    known = _compound(text)
    if known is not None:
        return known
    if not _WORDS.fullmatch(text) or "-" in text[:1]:
        return None
    words = re.split(r"[ ,]+", text.casefold())
    if words[-1] == "times":
        words[-1] = "time"
    if any(says_value(part) for word in words for part in word.split("-")) or all(len(word) < 3 for word in words):
        return None
    return Unit((), counted=" ".join(word.rstrip("s") for word in words))


def _compound(text: str) -> Unit | None:
    """Known units joined by products and quotients, such as `m/s^2`, `miles per hour`, `square cm`."""
    text = re.sub(r"\bper\b", "/", text)
    parts = text.split("/")
    if len(parts) > 3 or not all(part.strip() for part in parts):
        return None
    powers: dict[str, int] = {}
    factor = Fraction(1)
    for index, part in enumerate(parts):
        sign = -1 if index else 1
        found = _product(part.strip())
        if found is None:
            return None
        for kind, scale, power in found:
            size, parts_of_it = _DERIVED.get(kind, (Fraction(1), {kind: 1}))
            for base, times in parts_of_it.items():
                powers[base] = powers.get(base, 0) + sign * power * times
            factor *= (scale * size) ** (sign * power)
    return Unit(tuple(sorted((kind, power) for kind, power in powers.items() if power)), factor)


def _product(text: str) -> list[tuple[str, Fraction, int]] | None:
    found: list[tuple[str, Fraction, int]] = []
    measure = 1
    words = re.sub(r"\\mu\s", r"\\mu", text.replace("*", " ")).replace(" ^", "^").replace("^ ", "^").split()
    for word in words:
        match = _NAME.fullmatch(word)
        if match is None:
            return None
        name = match["name"]
        if name.rstrip(".").casefold() in _MEASURES:
            measure = _MEASURES[name.rstrip(".").casefold()]
            continue
        if name in ("squared", "cubed") and found:
            kind, scale, _ = found.pop()
            found.append((kind, scale, 2 if name == "squared" else 3))
            continue
        pair = _COMPOUND.get(name.casefold())
        entries = [(pair[0], 1), (pair[1], -1)] if pair else [(name, 1)]
        for entry, sign in entries:
            if not entry:
                continue
            known = _KNOWN.get(entry) or _KNOWN.get(entry.casefold()) or _KNOWN.get(entry.rstrip("."))
            if known is None:
                return None
            found.append((known[0], known[1], sign * measure * int(match["power"] or 1)))
        measure = 1
    return found or None


def ratio(gold: Unit | None, answer: Unit | None, *, drop: bool) -> Fraction | None:
    """By what the answer's value is multiplied to be in the gold's unit; None when the units forbid equality.

    One that is missing is ignored if `drop`; names of what is counted never contradict each other.
    """
    if gold == answer:
        return Fraction(1)
    if gold is None or answer is None:
        return Fraction(1) if drop else None
    if gold.counted and answer.counted:
        return Fraction(1)
    nameless = [len(unit.powers) == 1 and unit.powers[0][0] == "unit" for unit in (gold, answer)]
    if any(nameless):
        sizes = [sum(power for _, power in unit.powers) or 1 for unit in (gold, answer)]
        return Fraction(1) if sizes[0] == sizes[1] else None
    if gold.counted or answer.counted:
        return None
    angles = {gold.powers, answer.powers}
    if (("degree", 1),) in angles and angles & {(("celsius", 1),), (("fahrenheit", 1),)}:
        return Fraction(1)
    return answer.factor / gold.factor if gold.powers == answer.powers else None
