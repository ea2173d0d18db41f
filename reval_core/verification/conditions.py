"""Where an answer holds: `2^n \\text{ for even } n`. Conditions that restrict are compared, all others are ignored.

An answer that adds a restriction of its own (n even, n prime, x = 2) is not the gold; one that leaves out the gold's
condition, or says for all n, claims no less than the gold does.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from reval_core.verification import relations
from reval_core.verification.readings import Conditional, Equation, Opaque, Reading

Compare = Callable[[Reading, Reading], bool | None]
Read = Callable[[str], Reading]

_SAID = re.compile(
    r"\s*,?\s*\\text\{\s?,?\s?(?:for|where|if|with|when|whenever|provided)\b[^{}]*\}.*$|,?\s*(?:\\text\s?)?\\forall.*$",
    re.DOTALL,
)
_KEYWORD = re.compile(r"\\text\{\s?,?\s?(?:for|where|if|when|whenever|with|provided|otherwise|else)\b")
_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])")
_DOMAIN = re.compile(r"\\in\s?\\mathbb|\\mathbb")
_RANGE = re.compile(r"[<>]|\\(?:le|ge)(?![a-zA-Z])|\\in(?!\s?\\mathbb)(?![a-zA-Z])")
_SPECIAL = re.compile(r"[=]|\\(?:ne|equiv|mod|pmod|mid|nmid|not|notin)(?![a-zA-Z])|^[^<>]*\|[^<>]*$")
_RESTRICTS = re.compile(
    r"(?<![\\a-zA-Z])(?:even|odd|parity|prime|composite|divi\w+|multiples?|only|not|non\w*|no|except|unless|otherwise|perfect|"
    r"squares?|cubes?|powers?|coprime|relatively|first|last|other|than|least|most|greater|less|larger|smaller|more|fewer|"
    r"equals?|negative|zero|small|large)(?![a-zA-Z])",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"= ?\d+ ?,[^=]*(?:\\ldots|\.\.\.)$")  # n = 1, 2, 3, \ldots
_FILLER = frozenset(
    re.findall(
        r"\w+",
        """
        for where if with when whenever provided that is are be an a the all any every each such and of integer integers
        number numbers value values
        """,
    )
)
_ORDERED = frozenset(["by", "than", "of", "to", "not", "except"])
_TOKEN = re.compile(r"\\?[a-zA-Z]+|\d+|[^\s\w,.;:{}]")


def split(text: str, read: Read) -> Reading | None:
    """A claim and where it holds; Opaque where the conditions are several cases; None for text without one."""
    found = _SAID.search(text)
    if found is None or not text[: found.start()].strip() or "\\begin" in text:
        return None
    claim, said = text[: found.start()].strip(), _COUNTED.sub("", found.group().strip(" ,"))
    if not _LETTER.search(claim):
        return None
    others = relations.split_top(said, ",;")[1:]
    if len(_KEYWORD.findall(said)) > 1 or any(not _RANGE.search(part) and not _DOMAIN.search(part) for part in others):
        return Opaque(text)
    special = _SPECIAL.search(said) is not None or _RESTRICTS.search(said) is not None
    scope = "special" if special else "range" if _RANGE.search(said) else "all"
    compared = scope != "all" and not _RESTRICTS.search(said)
    relation = read(re.sub(r"\\text\s?\{[^{}]*\}|\\forall", " ", said).strip()) if compared else None
    return Conditional(read(claim), _words(said), relation, scope)


def equal(gold: Reading, answer: Reading, compare: Compare) -> bool | None:
    """Whether two readings, one of them with a condition, are the same answer; None when undecided."""
    if not isinstance(answer, Conditional):
        return compare(gold.claim, answer) if isinstance(gold, Conditional) else None
    if not isinstance(gold, Conditional):
        return False if answer.scope == "special" else compare(gold, answer.claim)
    ignored = gold.scope != "special" and answer.scope == "all"
    return compare(gold.claim, answer.claim) if ignored or _same(gold, answer, compare) else False


def _same(gold: Conditional, answer: Conditional, compare: Compare) -> bool:
    """Whether two conditions are the same words or the same relation."""
    if gold.words == answer.words:
        return True
    if not isinstance(gold.relation, Equation) or not isinstance(answer.relation, Equation):
        return False
    return compare(gold.relation, answer.relation) is True


def _words(said: str) -> tuple[str, ...]:
    """The words of a condition but those that say nothing; sorted where they are about one letter: n even, even n."""
    words = [word for word in _TOKEN.findall(said.replace("\\text", " ").casefold()) if word not in _FILLER]
    words = [word.rstrip("s") if len(word) > 2 else word for word in words]
    plain = len([word for word in words if len(word) == 1]) < 2 and not _ORDERED & set(words)
    return tuple(sorted(words) if plain else words)
