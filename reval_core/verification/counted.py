"""Words behind a number: which name what is counted (5 paths), and which say something about the value (5 million)."""

from __future__ import annotations

import re

_SAYS_VALUE = frozenset(
    re.findall(
        r"\S+",
        """
        zero one two three four five six seven eight nine ten eleven twelve tens hundred hundreds thousand thousands
        googol dozen dozens score scores gross pair pairs couple couples lakh lakhs crore crores half halves third
        thirds quarter quarters first second squared cubed factorial plus minus times over divided mod modulo base power
        powers root percent permille permil ppm ppb twice thrice double triple quadruple doubled tripled quadrupled
        halved quartered negated inverted reciprocal inverse opposite imaginary recurring repeating periodic binary
        ternary octal hexadecimal hex decimal or and not maybe either neither but is are no nor none never negative to
        than less least more most fewer about around roughly approximately nearly almost circa between below above up if
        except without isn't aren't wasn't unless perhaps probably possibly supposedly also then equals even odd ish so
        wrong wrongly false falsely incorrect incorrectly invalid impossible rejected excluded extraneous discarded
        ignored guess guessed guesses something import sin cos tan log sqrt exp ln pi tau
        """,
    )
)
_PARTS_AND_MULTIPLES = re.compile(
    r"(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|(?:thir|four|fif|six|seven|eigh|nine)teen|hundred|thousand"
    r"|(?:twent|thirt|fort|fift|sixt|sevent|eight|ninet)ie)ths?|[a-z]*[a-z]illi(?:on|ard)(?:s|en|es|i|ths?)?|mill?ones"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
    r"|[a-zäöüß]+[zß]ig|[a-zäöüß]+(?:hundert|tausend)"
)
_SAYS_VALUE_ELSEWHERE = frozenset(
    re.findall(
        r"\S+",
        """
        null zwei drei vier fünf sechs sieben acht neun zehn zwölf hundert tausend dutzend halb halbe hälfte drittel
        viertel hoch quadrat nicht kein keine oder und vielleicht etwa ungefähr mindestens höchstens wenigstens mehr
        weniger falsch deux trois quatre cinq sept huit neuf dix onze douze mille millier milliers douzaine douzaines
        demi demie moitié tiers quart pas ou et peut environ presque moins faux dos tres cuatro cinco seis siete ocho
        nueve diez cien ciento mil docena docenas medio mitad tercio cuarto cuadrado ni quizás quizá aproximadamente
        cerca casi menos más falso tre quattro cinque sette otto nove dieci cento mila dozzina dozzine mezzo metà
        terzo forse quasi meno dois três quatro sete oito dez cem dezena dezenas dúzia dúzias metade não talvez quase
        mais
        """,
    )
)
"""The same in German, French, Spanish, Italian and Portuguese; other scripts are not read at all but for TRANSLATED."""

TRANSLATED = {
    "米": "m", "厘米": "cm", "公分": "cm", "毫米": "mm", "千米": "km", "公里": "km", "平方米": "m^2",
    "平方厘米": "cm^2", "立方米": "m^3", "立方厘米": "cm^3", "克": "g", "千克": "kg", "公斤": "kg", "升": "L",
    "毫升": "mL", "秒": "s", "分钟": "min", "小时": "h", "天": "days", "日": "days", "周": "weeks", "年": "years",
    "岁": "years", "度": "degrees", "元": "yuan", "円": "yen", "通り": "items",
} | dict.fromkeys("个個种種次人名只条條张張本件位颗棵辆套组組瓶杯枚回개명", "items")  # fmt: skip
"""Units and counters that are written behind a number without a space: 5个, 5厘米."""


def says_value(word: str) -> bool:
    """Whether a word says something about the value beside it, so that it names nothing that is counted."""
    return word in _SAYS_VALUE or word in _SAYS_VALUE_ELSEWHERE or _PARTS_AND_MULTIPLES.fullmatch(word) is not None
