"""Finding the answer in a completion, and doing it in linear time."""

from __future__ import annotations

import time

import pytest

from reval_core.verification import Verifier, choices
from reval_core.verification.extraction import THINKING_ENDS, boxes, closing_boxes, extract
from reval_core.verification.phrases import ANSWERS
from reval_core.verification.verdict import Extraction


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("so \\boxed{42}.", "42"),
        ("\\boxed{10} and then \\boxed{42}", "42"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\boxed{42}}", "{42}"),
        ("\\fbox{7}", "7"),
        ("\\boxed {7}", "7"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("\\boxed{3} but \\boxed{4", "3"),
        ("put it within \\boxed{}: $\\boxed{9}$ \\boxed{}", "9"),
        ("\\boxed{The answer is 18}", "18"),
        ("\\boxed{\\text{Answer: }18}", "18"),
        ("\\boxed{\\text{The day is Monday}}", "\\text{The day is Monday}"),
        ("\\boxed{1", None),
        ("\\boxed{}", None),
        ("the answer is 42", None),
        ("", None),
    ],
)
def test_boxed(completion: str, answer: str | None) -> None:
    assert extract(completion, "boxed") == answer


@pytest.mark.parametrize("end", THINKING_ENDS)
def test_only_what_follows_the_thinking_counts(end: str) -> None:
    assert extract(f"<think>\\boxed{{1}}{end} so \\boxed{{2}}", "boxed") == "2"
    assert extract(f"<think>\\boxed{{1}}{end} so it is clear", "boxed") is None
    assert extract(f"The answer is 1.{end}\nThe answer is 2.", "lenient") == "2"


def test_thinking_without_an_end_is_searched_whether_or_not_its_beginning_is_there() -> None:
    assert extract("<think>so \\boxed{2}", "boxed") == extract("so \\boxed{2}", "boxed") == "2"


@pytest.mark.parametrize(
    "completion",
    [
        "-\\boxed{5}",
        "$x = -\\boxed{5}$",
        "2\\boxed{5}",
        "\\pm\\boxed{5}",
        "2 \\cdot \\boxed{5}",
        "\\sqrt{\\boxed{5}}",
        "\\frac{1}{\\boxed{5}}",
        "\\frac{\\boxed{5}}{2}",
        "x \\ne \\boxed{5}",
        "x^{\\boxed{5}}",
        "\\cancel{\\boxed{5}}",
        "\\boxed{5}/2",
        "\\boxed{5}!",
        "\\boxed{5}^2",
        "\\boxed{5}^{n}",
        "\\boxed{5}+1",
        "\\boxed{5}6",
        "\\boxed{5} \\times 2",
        "\\boxed{5} \\times 10^{3}",
        # operators, also across a space
        "$2 + \\boxed{5}$",
        "2 * \\boxed{5}",
        "\\boxed{5} ÷ 3",
        "\\boxed{5}\\,\\pm 1",
        "\\boxed{5}\\cup\\{6\\}",
        "-(\\boxed{5})",
        # factors
        "\\boxed{5}\\alpha",
        "\\boxed{5}π",
        "\\boxed{5}xy",
        "\\boxed{5}\\,e^2",
        "\\boxed{5}\\boldsymbol{x}",
        "\\boxed{5}\\mathrm{i}",
        "$x \\boxed{5}$",
        "3\\ \\boxed{5}",
        "\\frac{2}{3}\\boxed{5}",
        "$\\log_2 \\boxed{5}$",
        "f(\\boxed{5})",
        "(\\boxed{5})(6)",
        # digits
        "0.\\boxed{5}",
        "3{,}\\boxed{5}",
        "\\boxed{5},000",
        "\\boxed{5}{7}",
        # a bound, or one side of a statement
        "x ≤ \\boxed{5}",
        "x != \\boxed{5}",
        "$x \\notin \\boxed{5}$",
        "$\\boxed{5} < x$",
        "$\\boxed{5}\\to 6$",
        # one element of several
        "\\left(x, \\boxed{5}\\right]",
        "$\\langle \\boxed{5}, 6\\rangle$",
        "(3; \\boxed{5})",
        "$6, \\boxed{5}$",
        "$\\max(3,\\boxed{5})$",
        "$\\begin{bmatrix}1 & \\boxed{5}\\end{bmatrix}$",
        "$3+\\boxed{2},\\boxed{5}$",
        # behind a unit, and words that say another value
        "\\boxed{5}\\text{ cm}+3",
        "\\boxed{5}\\%\\cdot 3",
        "\\boxed{5} \\text{ dozen}",
        "$\\boxed{5} million$",
        # arguments and bars
        "$\\binom{\\boxed{5}}{2}$",
        "$|\\boxed{5}|$",
        "\\boxed{5}²",
        "$\\boxed{5}'$",
    ],
)
def test_a_box_inside_a_larger_formula_is_no_answer(completion: str) -> None:
    assert extract(completion, "boxed") is None


