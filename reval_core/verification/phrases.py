"""How people say, in several languages, that this is the answer, that it is not, or that it may be. Data only.

Fragments of regular expressions; `statements` and `choices` put them together. Case is ignored throughout.
"""

from __future__ import annotations

ANSWERS: dict[str, tuple[str, str, str]] = {
    "English": (
        "answer result solution guess",
        r"s?(?![^\n]{0,12}:\W{0,4}\n\s*[-*•])",
        r"is|are|was|equals|(?:should|will|would|must)\s+be",
    ),
    "Chinese": ("答案 结果 答", r"", r"应该是|应为|等于|就是|是|为"),
    "French": ("réponse reponse résultat solution", r"", r"est(?:\s+(?:donc|de))?|vaut|sera"),
    "German": ("antwort ergebnis lösung", r"", r"ist(?:\s+(?:also|somit))?|lautet|beträgt|sind"),
    "Spanish": ("respuesta resultado solución solucion", r"", r"es(?:\s+de)?|sería"),
    "Portuguese": ("resposta resultado solução solucao", r"", r"é(?:\s+de)?|seria"),
    "Italian": ("risposta risultato soluzione", r"", r"è|vale|sarà"),
    "Russian": ("ответ результат решение", r"(?:ом|м)?", r"равен|равно|является|есть|это|составляет|будет"),
    "Japanese": ("答え 解答 回答 正解 答", r"", r"は"),
    "Korean": ("정답 답 결과", r"", r"은|는|이|가"),
    "Arabic": ("الإجابة الاجابة الجواب الناتج النتيجة الحل", r"", r"هي|هو|تساوي|يساوي"),
    "Hindi": ("उत्तर जवाब परिणाम", r"", r"है|होगा"),
    "Vietnamese": ("đáp|án đáp|số kết|quả câu|trả|lời", r"", r"là|bằng"),
    "Turkish": ("cevap cevabı yanıt sonuç", r"", r"şudur|şöyledir"),
    "Polish": ("odpowiedź odpowiedz wynik rozwiązanie", r"(?:m)?", r"to|wynosi|jest"),
    "Dutch": ("antwoord resultaat oplossing", r"", r"is"),
    "Scandinavian": ("svar resultat", r"(?:et)?", r"är|er"),
    "Finnish": ("vastaus", r"", r"on"),
    "Czech": ("odpověď výsledek", r"", r"je"),
    "Romanian": ("răspuns rezultat", r"(?:ul)?", r"este"),
    "Indonesian": ("jawaban hasil", r"(?:nya)?", r"adalah"),
    "Greek": ("απάντηση", r"", r"είναι"),
    "Thai": ("คำตอบ", r"", r"คือ"),
    "Bengali": ("উত্তর", r"", r"হল|হলো"),
    "Telugu": ("సమాధానం", r"", r"(?!)"),
    "Persian": ("پاسخ جواب", r"", r"برابر"),
}
"""By language: the nouns (`|` stands for a space), their endings, and what may join one to its value besides a colon,
an equals sign or a dash."""

ADJECTIVES = (
    r"finale?s?|definitiv[ao]|correct[ae]?|corrett[ao]|corret[ao]|końcowa|النهائية|النهائي|الصحيحة|الصحيح|نهایی|"
    r"cuối\s+cùng|đúng|akhir(?:nya)?"
)
"""What may follow the noun: la respuesta final es."""

UNSPACED = ("Chinese", "Japanese", "Korean", "Thai")
"""Languages that set no space between words, or write particles onto them."""

BARE = ("German", "Russian", "Korean", "Arabic", "Hindi", "Turkish", "Persian", "Bengali", "Telugu")
"""Languages that may put nothing between the noun and its value, the verb following or left out: उत्तर 42 है."""

INTERMEDIATE = ("result", "solution")
"""English nouns that name steps as often as the answer: they count near the end only."""

VAGUE = (
    r"(?:clearly|also|indeed|now|then|still|just|simply|always|already|in|on|an?\s+\w+er\b|correct|right|valid|given|boxed|"
    r"based|found|obtained|shown|stated|presented|formatted|helpful|consistent|clear|accurate|as\s+follows|the\s+same)\b"
)
"""Words behind `the answer is` that are no answer."""

OPTIONS = (
    r"choice|option|letter|alternativa|opción|opção|opzione|variante|вариант|选项|选择|选|보기|選択肢|الخيار|विकल्प"
)
"""Nouns for one option of a multiple choice."""

