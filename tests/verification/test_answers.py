"""Hand-picked answers: what is equal, what is not, and which tier may say so."""

from __future__ import annotations

import pytest

from reval_core.verification import GradingPolicy, Verifier, check_gold

EQUAL = [
    ("42", "42"),
    ("$42$", "42."),
    ("\\boxed{42}", "\\$42"),
    ("1728", "1{,}728"),
    ("1728", "1\\,728"),
    ("1728", "1,728"),
    ("12345678", "12 345 678"),
    ("0.5", "\\frac{1}{2}"),
    ("\\frac12", "0.5"),
    (".185", "0.185"),
    ("\\frac{8}{5}", "1\\frac{3}{5}"),
    ("\\frac 1 2", "1/2"),
    ("\\dfrac{3}{4}i", "\\frac34i"),
    ("-\\frac{5}{12}", "\\frac{-5}{12}"),
    ("50\\%", "0.5"),
    ("50\\%", "50"),
    ("0.335", "33.5 percent"),
    ("74^\\circ", "74°"),
    ("72 degrees", "72"),
    ("15\\mbox{ cm}^2", "15"),
    ("$125$ miles", "125\\text{ miles}"),
    ("\\frac{1}{12}", "0.0833333333333333"),
    ("4.123105625617661", "\\sqrt{17}"),
    ("\\sqrt{5}", "5^{1/2}"),
    ("5+4\\sqrt{3}", "4\\sqrt 3+5"),
    ("\\frac{\\sqrt3}{3}", "\\frac{1}{\\sqrt{3}}"),
    ("(x-2)(x+2)", "x^2-4"),
    ("\\sin 2x", "2\\sin x\\cos x"),
    ("2^{10}", "1024"),
    ("10\\pi", "\\pi \\cdot 10"),
    ("x=5", "5"),
    ("5", "x = 5"),
    ("2=x", "x=2"),
    ("y = x^2+2x+1", "(x+1)^2"),
    ("34x+45y-20z+100=0", "-34x-45y+20z-100=0"),
    ("(1, 2)", "\\left(1,\\,2\\right)"),
    ("(1,\\frac92)", "(1, 4.5)"),
    ("1, 2, 3", "3, 1, 2"),
    ("\\{1,2\\}", "\\{2, 1\\}"),
    ("1\\pm\\sqrt5", "1+\\sqrt5, 1-\\sqrt5"),
    ("[0,1)", "0 \\le x < 1"),
    ("x > 5", "(5, \\infty)"),
    ("x \\in [-2,7]", "[-2,7]"),
    ("(-\\infty,2]\\cup[3,\\infty)", "[3,\\infty)\\cup(-\\infty,2]"),
    ("a=1, b=2", "b=2, a=1"),
    ("(p,q)=(3,2)", "(3,2)"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{bmatrix} 1 \\\\ 2 \\end{bmatrix}"),
    ("\\text{Sunday}", "\\textbf{sunday}"),
    ("1112112_3", "1112112_{3}"),
    ("17_8", "17_{\\text{eight}}"),
    ("11:21", "V_1:V_2 = 11:21"),
    ("1:58 am", "1:58\\text{ a.m.}"),
    ("4²", "16"),
    ("４２", "42"),
    ("0", "x^2 - x^2"),
    ("x=\\frac{84}{2}=42", "x=42"),
    ("x=42", "x=40+2=42"),
    ("600", "x \\approx 600"),
    ("-3./2", "-\\frac{3}{2}"),
    ("12", "12^{\\mathrm{th}} \\text{ grade}"),
    ("\\sqrt{5}", "√5"),
    ("4.5e33", "4.5 \\times 10^{33}"),
    ("(-1, -2)", "-(1, 2)"),
    ("42", "**42**"),
    ("[0,1)\\cup(2,3)", "{(2,3)\\cup[0,1)}"),
    ("0", "\\sqrt2\\sqrt3-\\sqrt6"),
    ("1/2004!", "\\frac{1}{2004!}"),
    ("0.1", "0,1"),
    ("3", "\\log_2 8"),
    ("\\frac{\\sqrt3}{3}", "\\frac{\\sqrt3}{3} \\approx 0.577"),
]

DIFFERENT = [
    ("42", "43"),
    ("9007199254740993", "9007199254740992"),
    ("42", "4\x002"),
    ("42", "17=42"),
    ("5", "5.001"),
    ("12", "1,23"),
    ("\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}"),
    ("1/2004!", "1/2006!"),
    ("1-\\frac1{\\mathrm e}", "1+\\frac1{\\mathrm e}"),
    ("0", "2^{-10^9}"),
    ("x=5", "2x=10"),
    ("x=42", "x=17=42"),
    ("42", "42 \\text{ or } 17"),
    ("42", "42\\text{ (or maybe 17)}"),
    ("42", "42\\text{ or not}"),
    ("42", "x = 42 = 17"),
    ("9\\text{ a.m.}", "9\\text{ p.m.}"),
    ("|a| = |b|", "|b| = |b|"),
    ("(1, 2)", "-(1, 2)"),
    ("\\(6\\)", "-\\(6\\)"),
    ("15\\mbox{ cm}^2", "15\\mbox{ cm}^7"),
    ("BEE", "-BEE"),
    ("0", "e^{-1000}"),
    ("32349", "32, 349"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("(1,2)", "\\{1,2\\}"),
    ("1, 2", "1, 2, 3"),
    ("12", "(1,2)"),
    ("\\frac13", "0.33"),
    ("\\frac13", "0.333334"),
    ("10\\text{ cm}", "10\\text{ m}"),
    ("1, 2, \\ldots, n", "1, 3, 5, \\ldots, 2n-1"),
    ("\\text{odd}", "\\text{even}"),
    ("x^2+2x+1", "x^3+2x+1"),
    ("3^{2025}", "2^{2025}"),
    ("17_8", "17_4"),
    ("1:58 am", "1:58 pm"),
    ("f(1)=0", "f(2)=0"),
    ("a=1, b=2", "a=2, b=1"),
    ("\\sqrt{x^2+1}", "\\sqrt{x^2}+1"),
    ("\\lfloor\\sqrt{n-1}\\rfloor", "\\lfloor\\sqrt{n-2}\\rfloor"),
    ("x < 1", "x > -1"),
    ("2", "[0]"),
    ("2", "[]"),
    ("cat", "act"),
    ("\\text{(C)}", "\\text{A, B, C or D}"),
    ("0", "__import__('os').system('true') or 0"),
    ("x+y-z=2", "x+y+z=2"),
    ("2007+\\frac\\pi 2", "2000+\\frac\\pi 2"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}2\\\\1\\end{pmatrix}"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_answers(boxed: Verifier, gold: str, answer: str) -> None:
    verdict = boxed.grade(gold, answer)
    assert verdict.correct, verdict
    assert (verdict.status, verdict.reward) == ("correct", 1.0)


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different_answers(boxed: Verifier, gold: str, answer: str) -> None:
    verdict = boxed.grade(gold, answer)
    assert not verdict.correct, verdict
    assert verdict.status in ("incorrect", "rejected")
    assert verdict.reward == 0.0


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("B", "B", True),
        ("\\text{(B)}", "\\textbf{B}", True),
        ("(B)", "B. Alina", True),
        ("B", "(B) 5", True),
        ("B", "\\text{A, B, C or D}", False),
        ("B", "A or B", False),
        ("B", "C", False),
        ("E", "\\mathrm{E}*2", False),
        ("(D) Alina", "D", True),
        ("(D) Alina", "Alina", True),
        ("(D) Alina", "C", False),
        ("B", "5", False),
    ],
)
def test_choices(boxed: Verifier, gold: str, answer: str, equal: bool) -> None:
    verdict = boxed.grade(gold, answer)
    assert (verdict.tier, verdict.correct) == ("choice", equal) or (verdict.correct, equal) == (True, True)


def test_policy_options_change_verdicts_and_identity() -> None:
    strict = GradingPolicy(
        percent_equals_fraction=False, percent_sign_optional=False, drop_units=False, ordered_lists=True
    )
    with Verifier(policy=strict) as verifier, Verifier() as default:
        for gold, answer in [("50\\%", "0.5"), ("50\\%", "50"), ("10", "10\\text{ cm}"), ("1, 2", "2, 1")]:
            assert default.grade(gold, answer).correct
            assert not verifier.grade(gold, answer).correct
        assert verifier.verifier_id != default.verifier_id
    with Verifier(policy=GradingPolicy(relative_tolerance=0.01)) as rough:
        assert rough.grade("3.14", "\\pi").correct
        assert not rough.grade("3.14", "3.2").correct


def test_identity_depends_on_extraction_and_policy_only() -> None:
    with Verifier(workers=1, timeout_s=1.0) as a, Verifier(workers=3, timeout_s=9.0) as b:
        assert a.verifier_id == b.verifier_id
        assert a.verifier_id.startswith("ver_")
        assert len(a.verifier_id) == 20
    with Verifier(extraction="lenient") as c:
        assert c.verifier_id != a.verifier_id


@pytest.mark.parametrize("options", [{"rounded_digits": 2}, {"relative_tolerance": 0.9}, {"relative_tolerance": -1.0}])
def test_policy_refuses_values_that_accept_anything(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        GradingPolicy(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("gold", ["", "  ", "$$", "\\boxed{}", "x" * 3000, "\\input{/etc/passwd}", "4\x002"])
def test_unusable_golds_are_refused_with_a_reason(gold: str) -> None:
    with pytest.raises(ValueError, match="gold"):
        check_gold(gold)


@pytest.mark.parametrize(
    "gold",
    ["42", "$\\frac{1}{2}$", "\\text{(C)}", "7" * 5000, "1/2004!", "(2n)!/(4^n n!)", "9^{9^{9^9}}", "5^{6.29248125}"],
)
def test_usable_golds_pass(gold: str) -> None:
    assert check_gold(gold) is None  # type: ignore[func-returns-value]


def test_empty_gold_is_an_error_and_empty_answer_no_answer(boxed: Verifier) -> None:
    assert boxed.grade("", "5").status == "error"
    assert boxed.grade("5", " ").status == "no_answer"
    assert boxed.verify("5", "").status == "no_answer"