@pytest.mark.parametrize(
    "completion",
    [
        "$x = \\boxed{5}$",
        "- \\boxed{5}",
        "**\\boxed{5}**",
        "1. \\boxed{5}",
        "\\boxed{5}^\\circ",
        "\\boxed{5}\\%",
        "\\boxed{5} \\text{ cm}",
        "\\boxed{5} - as was to be shown",
        "<|assistant|>\\boxed{5}",
        "$\\boxed{5} \\approx 5.01$",
        "\\boxed{5} ≈ 5.01",
        "$\\boxed{5} \\in \\mathbb{N}$",
        "2 \\\\ \\boxed{5}",
        "x \\to y \\Rightarrow \\boxed{5}",
        "$\\text{Answer: }\\boxed{5}$",
        "\\textbf{Final answer: \\boxed{5}}",
        "$\\textcolor{red}{\\boxed{5}}$",
        "\\begin{align*} x &= 3+2 \\\\ &\\boxed{5} \\end{align*}",
        "$f(1,2) = \\boxed{5}$",
        "$x\\equiv\\boxed{5}\\pmod 7$",
        "$n=3, m=4$, \\boxed{5}",
        "(a) \\boxed{5}",
        "| 3 | \\boxed{5} |",
        "> \\boxed{5}",
        "Step 2 \\boxed{5}",
        "<answer>\\boxed{5}</answer>",
        "答案是\\boxed{5}。",
        "She makes $18 a day, so \\boxed{5} I think it is $20.",
        "$\\left(\\boxed{5}\\right)$",
        "(so, \\boxed{5}, as claimed)",
        "$\\boxed{5}\\,\\mathrm{kg\\,m}^{2}\\cdot\\mathrm{s}^{-1}$",
        "\\boxed{5}\\,^\\circ\\text{C}",
        "$\\boxed{5} \\, nm$",
        "$\\boxed{5}\\,\\mu\\text{m}$",
        "$\\boxed{5}\\ \\Omega$",
        "\\boxed{5} m",
        "\\boxed{5}\\$",
        "$\\boxed{5}\\ \\text{since } x>0$",
        "\\boxed{5}\\ \\blacksquare",
        "\\boxed{5}\\tag{1}",
        "\\boxed{5} (five)",
        "\\boxed{5}, 3 of which are red",
        "_\\boxed{5}_",
        "\\boxed{5}\\boxed{}",
        "$\\Huge{\\boxed{5}}$",
        "$\\color{blue}{\\boxed{5}}$",
        "$\\displaystyle{\\boxed{5}}$",
        "\\boxed{5}\\",
    ],
)
def test_what_may_stand_beside_a_box(completion: str) -> None:
    assert extract(completion, "boxed") == "5"


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("$\\boxed{1}$, $\\boxed{2}$", "1, 2"),
        ("$\\boxed{1}$ and $\\boxed{2}$", "1, 2"),
        ("\\boxed{1} \\quad \\text{or} \\quad \\boxed{2}", "1, 2"),
        ("$k = \\boxed{45}$ and $n = \\boxed{2}$", "k = 45, n = 2"),
        ("\\boxed{(3,3)} \\text{ for part (a) and } \\boxed{(1,1)}", "(3,3), (1,1)"),
        ("$(\\boxed{2}, \\boxed{7})$", "2, 7"),
        ("First \\boxed{9}. Hence $\\boxed{1}$ and $\\boxed{2}$", "1, 2"),
        ("\\boxed{4}, \\boxed{4}", "4"),
        ("\\boxed{4}\\boxed{5}", "5"),
        ("I first thought \\boxed{1} but it is wrong: \\boxed{2}", "2"),
        ("\\boxed{1} is wrong, \\boxed{2}", "2"),
        ("Guess \\boxed{1}. Check: fails. So \\boxed{2}", "2"),
        ("not \\boxed{1} nor \\boxed{2}", "2"),
        ("Either \\boxed{1} or \\boxed{2}", None),
    ],
)
def test_boxes_are_a_list_only_when_nothing_but_commas_and_connectives_parts_them(
    completion: str, answer: str | None
) -> None:
    assert extract(completion, "boxed") == answer
    assert extract(completion, "boxed", join_boxes=False) in (boxes(completion)[-1][2], None)