CLOSINGS = r"\b(?:is|are)\s+(?:therefore\s+)?(?:the|our|my)|\bas\s+(?:the|our|my)"
EPITHETS = r"(?:final|correct|required|desired)\s+"
"""A phrase behind its value: 18 is the final answer."""

NEGATIONS = (
    r"not|\w+n['’]t|cannot|never|neither|nor|no|wrong|incorrect|excludes?d?|excluding|except|unless|without|"
    r"(?:everything|anything|all)\s+but|different|other\s+than|anything|instead\s+of|rather\s+than|"
    r"false|untrue|nobody|hardly|nicht|kein\w*|niemand|pas|n['’]est|jamais|personne|nunca|nadie|não|ninguém|non|nessuno|"
    r"не|нет|никто|nie|ليس|ليست|لا|không|bukan|tidak|niet|geen|inte|ingen|är\s+ej|ikke|ei\s+ole|není|nu\s+este?|δεν"
)
"""Words that, between the phrase and the value, say that it is not the value."""

CHANGES = (
    r"(?:less|more|greater|fewer|smaller|larger|higher|lower|bigger)\s+than|below|above|between|any|from|"
    r"close\s+to|nearly|almost|twice|double|triple|thrice|half|(?:square|cube|root|negative|opposite|reciprocal|inverse|"
    r"factorial|logarithm|third|quarter|multiple)\s+of"
)
"""Words there that make it another value."""

CHANGES_ELSEWHERE = (
    r"(?:größer|kleiner|mehr|weniger)\s+als|das\s+Doppelte|die\s+Hälfte|(?:supérieur|inférieur)e?s?\s+à|(?:plus|moins)\s+(?:de|que)|"
    r"le\s+double|la\s+moitié|(?:mayor|menor)\s+(?:que|a)|(?:más|menos)\s+de|el\s+doble|la\s+mitad|(?:maior|menor)\s+(?:do\s+)?que|"
    r"o\s+dobro|(?:maggiore|minore)\s+di|il\s+doppio|la\s+metà|больше|меньше|вдвое"
)
"""The same in other languages, for values; CHANGES_CJK where words are not parted by spaces."""

CHANGES_CJK = r"大于|小于|超过|少于|多于|より(?:大き|小さ)"

BOUNDS = (
    r"mindestens|höchstens|au\s+(?:moins|plus)|al\s+menos|a\s+lo\s+sumo|pelo\s+menos|almeno|"
    r"at\s+(?:least|most)|up\s+to|under|over|beyond|near|within|exceed\w*|base|modulo|"
    r"(?:divisors?|factors?|digits?|remainder)\s+of"
)
"""The same, but a text without a phrase may state the least or most as its answer: we need at least 7 lines."""

DENIALS_CJK = r"不是|不为|不等于|并非|不|ない|아니|아닙|नहीं|değil|ไม่"
"""The same where words are not parted by spaces or the denial follows the value."""

RETRACTIONS = (
    r"squared|cubed|factorial|"
    r"(?:times|plus|minus|over|mod|modulo|choose)\s+(?:[\d$\\(]|(?:one|two|three|four|five|six|seven|eight|nine|ten)\b)|"
    r"divided\s+by|to\s+the\s+(?!nearest\b|closest\b)\w+|but\b|no\b,?\s+(?:wait|sorry|actually)|wait\b|sorry\b|"
    r"(?<!,\s)(?:less|fewer|more|greater)\s+than\b|of\s+[\d$\\(]|in\s+base\b|(?:hundred|thousand|[bmtr]+illion|dozen)s?\b|"
    r"(?:to|through|till|until|bis|à|до)\s+(?=[\d$\\(-])(?!\d+\s+(?:decimal|significant|d\.?p|s\.?f|place|digit|figure))|"
    r"[至到]\s?\d|"
    r"or\b(?!\s+equivalently)|unless|maybe|perhaps|possibly|(?:is|are|was|would\s+be)\s+(?:(?:the|an?)\s+)?(?:not|wrong|incorrect|false)|"
    r"(?:wrong|incorrect|false|rejected)\b|的(?:倍数|一半|平方|[约因]数)|"
    r"isn['’]t|oder|ou\b|или|或|または|또는|ではな|ではあり|じゃな|じゃあり|とは(?:思わ|言え|限ら)|[이가은는]?\s?아[니닙닌]|"
    r"नहीं|değil|নয়|కాదు|نیست|不[对是正]|是?错|n['’]est\s+pas|no\s+es|não\s+é|non\s+è|ist\s+(?:nicht|falsch)|is\s+niet|"
    r"är\s+(?:inte|fel)|er\s+(?:ikke|feil|forkert)|ei\s+ole|není|nu\s+este|nie\s+jest|не\s+(?:является|ответ)|"
    r"неверно|δεν|không\s+phải|bukan|ไม่"
)
"""What, right behind the value, takes it back or goes on computing."""

