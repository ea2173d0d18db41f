"""Identity of expressions: true ones are never refused, false ones never accepted, no verdict is a matter of luck."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reval_core.verification import exact, numeric, residue
from reval_core.verification.budget import Exhausted, allowance, spend
from reval_core.verification.parser import parse
from reval_core.verification.program import compiled
from reval_core.verification.tree import Undecided
from reval_core.verification.verdict import GradingPolicy

DEFAULT = GradingPolicy()
DRAWS = 200


def verdict(gold: str, answer: str, policy: GradingPolicy = DEFAULT) -> bool | None:
    """True, False, or None for undecided."""
    try:
        return numeric.equal(parse(gold), parse(answer), policy)
    except Undecided:
        return None


DIFFERENT = [
    # beyond any fixed precision
    ("1", "\\tanh(100)"),
    ("1", "1-e^{-150}"),
    ("1", "\\cos(10^{-26})"),
    ("1", "\\frac{e^{200}}{e^{200}+1}"),
    ("1", "(1+10^{-20})^{10^{-20}}"),
    ("e", "e^{1+10^{-60}}"),
    ("e^{200}", "e^{200}+1"),
    ("e^{200}", "e^{200}+e^{50}"),
    ("\\cosh 100", "\\sinh 100"),
    ("(1+\\sqrt2)^{200}", "(1+\\sqrt2)^{200}+(1-\\sqrt2)^{200}"),
    ("280571172992510140037611932413038677189525", "\\frac{1}{\\sqrt5}(\\frac{1+\\sqrt5}{2})^{200}"),
    ("\\pi", "\\pi+10^{-60}"),
    ("\\ln(10^{80})", "\\ln(10^{80}+1)"),
    ("\\frac{\\pi}{2}", "\\arctan(10^{60})"),
    ("10^{30}", "\\sqrt{10^{60}+1}"),
    ("2", "\\sqrt[3]{8+10^{-70}}"),
    ("0", "\\cos(10^{-20})-1"),
    ("x", "x+10^{-200}"),
    ("x^2", "x^2+10^{-100}x"),
    ("n!", "n!+10^{-60}"),
    ("x^{2016}-1", "x^{2016}+1"),
    ("(x+1)^{500}", "(x+1)^{500}+x"),
    ("2^{100n}", "2^{100n}+1"),
    ("e^{100x}", "e^{100x}+1"),
    ("5000!", "5000!+1"),
    # a decimal inside an expression is exact
    ("10000000\\pi", "10000000.5\\pi"),
    ("\\pi", "1.0000005\\pi"),
    ("\\pi", "\\pi+0.000001"),
    ("2^{50}\\sqrt2", "2^{50}\\sqrt2+10.5"),
    ("x", "1.000000000001x"),
    # kinks, cuts and jumps that lie where a few points between 0.5 and 2.5 do not see them
    ("10-x", "|x-10|"),
    ("10-x", "\\sqrt{(x-10)^2}"),
    ("x+5", "|x+5|"),
    ("20", "|x-10|+|x+10|"),
    ("0", "|x-1000|-1000+x"),
    ("0", "|2x-7|+|2x-8|-|4x-15|"),
    ("1+2+3+4+5+6+\\frac{x}{7}", "21+\\frac{x}{7}+|x-3000|+|x-3001|-|2x-6001|"),
    ("7-2x", "|x-3|+|x-4|"),
    ("2-x", "|x-2|"),
    ("x-y", "|x-y|"),
    ("|x|", "x"),
    ("x", "\\arctan(\\tan x)"),
    ("x", "\\arcsin(\\sin x)"),
    ("0", "\\lfloor x/100\\rfloor"),
    ("0", "\\lfloor\\frac{n}{1000}\\rfloor"),
    ("1", "\\lceil\\frac{n}{100}\\rceil"),
    ("\\lfloor x\\rfloor", "\\lfloor x\\rfloor+\\lfloor\\frac{x}{100}\\rfloor"),
    ("\\lfloor x\\rfloor", "\\lfloor |x|\\rfloor"),
    ("(-1)^n", "(-1)^{n+1}"),
    ("(-1)^n", "1"),
    # signs that bind otherwise than they look
    ("720", "3!!"),
    ("n!!", "(n!)!"),
    ("n!!", "n!"),
    ("\\overline{3+4i}", "3+4i"),
]
SAME = [
    # several variables, which may all be positive
    ("\\sqrt{xy}", "\\sqrt{x}\\sqrt{y}"),
    ("\\sqrt{\\frac{x}{y}}", "\\frac{\\sqrt{x}}{\\sqrt{y}}"),
    ("\\ln(xyz)", "\\ln(x)+\\ln(y)+\\ln(z)"),
    ("2\\pi\\sqrt{\\frac{L}{g}}", "\\frac{2\\pi\\sqrt{L}}{\\sqrt{g}}"),
    ("(1+\\sqrt2)^{20}", "(3+2\\sqrt2)^{10}"),
    ("\\sqrt{5+2\\sqrt6}", "\\sqrt2+\\sqrt3"),
    ("\\sqrt[3]{2+\\sqrt5}+\\sqrt[3]{2-\\sqrt5}", "1"),
    ("\\sqrt[3]{-8}", "-2"),
    ("\\sqrt[3]{-\\frac{27}{8}}", "-\\frac32"),
    ("\\frac{1}{\\sqrt2+1}", "\\sqrt2-1"),
    ("\\sqrt{-3}", "i\\sqrt3"),
    ("e^{i\\pi}", "-1"),
    ("\\overline{3-4i}", "3+4i"),
    ("\\sin 30^\\circ", "\\frac12"),
    ("\\sin 30 ^{ \\circ}", "\\frac12"),
    ("\\sin(\\frac{\\pi}{12})", "\\frac{\\sqrt6-\\sqrt2}{4}"),
    ("\\ln 8", "3\\ln 2"),
    ("\\log_2 3", "\\frac{\\ln 9}{\\ln 4}"),
    ("4\\arctan\\frac15-\\arctan\\frac{1}{239}", "\\frac{\\pi}{4}"),
    ("\\cosh^2 x-\\sinh^2 x", "1"),
    ("1.5\\pi", "\\frac{3\\pi}{2}"),
    ("0.5x", "\\frac{x}{2}"),
    ("x^{2016}-1", "(x^{1008}-1)(x^{1008}+1)"),
    ("\\frac{x^2-1}{x-1}", "x+1"),
    ("\\sqrt{x}\\sqrt{x}", "x"),
    ("\\sqrt{x^2}", "|x|"),
    ("\\sqrt[3]{x^3}", "x"),
    ("\\ln((x^2+2)^3)", "3\\ln(x^2+2)"),
    ("|x-3|", "|3-x|"),
    ("|xy|", "|x||y|"),
    ("\\lfloor x+3\\rfloor", "\\lfloor x\\rfloor+3"),
    ("\\arctan x+\\arctan y", "\\arctan y+\\arctan x"),
    ("(n+1)!", "(n+1)n!"),
    ("\\binom{n}{2}", "\\frac{n(n-1)}{2}"),
    ("(-1)^{n+2}", "(-1)^n"),
    ("15", "5!!"),
    ("48", "6!!"),
    ("n!!", "n(n-2)!!"),
    ("720", "(3!)!"),
    ("2^{n+1}", "2\\cdot 2^n"),
    ("e^{100x}+1", "1+(e^{50x})^2"),
]
OPEN = [
    ("|x|", "|x|" + "".join(f"+|x-{k}|-|{k}-x|" for k in range(1, 20))),
    ("\\sqrt{x^2}", "x"),
    ("\\ln(x^2)", "2\\ln x"),
    ("\\sqrt{x^2y}", "x\\sqrt{y}"),
    ("\\lfloor n\\rfloor", "n"),
    ("|z|^2", "z^2"),
    ("\\ln |x|", "\\ln x"),
    ("0", "\\ln(1+7^{-9999}\\pi)"),
    ("\\sqrt{-x^2-1}", "-\\sqrt{-x^2-1}"),
    ("\\infty", "\\infty+1"),
]


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different_whatever_is_drawn(gold: str, answer: str) -> None:
    outcomes = {verdict(*pair) for pair in [(gold, answer), (answer, gold)] for _ in range(DRAWS // 2)}
    assert outcomes == {False}


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_the_same_whatever_is_drawn(gold: str, answer: str) -> None:
    outcomes = {verdict(*pair) for pair in [(gold, answer), (answer, gold)] for _ in range(DRAWS // 2)}
    assert outcomes == {True}


@pytest.mark.parametrize(("gold", "answer"), OPEN)
def test_left_open_whatever_is_drawn(gold: str, answer: str) -> None:
    assert {verdict(gold, answer) for _ in range(DRAWS)} == {None}


# --- true identities, applied at random to random expressions

_ATOM = st.sampled_from(["x", "y", "2", "3", "7", "\\pi", "\\sqrt{2}", "\\sqrt{3}", "e", "\\frac{1}{3}", "0.5", "12"])


def _compound(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    shapes = ["({0})+({1})", "({0})-({1})", "({0})({1})", "\\frac{{{0}}}{{({1})^2+1}}", "({0})^2", "-({0})"]
    shapes += ["\\sin({0})", "\\cos({1})", "e^{{\\sin({0})}}", "\\sqrt{{({0})^2+2}}", "|{{{0}}}|", "\\arctan({0})"]
    return st.builds(lambda shape, a, b: shape.format(a, b), st.sampled_from(shapes), parts, parts)


_EXPRESSION = st.recursive(_ATOM, _compound, max_leaves=5)
_RATIONAL = st.recursive(
    _ATOM,
    lambda parts: st.builds(
        lambda shape, a, b: shape.format(a, b),
        st.sampled_from(["({0})+({1})", "({0})-({1})", "({0})({1})", "\\frac{{{0}}}{{({1})^2+1}}", "({0})^3"]),
        parts,
        parts,
    ),
    max_leaves=6,
)
_ALGEBRAIC = [
    ("({0})(({1})+({2}))", "({0})({1})+({2})({0})"),
    ("(({0})+({1}))^2", "({0})^2+2({1})({0})+({1})^2"),
    ("(({0})-({1}))^3", "({0})^3-3({0})^2({1})+3({0})({1})^2-({1})^3"),
    ("({0})^2-({1})^2", "(({0})-({1}))(({1})+({0}))"),
    ("\\frac{{{0}}}{{2}}-\\frac{{{1}}}{{3}}", "\\frac{{3({0})-2({1})}}{{6}}"),
    ("\\frac{{1}}{{\\sqrt{{7}}+({0})^2+3}}", "\\frac{{({0})^2+3-\\sqrt7}}{{(({0})^2+3)^2-7}}"),
    ("({0})+({1})-({2})", "-({2})+({1})+({0})"),
    ("\\frac{{{0}}}{{1+\\frac{{1}}{{({1})^2+1}}}}", "\\frac{{({0})(({1})^2+1)}}{{({1})^2+2}}"),
]
_TRANSCENDENT = [
    ("\\sin^2({0})+\\cos^2({0})", "1"),
    ("\\sin(2({0}))", "2\\sin({0})\\cdot\\cos({0})"),
    ("\\cos(({0})+({1}))", "\\cos({0})\\cdot\\cos({1})-\\sin({1})\\cdot\\sin({0})"),
    ("e^{{({0})+({1})}}", "e^{{{1}}}e^{{{0}}}"),
    ("2^{{({0})+3}}", "8\\cdot 2^{{{0}}}"),
    ("\\ln((({0})^2+1)(({1})^2+1))", "\\ln(({0})^2+1)+\\ln(({1})^2+1)"),
    ("\\ln((({0})^2+2)^3)", "3\\ln(({0})^2+2)"),
    ("\\sqrt{{9({0})^2+18}}", "3\\sqrt{{({0})^2+2}}"),
    ("|{{({0})({1})}}|", "|{{{0}}}|\\cdot|{{{1}}}|"),
]
_CONTEXTS = ["{}", "2-({})", "\\frac{{{}}}{{7}}", "x^2+({})", "({})^2", "\\sqrt{{2}}({})"]


def both_sides(
    rules: list[tuple[str, str]], parts: st.SearchStrategy[str], contexts: list[str]
) -> st.SearchStrategy[tuple[str, str]]:
    """Pairs that are equal by a rule, set into the same surroundings."""
    return st.builds(
        lambda rule, context, a, b, c: (
            context.format(rule[0].format(a, b, c)),
            context.format(rule[1].format(a, b, c)),
        ),
        st.sampled_from(rules),
        st.sampled_from(contexts),
        parts,
        parts,
        parts,
    )


@settings(max_examples=150, deadline=None)
@given(both_sides(_ALGEBRAIC, _RATIONAL, _CONTEXTS))
def test_rewritten_rational_functions_are_equal(pair: tuple[str, str]) -> None:
    assert verdict(*pair) is True
    assert verdict(*reversed(pair)) is True


@settings(max_examples=250, deadline=None)
@given(both_sides(_ALGEBRAIC + _TRANSCENDENT, _EXPRESSION, [*_CONTEXTS, "\\sin({})", "e^{{\\cos({})}}"]))
def test_rewritten_expressions_are_never_refused(pair: tuple[str, str]) -> None:
    assert verdict(*pair) is not False
    assert verdict(*reversed(pair)) is not False


# --- different by construction

_COEFFICIENTS = st.dictionaries(st.integers(0, 40), st.integers(-60, 60).filter(bool), min_size=1, max_size=5)
_INJECTIVE = ["{}", "e^{{{}}}", "\\frac{{1}}{{{}}}", "\\sin x+({})", "({})^3", "\\frac{{{}}}{{\\sqrt{{x^2+1}}}}"]
_INJECTIVE += ["x^{{\\sqrt2}}+({})", "({})\\cdot\\ln(x^2+3)", "\\arctan({})", "|x|+({})", "10^{{40}}({})"]


def polynomial(coefficients: dict[int, int], *, name: str = "x") -> str:
    """Its text, highest power first."""
    terms = [f"{value:+d}{name}^{{{power}}}" for power, value in sorted(coefficients.items(), reverse=True)]
    return "".join(terms).removeprefix("+")


@st.composite
def near_misses(draw: st.DrawFn) -> tuple[dict[int, int], dict[int, int]]:
    """Two polynomials that differ in one coefficient, one sign, one exponent or one small term."""
    before = draw(_COEFFICIENTS)
    power = draw(st.sampled_from(sorted(before)))
    after = dict(before)
    kind = draw(st.sampled_from(["coefficient", "sign", "exponent", "term"]))
    if kind == "coefficient":
        after[power] += draw(st.sampled_from([-1, 1, 10])) * (2 if abs(after[power]) == 1 else 1)
        after = {key: value for key, value in after.items() if value}
    elif kind == "sign":
        after[power] = -after[power]
    else:
        moved = draw(st.integers(0, 60).filter(lambda new: new not in before))
        after[moved] = after.pop(power) if kind == "exponent" else 1
    return before, after or {0: 1000}


@settings(max_examples=300, deadline=None)
@given(near_misses(), st.sampled_from(_INJECTIVE))
def test_perturbed_functions_are_never_accepted(pair: tuple[dict[int, int], dict[int, int]], context: str) -> None:
    left, right = (context.format(polynomial(coefficients)) for coefficients in pair)
    assert verdict(left, right) is not True
    assert verdict(right, left) is not True


@settings(max_examples=150, deadline=None)
@given(near_misses(), st.sampled_from(["{}", "3-({})", "\\frac{{2}}{{{}}}", "\\pi({})", "({})^{{200}}+1"]))
def test_perturbed_rational_functions_are_refused(pair: tuple[dict[int, int], dict[int, int]], context: str) -> None:
    left, right = (context.format(polynomial(coefficients)) for coefficients in pair)
    opposite = {power: -value for power, value in pair[1].items()}
    assert verdict(left, right) is (context.startswith("({})^{{200") and pair[0] == opposite)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["\\sqrt{{2}}", "\\pi", "\\ln 3", "\\sin 1", "\\sqrt[3]{{5}}", "e^{{\\pi}}", "\\arctan 2"]),
    st.integers(1, 10**30),
    st.integers(-(10**30), 10**30),
    st.integers(-80, 30),
    st.sampled_from([-3, -1, 1, 2]),
)
def test_perturbed_constants_are_refused(root: str, factor: int, shift: int, magnitude: int, change: int) -> None:
    base = f"{factor}{root.format()}+({shift})"
    assert verdict(base, f"{shift}+{factor}\\cdot {root.format()}") is True
    assert verdict(base, f"{base}+({change})\\cdot 10^{{{magnitude}}}") is False


# --- decimals


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("\\sqrt2", "1.414214", True),
        ("1.414214", "\\sqrt2", True),
        ("-\\sqrt2", "-1.414214", True),
        ("e^{200}", "7.225973768125749e86", True),
        ("e^{-20}", "0.000000002061153622", True),
        ("2\\sqrt2", "2\\cdot 1.414214", False),
        ("\\sqrt2+1", "1.414214+1", False),
        ("0.333333x", "\\frac{x}{3}", False),
        ("i\\sqrt2", "1.414214", False),
        ("0.5", "0.50", True),
        ("0.5", "\\sin 30^\\circ", True),
        ("0.500001", "\\sin 30^\\circ", False),
    ],
)
def test_only_a_lone_decimal_is_a_rounded_value(gold: str, answer: str, equal: bool) -> None:
    assert verdict(gold, answer) is equal


def test_a_relative_tolerance_is_for_constants() -> None:
    loose = GradingPolicy(relative_tolerance=0.01)
    assert verdict("\\sqrt2", "1.41", loose) is True
    assert verdict("\\sqrt2", "1.39", loose) is False
    assert verdict("\\frac13", "0.33", loose) is True
    assert verdict("100x", "101x", loose) is False


# --- equations up to a factor


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("2x-4y", "x-2y", True),
        ("2x-4y", "2y-x", True),
        ("x^2+y^2-1", "\\frac{x^2}{2}+\\frac{y^2}{2}-\\frac12", True),
        ("x^2+y^2-1", "x^2+y^2+1", False),
        ("\\sin x-y", "3y-3\\sin x", True),
        ("\\sin x-y", "3y-2\\sin x", False),
        ("x'-2x", "2x'-4x", True),
        ("x^{2016}-y+1", "x^{2016}-y-1", False),
    ],
)
def test_proportional(left: str, right: str, expected: bool) -> None:
    assert {numeric.proportional(parse(left), parse(right)) for _ in range(20)} == {expected}


def test_an_equation_that_always_holds_is_undecided() -> None:
    with pytest.raises(Undecided):
        numeric.proportional(parse("x-x"), parse("x-y"))


# --- reading


@pytest.mark.parametrize("text", ["4{5}", "{4}{5}", "{5}6", "5 {6}", "{2}{10}", "4{5}x", "{{5}}{{6}}", "n!!!", "3!!!!"])
def test_juxtaposed_digits_and_runs_of_factorials_are_not_read(text: str) -> None:
    with pytest.raises(Undecided):
        parse(text)


@pytest.mark.parametrize("text", ["\\overline{z}", "\\overline{AB}", "0.1\\overline{2}", "\\overline{12}", "\\bar{x}"])
def test_a_bar_over_anything_but_a_complex_constant_is_not_read(text: str) -> None:
    with pytest.raises(Undecided):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{4}x", "4x"),
        ("4{x}", "4x"),
        ("5(6)", "30"),
        ("2^{3}\\cdot{5}", "40"),
        ("\\frac{1}{2}{x}", "x/2"),
        ("x^{2}{y}", "x^2y"),
        ("\\sqrt{2}{x}", "\\sqrt2x"),
    ],
)
def test_grouping_braces_beside_letters_are_products(text: str, value: str) -> None:
    assert verdict(value, text) is True


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("A_n", "A", None),
        ("C_5", "C", None),
        ("F_{16}", "F", None),
        ("12_3", "12_3", True),
        ("12_3", "12", True),
        ("12_3", "5_{10}", False),
        ("FF_{16}", "0FF_{16}", True),
        ("1_6", "1_5", False),
        ("12_3", "19_3", False),
        ("19_3", "19", None),
        ("x", "12_3", None),
    ],
)
def test_a_base_needs_digits_that_it_has(gold: str, answer: str, expected: bool | None) -> None:
    assert exact.equal_in_base(gold, answer) is expected


# --- cost

COSTLY = [
    "+".join(["\\frac{5000!}{4999!}"] * 90),
    "+".join(f"\\frac{{1}}{{({4000 + k})!}}" for k in range(90)),
    "+".join(f"7^{{{9999 - k}}}" for k in range(150)),
    "5000!\\ln 7",
    "\\sqrt{7^{9999}+1}\\ln 7",
    "+".join(f"\\lfloor x/{k}\\rfloor" for k in range(2, 99)),
    "+".join(f"|x-{k}|" for k in range(1, 99)),
    "\\sin(" * 45 + "x" + ")" * 45,
    "+".join(["\\arcsin(\\sin x)"] * 90),
    "((x+1)^{9999})^{9999}",
]


@pytest.mark.parametrize("text", COSTLY)
def test_no_comparison_costs_more_than_its_allowance(text: str) -> None:
    for other in ("0.123456789", "x", f"{text}+\\sin x-\\sin x"):
        granted = 100_000.0
        with allowance(granted):
            verdict(other, text)
            spend(granted - 40_000)  # would raise if the comparison had taken more than 40 ms of counted work


def test_allowances_nest_and_end() -> None:
    with allowance(100):
        with pytest.raises(Exhausted), allowance(50):
            spend(60)
        spend(40)
        with pytest.raises(Exhausted):
            spend(40)
    spend(1e9)


@pytest.mark.long
def test_the_memory_of_parsed_texts_is_bounded() -> None:
    def fill(start: int) -> None:
        for number in range(start, start + 60):
            verdict(f"{number}+" + "+".join(["abcabcabc"] * 100), "x")

    fill(0)
    tracemalloc.start()
    try:
        fill(60)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_500_000


# --- the field


def test_the_field_has_the_roots_that_answers_need() -> None:
    for number in (-1, 2, 3, 5, 6, 7, 10, 11, 13, 15, 17, 19, 23):
        pair = compiled(parse(f"\\sqrt{{{number}}}\\cdot\\sqrt{{{number}}}"), parse(str(number)))
        left, right = residue.values(pair)
        assert left == right


def test_factors_and_signs_of_roots_agree_in_the_field() -> None:
    for gold, answer in (
        ("\\sqrt{12}", "2\\sqrt3"),
        ("\\sqrt{6}", "\\sqrt2\\cdot\\sqrt3"),
        ("\\frac{1}{\\sqrt{-2}}", "-\\frac{i\\sqrt2}{2}"),
    ):
        left, right = residue.values(compiled(parse(gold), parse(answer)))
        assert left == right