def test_a_flood_of_listed_guesses_is_one_long_list() -> None:
    text = ", ".join(f"\\boxed{{{n}}}" for n in range(50))
    joined = closing_boxes(text, boxes(text))
    assert joined is not None
    assert joined.count(",") == 49


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("\\boxed{42} is the answer", "42"),
        ("\\boxed{18}\n\nThe final answer is clearly highlighted.", "18"),
        ("\\boxed{18}\n\nFinal Answer: The final answer is $19$. I hope it is correct.", "19"),
        ("Final answer: -3.5", "-3.5"),
        ("Therefore $x \\gt 5$ is the solution.", "x \\gt 5"),
        ("The answer is $\\sqrt{16}$", "\\sqrt{16}"),
        ("She has 5 eggs and sells 3.\n#### 15", "15"),
        ('{"reasoning": "...", "answer": "106"}', "106"),
        ("<answer>x < 5</answer>", "x < 5"),
        ("She makes $9 * 2 = $18 every day, so 18", "18"),
        ("-10/9", "-10/9"),
        ("so the result is \\boxed{4", None),
        ("The answer is 5+4\\sqrt{3}.", "5+4\\sqrt{3}"),
        ("The answer is [8,\\infty).", "[8,\\infty)"),
        ("The answer is negative 7.", "-7"),
        ("The answer is three fourths, i.e. 3/4.", "3/4"),
        ("The answer is 42, not 43.", "42"),
        ("Answer: 3/4 (or 0.75)", "3/4"),
        ("We checked 3 cases. So 18 is our final answer.", "18"),
        ("The answer is correct. The greater integer is 18.", "18"),
        ("The solution is $x=1$. " + "Then we check it again with care. " * 20 + "The sum is 7.", "7"),
        ("The point is (2, -1).", "(2, -1)"),
        ("The length is 2√3.", "2√3"),
        ("The polynomial is x^2 - 5x + 6.", "x^2 - 5x + 6"),
        ("\\begin{align*}x&=6\\cdot 7\\\\&=42\\end{align*}", "42"),
        ("$x = 3+4 = 7$", "x = 7"),
        ("The required value is $18$, obtained in 3 steps.", "18"),
        ("It is **42**.", "42"),
        ("The total is 1.250.000 pesos.", "1250000"),
        ("The answer is not 41, but 42.", "42"),
        ("El resultado no es 41 sino 42.", "42"),
        ("Il risultato non è 41, ma 42.", "42"),
        ("Das Ergebnis ist nicht $41$, sondern $42$.", "42"),
        ("There is no doubt that the answer is 42.", "42"),
        ("It is not difficult to see that the answer is 42.", "42"),
        ("The fraction cannot be reduced, so the answer is 42.", "42"),
        ("The answer is 42. Shall I show 2 other ways?", "42"),
        ("What remains? 42", "42"),
        ("The answer is 3.14 to 2 decimal places.", "3.14"),
        ("The answer is 42 to the nearest integer.", "42"),
        ("The answer is 42, which is correct.", "42"),
        ("The answer is 42. No other values work.", "42"),
        ("The answer is 42. It is impossible to do better.", "42"),
        ("The answer is 42. Wait time is not included.", "42"),
        ("We can say that the answer is 42.", "42"),
        ("The answer would be 42.", "42"),
        ("The wrong answer is 41; the correct answer is 42.", "42"),
        ("The answer is 42. (If order counted, the answer would be 84.)", "42"),
        ("The answer is 41. Sorry, I made a mistake: it is 42.", "42"),
        ("The answer is 41. Correction: 42.", "42"),
        ("The answer is 41. Actually, it is 42.", "42"),
        ("答案是41。不对，应该是42。", "42"),
        (
            "The answer is 42. Wait, there was a contradiction earlier.\n\nNo, it holds. So they meet after 42 miles.",
            "42",
        ),
        ("Over 5 days she reads 42 pages.", "42"),
        ("> The answer is 42", "42"),
        ("=> 42", "42"),
    ],
)
def test_lenient(completion: str, answer: str | None) -> None:
    assert extract(completion, "lenient") == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("The roots are $2$, $3$, and $5$.", "2, 3, 5"),
        ("The answers are 2, 3 and 5.", "2, 3, 5"),
        ('The final answer is "$12$ and $13$".', "12, 13"),
        ("The answer is $5$ or $6$.", "5 \\text{ or } 6"),
        ("$4$, $5$", "4, 5"),
        ("So $x=2$ and $y=-1$.", "x=2, y=-1"),
    ],
)
def test_values_side_by_side_are_all_of_them(completion: str, answer: str) -> None:
    assert extract(completion, "lenient") == answer


