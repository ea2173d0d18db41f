"""Texts of a model as HTML: everything escaped, and what stands between LaTeX's delimiters as MathML.

Delimiters are ``$ $``, ``$$ $$``, ``\\( \\)``, ``\\[ \\]``, ``\\boxed{}`` alone and the environments that display
formulas. A dollar sign opens a formula where no space follows it, and closes one where no space stands before it and no
digit behind, so that prices stay prices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

from reval_core.browsing.mathml import MOST_CHARACTERS, mathml

MOST_SHOWN = 200_000
"""Characters of a text that a page shows; the rest is had as plain text."""
MOST_LATEX = 20_000
"""Characters of LaTeX that a page shows as formulas, which takes up to some seconds; later ones stay as source."""
MOST_FORMULAS = 2_000
"""Openings of formulas that are looked at; behind them all is plain text."""
MOST_INLINE = 500
"""Characters between two dollar signs that make a formula."""
_OPENS = re.compile(
    r"\\\$|\$\$|\$(?=\S)|\\\[|\\\(|\\boxed\s?\{|\\begin\{(?P<name>align|aligned|alignat|cases|equation|eqnarray|gather)\*?\}"
)
_CLOSES = {"$$": "$$", "$": "$", r"\[": r"\]", r"\(": r"\)"}
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_NEXT_DOLLAR = re.compile(r"(?<!\\)\$|\n\s*\n")
_CLOSING_DOLLAR = re.compile(r"(?<!\s)\$(?!\d)")


def cut(text: str, most: int = MOST_SHOWN) -> tuple[str, int]:
    """The part of a text that a page shows, and how many characters are left out."""
    return text[:most], max(0, len(text) - most)


def rendered(text: str) -> Markup:
    """The text as HTML with its formulas; what cannot be shown as a formula stays as its source, marked as such."""
    left = MOST_LATEX
    parts: list[Markup] = []
    behind_block = False
    for plain, source, latex, block in _pieces(text):
        # a block ends its line by itself
        parts.append(escape(plain.removeprefix("\n") if behind_block else plain))
        behind_block = False
        if not source:
            continue
        left -= len(latex)
        shown = mathml(latex, block=block) if left >= 0 else None
        if shown is None:
            parts.append(Markup('<code class="tex">{}</code>').format(source))
        else:
            behind_block = block
            parts.append(Markup('<span class="{}">{}</span>').format("formula block" if block else "formula", shown))
    return Markup("").join(parts)


def _pieces(text: str) -> Iterator[tuple[str, str, str, bool]]:
    """(plain text, source of the formula behind it, its LaTeX, whether it stands on a line of its own)."""
    begun, at = 0, 0
    for _ in range(MOST_FORMULAS):
        opening = _OPENS.search(text, at)
        if opening is None:
            break
        found = _formula(text, opening)
        if found is None:
            at = opening.end()
            continue
        end, latex, block = found
        yield text[begun : opening.start()], text[opening.start() : end], latex, block
        begun = at = end
    yield text[begun:], "", "", False


def _formula(text: str, opening: re.Match[str]) -> tuple[int, str, bool] | None:
    """(end of the formula, its LaTeX, whether it is a block); None where it is not closed in time, or no formula."""
    start, token = opening.span()[0], opening[0]
    body, limit = opening.end(), opening.end() + MOST_CHARACTERS
    if token == r"\$":
        return None
    if token.startswith(r"\boxed"):
        end = _balanced(text, body, limit)
        return None if end is None else (end, text[start:end], False)
    if token.startswith(r"\begin"):
        closing = token.replace("begin", "end")
        end = text.find(closing, body, limit)
        return None if end < 0 else (end + len(closing), text[start : end + len(closing)], True)
    if token == "$":
        closed = _NEXT_DOLLAR.search(text, body, body + MOST_INLINE)
        if closed is None or not _CLOSING_DOLLAR.match(text, closed.start()):
            return None
        return closed.end(), text[body : closed.start()], False
    end = text.find(_CLOSES[token], body, limit)
    return None if end < 0 else (end + 2, text[body:end], token != r"\(")


def _balanced(text: str, at: int, limit: int) -> int | None:
    """Where the brace that was opened before ``at`` is closed."""
    depth = 1
    for token in _BRACES.finditer(text, at, limit):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return None
