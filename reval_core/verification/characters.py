"""Unicode mathematics as ASCII and LaTeX: signs, digits of every script, roots, fractions, super- and subscripts.

One table of single characters and a few runs. Nothing is guessed: a character without an entry stays, and what is not
ASCII after this is outside the strict grammar.
"""

from __future__ import annotations

import re
import unicodedata

_UNSENDABLE = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
_SIGNS = {
    "−–‐‑‒—―﹣－": "-",
    "×✕✖": r"\times ",
    "·⋅•∙": r"\cdot ",
    "÷": r"\div ",
    "∕⁄／": "/",
    "°º˚": r"^\circ ",
    "π": r"\pi ",
    "∞": r"\infty ",
    "≤⩽≦": r"\le ",
    "≥⩾≧": r"\ge ",
    "≠": r"\ne ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∖": r"\setminus ",
    "∈": r"\in ",
    "±": r"\pm ",
    "≈≃": r"\approx ",
    "≡": r"\equiv ",
    "∅": r"\emptyset ",
    "√": r"\sqrt ",
    "∣": r"\mid ",
    "∶": ":",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "⟨〈": r"\langle ",
    "⟩〉": r"\rangle ",
    "→⟶": r"\to ",
    "⇒⟹": r"\Rightarrow ",
    "∴": r"\therefore ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℚ": r"\mathbb{Q}",
    "ℕ": r"\mathbb{N}",
    "ℂ": r"\mathbb{C}",
    "∂": r"\partial ",
    "∑": r"\sum ",
    "∏": r"\prod ",
    "∫": r"\int ",
    "∨": r"\vee ",
    "∧": r"\wedge ",
    "Å": r"\AA ",
    "Ω": r"\Omega ",
    "£": r"\pounds ",
    "¢￠": " cents",
    "€": r"\euro ",
    "¥": r"\yen ",
    "₹": r"\rupee ",
    "٫": ".",
    "，、٬": ",",
    "；": ";",
    "．": ".",
    "”“": '"',
    "’‘": "'",
    "′": "'",
    "″": "''",
    "\u00a0\u2007\u2008\u2009\u200a\u202f\u205f\u3000\u2002\u2003\t\n\r\u2028\u2029": " ",
    _INVISIBLE: "",
}
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ϵ": "epsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ϑ": "vartheta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi",
    "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "ϕ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi",
}  # fmt: skip


class _Characters(dict[int, str]):
    """The table, and the decimal digits of every script as they are met."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = found = str(unicodedata.decimal(char, char))
        return found


_TABLE = _Characters({ord(char): text for chars, text in _SIGNS.items() for char in chars})
_TABLE.update({ord(char): f"\\{name} " for char, name in _GREEK.items()})
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱˣ", "0123456789+-nix")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱˣ]+")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙₓ", "0123456789+-nx")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋ₙₓ]+")
_VULGAR = re.compile("[¼½¾⅐-⅞]")
_ROOT_OF = re.compile(r"√\s?(\d+(?:\.\d+)?)")
_HIGHER_ROOT = re.compile(r"([∛∜])\s?(?:(\d+|[a-z])|\(([^()]*)\))")
_OVERLINED = re.compile("((?:\\d\u0305)+)")
_FONT_RUN = re.compile("[\U0001d400-\U0001d7ff\uff01-\uff5e]+")


def printable(text: str) -> str:
    """`text` with lone surrogates and control characters as U+FFFD, so any pipe, log or terminal takes it."""
    return _UNSENDABLE.sub("\ufffd", text)


def to_latex(text: str) -> str:
    """`text` with the characters of the table replaced; ASCII comes back as it is, but for white space."""
    if text.isascii():
        return text
    text = _FONT_RUN.sub(lambda run: unicodedata.normalize("NFKC", run.group()), text)
    text = _VULGAR.sub(_fraction, text)
    text = _ROOT_OF.sub(r"\\sqrt{\1}", text)
    text = _HIGHER_ROOT.sub(_root, text)
    text = _OVERLINED.sub(lambda run: "\\overline{" + run.group().replace("\u0305", "") + "}", text)
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + run.group().translate(_SUPERSCRIPTS) + "}", text)
    text = _SUBSCRIPT_RUN.sub(lambda run: "_{" + run.group().translate(_SUBSCRIPTS) + "}", text)
    return text.translate(_TABLE)


def _fraction(match: re.Match[str]) -> str:
    """½ as a fraction of LaTeX; after a digit that is a mixed number."""
    above, _, below = unicodedata.normalize("NFKC", match.group()).partition("\u2044")
    return f"\\frac{{{above}}}{{{below}}}"


def _root(match: re.Match[str]) -> str:
    degree = "3" if match[1] == "∛" else "4"
    return f"\\sqrt[{degree}]{{{match[2] or match[3]}}}"