@pytest.mark.parametrize(
    "completion",
    [
        "The answer is not $5$.",
        "The answer is definitely not 5",
        "The answer cannot be 5",
        "The answer is wrong: 5",
        "The answer is less than 5",
        "The answer is at least 5",
        "The answer is twice 5",
        "The answer is half of 5",
        "The answer is the square of 5",
        "The answer is 5 squared",
        "The answer is $5$ factorial",
        "The answer is 5 plus six",
        "The answer is 5 or maybe 6",
        "The answer is 5 (or 6)",
        "The answer is 5 but could also be 6",
        "The answer is 5 unless it is 6",
        "The answer is 42 if x>0 and 41 otherwise.",
        "The answer is any integer from 1 to 5",
        "I do not think it is 5",
        "Not sure, 4? 5",
        "Maybe 4. Maybe 5.",
        "La respuesta no es 5",
        "Die Antwort ist nicht 5",
        "答案不是5",
        "答えは5ではない",
        "Ответ не 5",
        "Svar: ikke 5",
        "Het resultaat is niet 5.",
        "Odpověď není 5.",
        "Vastaus ei ole 5.",
        "Η απάντηση δεν είναι 5.",
        "Cevap 5 değil.",
        "정답은 5이 아닙니다.",
        "उत्तर 5 नहीं है।",
        "উত্তর 5 নয়।",
        "پاسخ 5 نیست.",
        "คำตอบไม่ใช่ 5",
        "It is not true that the answer is 5.",
        "Nobody thinks the answer is 5.",
        "I deny that the result is 5.",
        "I am not certain the answer is 5.",
        "Ich glaube nicht, dass die Lösung 5 ist.",
        "No creo que el resultado sea 5.",
        "我不觉得答案是5。",
        "I wonder whether the answer is 5.",
        "The answer is 5, which is wrong.",
        "The answer is 5? Surely 6.",
        "So the result is 5, isn't it?",
        "答案是5吗？",
        "答えは5でしょうか。",
        "The answer is 5 through 7.",
        "The answer is 5. No, that is not right.",
        "The answer is 5, no wait, 6.",
        "The answer is 5. This contradicts the condition.",
        "Die Antwort ist 5. Nein, das ist falsch.",
        "Some say the answer is 5; others say 6.",
        "A common mistake is to say the answer is 5.",
        "The answer would be 5 if the die were fair.",
        "The wrong answer is 5.",
        "5 is the wrong answer.",
        "Answer: 5 (wrong)",
        "The answer is not equal to 5.",
        "I cannot determine whether it is 5.",
        "The answer is 5 million.",
        "The answer is 5 in base 7.",
        "The answer is 5 less than 9.",
        "The answer is 5% of 60.",
        "The answer is under 5.",
        "The answer is up to 5.",
        "The answer is a divisor of 5.",
        "Die Antwort ist größer als 5.",
        "La réponse est au moins 5.",
        "La respuesta es el doble de 5.",
        "答案大于5。",
        "答案是5的倍数。",
        "Das Ergebnis ist 5 bis 7.",
        "答案是5至7。",
    ],
)
def test_what_is_denied_changed_or_hedged_is_not_stated(completion: str) -> None:
    assert extract(completion, "lenient") is None