DENIED_CLAIMS = (
    rf"(?<!\w)(?:(?:{NEGATIONS}|no\s+one|none)(?!\s+(?:(?:too|very|so)\s+)?"
    r"(?:hard|difficult|doubt|question|wonder|surpris\w+|only|just))"
    r"|(?<!no )(?<!not )(?<!little )(?<!without )"
    r"(?:doubt\w*|deny|denies|denied|unlikely|impossible|refuse\w*|reject\w*))"
    r"(?!\w)[^,;:]{0,60}?(?:,?\s(?:(?<!so )that|dass|daß|que|che|что|że|že|att|at|dat|că|ότι|rằng|bahwa|että)"
    r"|\s(?:say|says|said|think|thinks|believe|believes|claim|claims|suppose|agree|accept|mean|means|sure|certain|convinced|tro|tror|creo))"
    r"|[不没未非][^,，。;；:：]{0,6}(?:认为|觉得|说|相信|同意|表示|意味着)"
)
"""What stands before a phrase that is denied as a whole: it is false that (the answer is 5)."""

DENIED_LATER = (
    r",?\s(?:which|but\s(?:this|that|it))\s(?:(?:is|was|seems|must\sbe)\s(?:\w+ly\s)?(?:wrong|false|incorrect|impossible"
    r"|not\s(?:right|correct|true|possible))|(?:can(?:not|['’]t)\sbe|isn['’]t|wasn['’]t)\s(?:right|correct|true|possible))\b"
)
"""What takes a whole phrase back behind it: the answer is 5, which is wrong."""

CORRECTIONS = (
    r"no\b[,.!]|(?:(?:oh|but|hmm+|no)\W+)?wait\b[^\n]{0,40}?\b(?:wrong|incorrect|mistake|not\s+right|contradict\w*)|oops\b|"
    r"(?:so\s+)?sorry,?\s+(?:I|that|my|it|this)\b|correction\b|scratch\s+that|"
    r"actually,?\s+(?:it|that|the\s+answer)(?:['’]s|\s+(?:is|should\s+be))\s*[-\d$\\(]|"
    r"(?:(?:but|hmm+|however)\W+)?(?:this|that|it)(?:['’]s|\s+(?:is|was|seems|must\s+be))\s+(?:\w+ly\s+)?"
    r"(?:wrong|false|incorrect|impossible|a\s+mistake|not\s+(?:right|correct|true|possible))\s*(?:[.,;:!?]|$)|"
    r"(?:(?:but|hmm+|however)\W+)?(?:this|that)\s+contradicts|nein\b|non[,.!]|нет\b|不对|不，|错了"
)
"""With what the next sentence takes a claim back: the answer is 5. No, that is wrong."""

MISTAKEN = (
    r"(?:wrong|incorrect|false|previous|earlier|tempting|naive|common|falsche|fausse|equivocada|incorrecta|неверный)"
)
"""What stands before the noun of an answer that is not the one: the wrong (answer is 5)."""

ATTRIBUTED = (
    r"(?<!\w)(?:say|says|said|think|thinks|thought|claim|claims|claimed|believe|believes|guess|guesses|argue|argues)"
    r"(?:\s+that)?"
)
"""What stands before a phrase that somebody else is said to state: some say (the answer is 5)."""

CONDITIONS = (
    r"(?<!\w)(?:whether|if|unless|suppose|assuming|wenn|falls|ob|si|se|если|ли|nếu|jika|apakah|hvis|als|om|jeśli|czy)"
    r"|如果|假如|若|是否"
)
"""What stands before a phrase that is only supposed or asked: check whether (the answer is 5)."""

ARTICLES = r"(?:the|our|my|this|your|die|das|der|la|le|el|il|a|o|het|de)(?:\s+(?:final|correct|right|required|actual))?"
"""What may stand between the two."""

INSTEAD = r"but|mais|sondern|sino|mas|bensì|ma|а|utan|men|uden|maar|lecz|ale|tetapi|melainkan|mà\s+là|而是|rather"
"""Behind a denied value, what the next one is introduced with: not 6 but 5."""

HEDGES = (
    r"(?:not|n['’]t)\s+(?:sure|think|believe)|doubt|unsure|no\s+idea|maybe|perhaps|possibly|otherwise|unless|"
    r"(?:could|might|may)\s+(?:also\s+)?be"
)
"""Anywhere in the sentence: the value is one of several."""
