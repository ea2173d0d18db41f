"""Multiple choice: a gold that is one letter A to J is graded as a letter and as nothing else.

One letter is a choice. Naming several, hedging, or denying the letter is none, and wrong. Behind the letter stands
nothing, a plain description of the option, which may name a point B, or the denial of other letters (`D, not A or
B`). Letters of other scripts are no letters. The pronoun `I` is no choice.
"""

from __future__ import annotations

import re

from reval_core.verification import phrases, statements
from reval_core.verification.normalise import normalise
from reval_core.verification.sentences import clean

MAX_SHORT = 100
"""A last sentence in which a letter without brackets counts is at most this long."""

_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_SIZING = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\boldsymbol(?![a-zA-Z])")
_GOLD = re.compile(r"\(?([A-J])\)?[.:]?")
_GOLD_WITH_TEXT = re.compile(r"\(([A-J])\)\s*(\S.{0,200})", re.DOTALL)
_NOUNS = (
    "|".join(noun.replace("|", r"\s") + ends for nouns, ends, _ in phrases.ANSWERS.values() for noun in nouns.split())
    + f"|{phrases.OPTIONS}"
)
_VERBS = "|".join(verbs for _, _, verbs in phrases.ANSWERS.values())
_IS = rf"(?:\s(?:{phrases.ADJECTIVES}))?\s?(?:(?:{_VERBS}|to)(?:(?<=[^a-zA-Z])|(?![a-zA-Z]))|[:：=—])?"
_INTRODUCTION = re.compile(
    rf"(?:(?:so|thus|hence|therefore|the|my)\b[\s,]*)*(?:(?:correct|final|right|best)\s+)*"
    rf"(?:(?:(?:{_NOUNS}){_IS}|[a-z]\s*=)\s*){{1,3}}",
    re.IGNORECASE,
)
_LETTER = re.compile(r"(?P<open>[(\[]?)\s*(?P<letter>[A-Ja-j])(?![A-Za-z0-9À-ɏ_'’])\s*(?P<close>[)\]]?)")
_BEHIND = re.compile(r"\s*(?:$|[.:,、–—-]\s|[.:,、]$|[.)](?=\S)|\(|(?:is|are)\s+(?:the\s+)?(?:correct|right|best)\b)")
_DENIAL = re.compile(
    r"[,.;，]?\s*(?:(?:and|it|but)\s+)*"
    r"(?:can(?:['’]t|not)|is(?:n['’]t|\s+not)|not|non|pas|nicht|não|не|rather\s+than|而?不是)(?:\s+be)?\s*"
    r"(\(?[A-J]\)?(?:\s*(?:,|or|nor|and)\s*\(?[A-J]\)?)*)\W*$"
)
_UNCHOSEN = re.compile(
    rf"\b(?:{phrases.NEGATIONS}|{phrases.CHANGES})(?!\w)|{phrases.DENIALS_CJK}|或|[/|+&]|[（(\[]\s*[^\W\d_]\s*[)\]）]"
    r"|\b(?:or|and|but|then|if|maybe|perhaps|possibly|false|ruled?s?\s+out|eliminate\w*|none|oder|ou|ni)\b",
    re.IGNORECASE,
)
_ANOTHER = re.compile(
    r"[\s()\[\].,:;]*(?:[A-Za-zΑ-Ωα-ωА-Яа-я](?![^\W_]|['’])(?!\s*[=<>^_(+*])(?!(?<=[aAI])\s+\w)|[Ⓐ-ⓩ𝐀-𝟿🄰-🆏])"
)
_OTHER = re.compile(  # a letter that is a word, and no article, pronoun, unit or part of a formula
    r"(?<![A-Za-z0-9À-ɏ_\\°'’-])(?<!\d\s)(?<!\\circ\s)(?!I\s+[a-z]|A\s+(?!(?:is|was|seems|looks|has|fits|works|holds|would|"
    r"could|should|may|might|too|also|then|only)\b)[a-z])[A-J](?![A-Za-z0-9À-ɏ_'’]|\s*[=<>^+*/∪∩(]|-[a-z])"
)
_DESCRIBES = re.compile(r"\s*(?:[.)](?=.)|[:：](?=\s))")
_TURNED = re.compile(
    r"(?:[,;.:!?—–(，；。、]|\b(?:(?:al)?though|whereas|while|yet|however|alternative(?:ly)?|also|correction|oops|sorry|hmm+|"
    r"actually|rather|instead|better|choose|pick|select|guess|option|choice|(?:answer|it)\s+is|it['’]s))[\s:,]*$",
    re.IGNORECASE,
)
_SECOND_OPTION = re.compile(r"[\d)}\]%]\s+[A-J][.):]\s")
_DENIED = re.compile(
    r"[\s,:;(–—-]*(?:(?:is|it|it['’]s|that['’]s|this|seems|looks|very|highly|quite|clearly|in|an?|the)\s+)*"
    r"(?:un(?:likely|true|sure|certain|convincing|tenable)|im(?:possible|probable|plausible)|in(?:valid|accurate)|refuted|"
    r"rejected|excluded|discarded|dismissed|disproved|out|fails?|failed|doubt\w*|dubious|questionable|absurd|nonsense|nope|"
    r"nah|hardly|distractor|decoy|trap|tempting|mistaken?|contradict\w*|misleading)\b\s*(?:$|[.,;:!?)—–])",
    re.IGNORECASE,
)
_REASON = re.compile(r"\b(?:because|since|as|for|while|which|so)\b|[;\n]|\.\s")
_STATED = re.compile(
    rf"(?<![A-Za-zÀ-ɏ])(?:(?:{_NOUNS})(?<!s)|choose|chose|select|selected|pick|picked|say|closest|so|thus|hence|"
    rf"therefore|go\s+with|think\s+it|it['’]s|it)(?:\s?(?:['’]s|for\s+sure|surely|clearly|definitely))?{_IS}"
    rf"[ *:]{{0,4}}\n{{0,2}}(?:(?:for\s+sure|option|choice|letter|likely)\s+)?[,*$ ]{{0,3}}"
    rf"(?:\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{{)?\s?[(\[]?(?P<letter>[A-J])(?![A-Za-z0-9À-ɏ_'’])[)\]}}$*]{{0,5}}",
    re.IGNORECASE,
)
_MATHEMATICS = re.compile(r"\s*[=<>≤≥≈^_+*\\]|-\d")
_LEADING = re.compile(r"\s*[*]{0,2}\(?(?P<letter>[A-J])(?:[).:,](?:\s|$)|\s+(?:is|because)\b|[*]{0,2}\s*$)")
_CAPITAL = re.compile(r"(?<![A-Za-z0-9À-ɏ_\\])[A-J](?![A-Za-z0-9À-ɏ_'’])")
_CALCULATION = re.compile(r"[\d=<>^_+\\Δ°]")
_BRACKETED = re.compile(r"[(\[]([A-J])[)\]]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_RECONSIDERED = re.compile(
    rf"\b(?:{phrases.HEDGES}|actually|wait|(?:no|sorry|correction)[,:]\s(?:it(?:['’]s|\sis)\s)?\(?[A-J](?!\s[a-z]))\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"\s+[a-z'’]")


def gold_letter(gold: str) -> str | None:
    """The letter of a multiple-choice gold: `B`, `(B)`, `\\text{(B)}`, `(B) some text`; else None."""
    text = plain(gold)
    match = _GOLD.fullmatch(text) or _GOLD_WITH_TEXT.fullmatch(text)
    return match[1] if match else None


def answer_letter(answer: str) -> str | None:
    """The one letter that an answer names, or None when it names none or several."""
    text = plain(answer)
    introduction = _INTRODUCTION.match(text)
    text = text[introduction.end() :] if introduction else text
    match = _LETTER.match(text)
    if match is None:
        return None
    letter, rest = match["letter"].upper(), text[match.end() :]
    marked = bool(match["close"]) or _BEHIND.match(rest) is not None
    if not marked or (match["letter"].islower() and rest.strip(" .") and not match["close"]):
        return None
    return letter if _is_plain(rest, letter, closed=bool(match["close"])) else None


def equal(letter: str, gold: str, answer: str) -> bool:
    """Whether the answer chooses the gold's letter, or repeats the text that the gold gives with it."""
    with_text = _GOLD_WITH_TEXT.fullmatch(plain(gold))
    if with_text and plain(answer).casefold() in (with_text[2].strip().casefold(), plain(gold).casefold()):
        return True
    return answer_letter(answer) == letter


def find(box: str | None, text: str) -> str | None:
    """The choice of a completion: its last box if that holds a letter alone, else the letter that `text` states.

    `text` is what follows the box, or all of it without one.
    """
    if box is not None and answer_letter(box) is not None:
        return box
    return extract_letter(text) or box


def extract_letter(text: str) -> str | None:
    """The letter that prose states last; None when that sentence denies it, hedges or names others too."""
    text = clean(text)
    mark = statements.marked(text)
    if mark is not None:
        return answer_letter(mark)
    stated = None
    for match in _STATED.finditer(text):
        if match["letter"].isupper() or (match.group()[0] not in "stTi" and _ends(text, match.end())):
            stated = match
    stated = stated or _LEADING.match(text)
    if stated is not None:
        return _unless_taken_back(text, stated.end("letter"), stated["letter"].upper())
    sentences = [part for part in _SENTENCE.split(text) if part.strip(" .*")]
    return _lone_letter(sentences[-1]) if sentences else None


def _lone_letter(sentence: str) -> str | None:
    """The one letter of a sentence: in brackets, or in a short one without mathematics."""
    bracketed = set(_BRACKETED.findall(sentence))
    if not bracketed and len(sentence) <= MAX_SHORT and not _CALCULATION.search(sentence):
        bracketed = set(_CAPITAL.findall(sentence)) - {"I"}
        if sentence.strip(" .*$") == "I":
            return "I"
    if len(bracketed) != 1 or _UNCHOSEN.search(_BRACKETED.sub("", sentence)) or _RECONSIDERED.search(sentence):
        return None
    return bracketed.pop()


def plain(text: str) -> str:
    """Normalised text with \\text{}, sizes and braces removed."""
    text = _TEXT.sub(r" \1 ", _TEXT.sub(r" \1 ", normalise(text)))  # one may stand in another: \text{(\text{A})}
    text = _SIZING.sub("", text)
    return " ".join(text.replace("{", "").replace("}", "").split())


def _unless_taken_back(text: str, end: int, letter: str) -> str | None:
    rest = text[end : end + 400]
    if (letter == "I" and _PRONOUN.match(rest)) or _MATHEMATICS.match(rest) or _RECONSIDERED.search(rest):
        return None
    reason = _REASON.search(rest)
    rest = rest[: reason.start()] if reason else rest
    return letter if _is_plain(rest, letter) else None


def _is_plain(rest: str, letter: str, *, closed: bool = False) -> bool:
    """Whether what follows the letter is a description, without connective, denial or another letter."""
    denial = _DENIAL.search(rest)
    if denial and letter not in denial[1]:
        rest = rest[: denial.start()]
    if _UNCHOSEN.search(rest) or _ANOTHER.match(rest):
        return False
    mark = _DESCRIBES.match(rest)
    verdict = not closed and (mark is None or mark.group()[-1] in ":：")  # `A: impossible`; the text of `A. Impossible`
    if verdict and _DENIED.match(rest):
        return False
    return not _names_another(rest, letter, described=closed or mark is not None)


def _names_another(rest: str, letter: str, *, described: bool) -> bool:
    """Whether another letter stands there as a choice.

    Behind `A.` or `A)` stands the option's own text, which may name points, vitamins and sets; there a letter is a
    choice only behind a word that turns to it or at the beginning of a clause. Elsewhere any letter is one.
    """
    others = [other for other in _OTHER.finditer(rest) if other.group() != letter]
    if not described:
        return bool(others)
    return _SECOND_OPTION.search(rest) is not None or any(
        _TURNED.search(rest, max(0, other.start() - 30), other.start()) for other in others
    )


def _ends(text: str, at: int) -> bool:
    return not text[at : at + 40].split("\n")[0].strip(" .*)]}$")