@pytest.mark.parametrize("sign", [">", ">=", "<", "≥", "!=", "≠"])
def test_a_bound_is_no_value(sign: str, lenient: Verifier) -> None:
    assert not lenient.verify("5", f"The answer is {sign} 5.").correct


@pytest.mark.parametrize(
    "completion", ["Is the result 5?", "Could 5 be the answer?", "Är svaret 5?", "Ist das Ergebnis 5?"]
)
def test_what_is_only_asked_is_not_stated(completion: str) -> None:
    assert extract(completion, "lenient") in (None, completion)  # a short text as a whole, never its value


IN_OTHER_LANGUAGES = {
    "Chinese": ("所以最终答案是42。\n我们共检查了3次。", "故答案为：42\n（共3步）"),
    "French": ("La réponse finale est donc 42.\nNous avons fait 3 essais.", "Le résultat : $42$\nfin du calcul 3"),
    "German": ("Die gesuchte Antwort lautet 42.\nDas waren 3 Schritte.", "Das Ergebnis beträgt $42$.\n3 Proben."),
    "Spanish": ("La respuesta final es 42.\nFueron 3 pasos.", "Resultado: **42**\nVéase el paso 3."),
    "Portuguese": ("A resposta correta é 42.\nForam 3 passos.", "Solução: $42$\nVeja o passo 3."),
    "Italian": ("La risposta corretta è 42.\nSono 3 passi.", "Il risultato vale $42$.\nVedi il passo 3."),
    "Russian": ("Итоговый ответ: 42.\nВсего 3 шага.", "Ответ равен $42$.\nЭто был шаг 3."),
    "Japanese": ("したがって、答えは42です。\n全部で3通り調べた。", "正解：$42$\n手順は3つ。"),
    "Korean": ("그러므로 정답은 42입니다.\n모두 3단계였다.", "답: $42$\n3단계."),
    "Arabic": ("إذن الإجابة النهائية هي 42.\nأجرينا 3 خطوات.", "الجواب: ٤٢\nفي 3 خطوات."),
    "Hindi": ("अतः उत्तर 42 है।\nकुल 3 चरण थे।", "उत्तर: ४२\nकुल 3 चरण।"),
    "Vietnamese": ("Vậy đáp án là 42.\nCó 3 bước.", "Đáp số: $42$\nXong bước 3."),
    "Turkish": ("Cevap: 42.\nToplam 3 adım.", "Sonuç 42'dir.\nBu 3. adımdı."),
    "Polish": ("Odpowiedź to 42.\nByły 3 kroki.", "Wynik wynosi $42$.\nTo był krok 3."),
}


