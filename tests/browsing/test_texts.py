"""Formulas in a model's text: which are shown, and that none of them is more than a formula."""

import time
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reval_core.browsing.mathml import ATTRIBUTES, ELEMENTS, mathml
from reval_core.browsing.texts import MOST_SHOWN, cut, rendered

PIECES = (
    *(
        "$",
        "$$",
        "\\(",
        "\\)",
        "\\[",
        "\\]",
        "\\boxed{",
        "{",
        "}",
        "\\begin{align}",
        "\\end{align}",
        "&",
        "\\\\",
        "^",
        "_",
    ),
    *("\\frac", "\\sqrt", "\\text{", "\\href{javascript:x}{", "\\style{x:y}{", '\\class{a" b}{', "\\left(", "\\right)"),
    *(
        "<script>",
        "</math>",
        "&lt;",
        '" onload="',
        "x",
        "12",
        " ",
        "\n\n",
        "\\",
        "%",
        "#",
        "é",
        "\\def\\a{\\a\\a}",
        "\\a",
    ),
)


def formulas(text: str) -> int:
    return str(rendered(text)).count("<math")


def test_what_is_a_formula() -> None:
    assert formulas(r"so $x^2$, \(y\), \[z\], $$w$$ and \boxed{\frac{1}{2}}") == 5
    assert formulas(r"\begin{align*}a&=b\\c&=d\end{align*}") == 1
    assert rendered("pay $5 and $6 now") == "pay $5 and $6 now"
    assert rendered("pay $5 and $6 now, $x$ is").count("<math") == 1
    assert rendered(r"\$5 and $ 6 $ or $a" + "\n\nb$") == r"\$5 and $ 6 $ or $a" + "\n\nb$"
    assert rendered(r"\boxed{\{1, 2\}} is it").endswith("</math></span> is it")
    assert rendered(r"open \boxed{1") == r"open \boxed{1"


def test_a_block_ends_its_line() -> None:
    assert str(rendered("a\n\\[x\\]\n\nb")).endswith("</span>\nb")
    assert str(rendered("a\n\\(x\\)\n\nb")).endswith("</span>\n\nb")


def test_what_cannot_be_shown_stays_as_its_source() -> None:
    assert rendered(r"$x_y_z$") == '<code class="tex">$x_y_z$</code>'
    assert rendered(r"$\newcommand{\a}{b}\a$").startswith("<code")
    assert rendered("$" + "{" * 50 + "<b>" + "}" * 50 + "$").count("&lt;b&gt;") == 1
    assert mathml("x" * 3000, block=False) is None
    assert mathml("  ", block=False) is None


def test_the_numbers_of_a_display_are_left_out() -> None:
    assert "(1)" not in str(mathml(r"\begin{align}x&=1\\y&=2\end{align}", block=True))


@pytest.mark.parametrize(
    "latex",
    [
        r"\text{<script>alert(1)</script>}",
        r"\text{&lt;script&gt;alert(1)&lt;/script&gt;}",
        r"\href{javascript:alert(1)}{x}",
        r"\class{a onmouseover=alert(1)}{x}",
        r"\style{position:fixed}{x}",
        r"\color{red\" onmouseover=\"alert(1)}{x}",
        r"\hspace{99999em}x",
        r"</math><script>alert(1)</script>",
        r"\mathrm{<img src=x onerror=alert(1)>}",
    ],
)
def test_a_formula_is_known_elements_and_attributes_and_no_address(latex: str) -> None:
    found = str(mathml(latex, block=False) or "")
    assert "<script" not in found and "<img" not in found and "javascript" not in found and "99999" not in found
    assert foreign(found) == []


def foreign(markup: str) -> list[str]:
    """Elements and attributes that are none of a formula or a text."""
    elements = list(ElementTree.fromstring(f"<all>{markup}</all>").iter())
    return [e.tag for e in elements if e.tag not in {*ELEMENTS, "all", "span", "code"}] + [
        name for e in elements for name in e.attrib if name not in {*ATTRIBUTES, "class"}
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_whatever_is_said_the_page_has_its_text_and_nothing_else(text: str) -> None:
    assert foreign(str(rendered(text))) == []


@pytest.mark.parametrize("piece", ["$a ", "\\boxed{", "$x$", "\\(" + "(" * 1900 + "\\)"])
def test_a_huge_text_takes_a_second_or_two(piece: str) -> None:
    text, left = cut(piece * (2 * MOST_SHOWN // len(piece)))
    began = time.process_time()
    assert len(rendered(text)) >= MOST_SHOWN
    assert time.process_time() - began < 20
    assert left > 0
