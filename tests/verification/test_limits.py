"""Static limits, the strict grammar, and that no text is ever run."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reval_core.verification import STATUSES, Verifier, exact, limits, numeric
from reval_core.verification.normalise import normalise
from reval_core.verification.parser import parse
from reval_core.verification.tiers import decide
from reval_core.verification.tree import Undecided
from reval_core.verification.verdict import GradingPolicy

DEFAULT = GradingPolicy()

REFUSED = [
    "9^{9^{9^9}}",
    "9^9^9^9",
    "9**9**9**9",
    "2^{2^{2^{49}}}",
    "10^{10^{10}}",
    "2^{-10^9}",
    "7^{10^{18}} \\mod 13",
    "2^{99999}",
    "(10^{10})!",
    "100000000!",
    "3!!!!!!!!",
    "((10)!)!",
    "1e999999999",
    "\\binom{10^9}{5\\cdot 10^8}",
    "\\sum_{k=1}^{10^9} k^k",
    "1" * 301,
    "(" * 51 + "1" + ")" * 51,
    "1" + "+1" * 201,
    "x" * 2001,
    "\\input{/etc/passwd}",
    "\\write18{ls}",
    "\\sin(10^{10^{10}})",
    "\\begin{vmatrix}" + "a&b\\\\" * 9 + "\\end{vmatrix}",
]

ALLOWED = [
    "42",
    "x^{2^n}",
    "e^{x^2}",
    "2^{2^{10}}",
    "10^{-5}",
    "74^\\circ",
    "2004!",
    "(2n)!",
    "\\binom{2020}{1010}",
    "3^{2025}",
    "\\sum_{k=1}^{100} k",
    "1e-8",
    "x^{60}+x^{59}",
    "\\frac{(2n)!}{4^n n!}",
]


@pytest.mark.parametrize("text", REFUSED)
def test_over_a_limit(text: str, boxed: Verifier) -> None:
    assert limits.check(normalise(text))
    verdict = boxed.grade("4", text)
    assert verdict.status == "rejected" or (verdict.tier, verdict.correct) == ("exact", False)


@pytest.mark.parametrize("text", ALLOWED)
def test_within_limits(text: str) -> None:
    assert limits.check(normalise(text)) is None


def test_equal_texts_are_accepted_before_any_limit(boxed: Verifier) -> None:
    number = "7" * 5000
    assert boxed.grade(number, number).correct
    assert boxed.grade(number, number[:-1] + "8").status == "incorrect"
    assert boxed.grade(number, "x" * 5000).status == "rejected"


@pytest.mark.parametrize(
    "unit",
    [
        "^",
        "{",
        "2^",
        "!",
        ")!",
        "(1)!",
        "\\",
        "1,",
        "\\frac",
        "_{",
        "9^{",
        "\\text{",
        "$",
        " ",
        "a ",
        "1 ",
        "|",
        "\\sin ",
        "\\ln{",
        "\\sin\\sqrt",
        "\\sin 2(",
        "\\ln|",
        "\\cos x^",
        "\\log_",
    ],
)
def test_no_short_answer_is_slow_in_this_process(unit: str) -> None:
    """In processor time: the machine may have other things to do."""
    for length in (300, 1900, 19_000):
        begun = time.thread_time()
        decide("4", unit * (length // len(unit)), DEFAULT)
        assert time.thread_time() - begun < 1.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1\\frac{3}{5}", Fraction(8, 5)),
        ("1 3/5", Fraction(8, 5)),
        ("\\frac12", Fraction(1, 2)),
        ("2^{-3}", Fraction(1, 8)),
        ("\\sqrt{\\frac{9}{4}}", Fraction(3, 2)),
        ("5!", Fraction(120)),
        ("\\binom{5}{2}", Fraction(10)),
        ("-0.25", Fraction(-1, 4)),
        ("8^{2/3}", Fraction(4)),
        ("1e-3", Fraction(1, 1000)),
        ("-2^2", Fraction(-4)),
        ("|{-3}|", Fraction(3)),
        ("6/2*3", Fraction(9)),
    ],
)
def test_exact_values(text: str, value: Fraction) -> None:
    assert exact.rational(parse(text)) == value


@pytest.mark.parametrize(
    "text", ["1/2x", "f(x)", "\\ln 2(x+1)", "cat", "1 2", "x2", "\\foo", "2^3^4", "a_{n+1}", "\\sin^{-1} x", ""]
)
def test_texts_outside_the_grammar_are_undecided(text: str) -> None:
    with pytest.raises(Undecided):
        parse(text)


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("\\frac13", "0.333333", True),
        ("\\frac13", "0.33333", False),
        ("\\frac23", "0.666667", True),
        ("\\frac23", "0.666668", False),
        ("\\sqrt2", "1.4142135623730951", True),
        ("\\sqrt2", "1.4142145", False),
        ("0.5", "0.500001", False),
        ("1", "0.9999999", False),
        ("\\pi", "3.141593", True),
        ("\\pi", "3.14", False),
        ("e^{i\\pi}", "-1", True),
        ("\\sin 30^\\circ", "\\frac12", True),
    ],
)
def test_decimals_equal_exact_values_only_when_rounded_rightly(gold: str, answer: str, equal: bool) -> None:
    assert numeric.equal(parse(gold), parse(answer), DEFAULT) is equal


def test_sqrt_of_a_square_is_left_to_the_symbolic_tier() -> None:
    with pytest.raises(Undecided):
        numeric.equal(parse("\\sqrt{x^2}"), parse("x"), DEFAULT)


FRAGMENTS = [
    "1",
    "23",
    "0.5",
    "x",
    "y",
    "e",
    "i",
    "n",
    "+",
    "-",
    "*",
    "/",
    "^",
    "_",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "|",
    ",",
    ";",
    ":",
    "=",
    "<",
    "!",
    "%",
    "$",
    " ",
    ".",
    "\\frac",
    "\\sqrt",
    "\\pi",
    "\\text{",
    "\\{",
    "\\}",
    "\\le ",
    "\\in ",
    "\\cup ",
    "\\pm ",
    "\\circ",
    "\\infty",
    "\\log_",
    "\\sin ",
    "\\binom",
    "\\lfloor ",
    "\\rfloor",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "&",
    "\\\\",
    " or ",
    "₁",
    "²",
    "½",
    "π",
    "°",
    "\ud800",
    "\x00",
    "٤",
    "\\approx ",
    "\\boxed{",
    "\\left(",
    "a.m.",
    "cm",
    "12:30",
    "_8",
    "e9",
    "'",
]


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14), st.lists(st.sampled_from(FRAGMENTS), max_size=14))
def test_no_text_raises_and_equality_with_itself_holds(gold: list[str], answer: list[str]) -> None:
    left, right = "".join(gold), "".join(answer)
    verdict = decide(left, right, DEFAULT)
    assert verdict is None or verdict.status in STATUSES
    if "boxed" not in left:
        same = decide("7" + left, "7" + left, DEFAULT)
        assert same is not None
        assert same.correct


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_no_unicode_raises(gold: str, answer: str) -> None:
    decide(gold, answer, DEFAULT)


PAYLOADS = [
    "__import__('os').system('touch {0}')",
    "open('{0}','w').write('x')",
    "(lambda: open('{0}', 'w'))()",
    "[open('{0}','w'), 2]",
    "\\sqrt{{__import__('pathlib').Path('{0}').touch()}}",
    "getattr(__import__('pathlib').Path('{0}'), 'touch')() or 0",
    "\\text{{__import__('os').system('touch {0}')}}",
    "x.__class__.__mro__[1].__subclasses__()",
    "exec(\"open('{0}','w')\")",
    "\\pi if open('{0}','w') else 1",
    "1 + eval(\"open('{0}', 'w')\")",
    "\\operatorname{{eval}}(open('{0}','w'))",
]


@pytest.mark.parametrize("gold", ["0", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", "x=1", "\\pi", "\\log 8"])
def test_no_payload_runs(gold: str, lenient: Verifier, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    answers = [payload.format(marker) for payload in PAYLOADS]
    for verdict in lenient.verify_many([(gold, f"\\boxed{{{answer}}}") for answer in answers]):
        assert not verdict.correct
    for answer in answers:
        assert not lenient.verify(gold, answer).correct
    assert not marker.exists()