@pytest.mark.parametrize("language", IN_OTHER_LANGUAGES)
def test_final_answer_phrases_of_other_languages(language: str) -> None:
    assert language in ANSWERS
    for completion in IN_OTHER_LANGUAGES[language]:
        assert extract(completion, "lenient") == "42"
        assert extract(completion.replace("42", "43").replace("٤٢", "٤٣").replace("४२", "४३"), "lenient") == "43"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("b", "B"),
        ("\\text{(B)}", "B"),
        ("(\\textbf{B})", "B"),
        ("\\textbf{(\\text{B})}", "B"),
        ("Option B", "B"),
        ("The answer is (B)", "B"),
        ("选B", "B"),
        ("B, 42", "B"),
        ("B. E = mc^2", "B"),
        ("(B) the larger of the two", "B"),
        ("D. it can't be A or B", "D"),
        ("(A) or (b)", None),
        ("(A), (b), (c)", None),
        ("A.b.c.d", None),
        ("A/B", None),
        ("(A) is wrong", None),
        ("A – D is better", None),
        ("A. 5 (sorry, C)", None),
        ("A) 12, D) 13", None),
        ("A: 3; B: 4", None),
        ("A, next to C", None),
        ("A，C更好", None),
        ("A (implausible)", None),
        ("A: a trap", None),
        ("A, in doubt", None),
        ("B. vitamin C", "B"),
        ("B) the set A", "B"),
        ("B. The E. coli strain", "B"),
        ("B: 12 J", "B"),
        ("B, 25^\\circ C", "B"),
        ("B, Plan B", "B"),
        ("B, I think", "B"),
        ("B: A dog", "B"),
        ("B. Impossible", "B"),
        ("(B) impossible to tell", "B"),
        ("(A) / the last one", None),
        ("(A) or (В)", None),  # a Cyrillic letter
        ("(A)(Ⓑ)", None),
        ("[A] maybe", None),
        ("BCD=A", None),
        ("A dog", None),
        ("А", None),  # a Cyrillic letter
        ("42", None),
    ],
)
def test_one_letter_is_a_choice(answer: str, letter: str | None) -> None:
    assert choices.answer_letter(answer) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The sum is 5, which leaves two options. The answer is (C).", "C"),
        ("So, the correct answer is:\nC. True, False", "C"),
        ("It is not among the choices, but the closest is (C).", "C"),
        ("A is wrong, B is wrong, C is wrong. So D.", "D"),
        ("B is correct because A and C fail", "B"),
        ("réponse est C non A", "C"),
        ("A resposta correta é D.", "D"),
        ("正确答案是 D。", "D"),
        ("答えはDです。", "D"),
        ("Answer: I", "I"),
        ("**D**", "D"),
        ("<answer>D</answer>", "D"),
        ("The answer is not A.", None),
        ("The answer is A or B.", None),
        ("The answer is (A), (B), and (C).", None),
        ("answer: A/B/C/D", None),
        ("Everything but A", None),
        ("We exclude A.", None),
        ("Choice A is wrong; choice B is wrong", None),
        ("Answer: A. Actually it could be B", None),
        ("Answer: A. No, B.", None),
        ("The answer is A. No, it doubles.", "A"),
        ("I don't know", None),
        ("I think so", None),
        ("Since H is the field, and ΔH = 3, we need more data for", None),
        ("The determinant is $D = f_{xx}f_{yy} - f_{xy}^2$. Since $D < 0$, $(0, 0)$ is", None),
        ("Now, let's summarize all the answers:\nA. 8\nB. 9", None),
    ],
)
def test_the_letter_that_prose_states(text: str, letter: str | None) -> None:
    assert choices.extract_letter(text) == letter


def test_a_letter_is_looked_for_behind_a_box_without_one() -> None:
    with Verifier(extraction="lenient") as verifier:
        assert verifier.verify("A", "So $S=\\boxed{2}$. The answer is (A).").correct
        assert not verifier.verify("B", "\\boxed{A}, \\boxed{B}").correct
        assert not verifier.verify("A", "It matches (A). The final answer is $\\boxed{4^x}$").correct
        assert verifier.verify("(A) $4^x$", "\\boxed{4^x}").answer == "4^x"


HOSTILE_UNITS = [
    "\\boxed{",
    "\\boxed{1}",
    "\\boxed{1}, ",
    "$x=1$, ",
    "$",
    "{",
    "}",
    "\\(",
    "\\\\boxed{",
    "1,000,",
    "answer is ",
    "answer",
    "solution is at least ",
    "18 is the answer ",
    "$$ ",
    "\\[ ",
    " \n",
    "####",
    '"answer":"',
    "<answer>",
    "9",
    "(9 ",
    "1.000",
    "x = ",
    "and or ",
    "\\text{",
    "\\begin{align}\\end{x}",
    "**`__",
    "A ",
    "(A) ",
    "answer: (A",
    "答案是",
    "</think>",
]


def seconds(text: str, mode: Extraction) -> float:
    """Processor time of an extraction, the least of three."""
    times = []
    for _ in range(3):
        begun = time.process_time()
        extract(text, mode)
        choices.extract_letter(text[-2_000:])
        times.append(time.process_time() - begun)
    return min(times)


@pytest.mark.parametrize("mode", ["boxed", "lenient"])
@pytest.mark.parametrize("unit", HOSTILE_UNITS)
def test_extraction_time_is_linear(unit: str, mode: Extraction) -> None:
    short, long = (unit * (length // len(unit)) for length in (50_000, 400_000))
    # quadratic work would make this ratio 64; the constant pardons noise on tiny times
    assert seconds(long, mode) < 24 * (seconds(short, mode) + 0.002)


def test_nested_boxes_are_read_in_linear_time() -> None:
    def nested(depth: int) -> str:
        return "\\boxed{" * depth + "1" + "}" * depth

    assert boxes(nested(3)) == [(0, 25, "{{1}}")]
    times = [seconds(nested(depth), "boxed") for depth in (20_000, 40_000, 80_000, 160_000)]
    assert times[-1] < 24 * (times[0] + 0.002), times
