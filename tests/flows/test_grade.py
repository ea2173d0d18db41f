"""``reval grade``: one answer judged as a run would, with its path through the tiers."""

from __future__ import annotations

import io
import json

import pytest
from small_run import Reval

ONE_HALF = r"\frac{1}{2}"


def test_the_exit_code_says_whether_it_is_right(reval: Reval) -> None:
    code, out, err = reval("grade", ONE_HALF, "0.5")
    assert (code, err) == (0, "")
    assert out.startswith("correct: equal (tier exact, answer '0.5'")
    code, out, _ = reval("grade", ONE_HALF, "0.6")
    assert (code, out.split(":")[0]) == (1, "incorrect")


def test_an_answer_may_begin_with_a_minus(reval: Reval) -> None:
    assert reval("grade", "-1/2", "-0.5")[0] == 0
    code, out, _ = reval("grade", "-x+1", "1+x", "--explain")
    assert code == 1
    assert "structure" in out or "numeric" in out
    code, _, err = reval("grade", "2", "--explian")
    assert code == 2
    assert "No such option: --explian" in err


def test_explain_shows_what_each_tier_said(reval: Reval) -> None:
    _, out, _ = reval("grade", "[-2,7]", r"x\ge -2, x\le 7", "--explain")
    lines = [line.split(maxsplit=1)[0] for line in out.splitlines() if line.strip()]
    assert lines == [
        "gold",
        "size",
        "choice",
        "normalised",
        "text",
        "exact",
        "limits",
        "gold",
        "answer",
        "structure",
        "correct:",
    ]
    assert "a closed interval of 2: the value -2; the value 7" in out
    _, out, _ = reval("grade", r"\frac{1}{3}", r"\int_0^1 x^2\,dx", "--explain")
    assert r"given to sympy   \frac{1}{3}  |  \int_0^1 x^2 dx" in out
    assert "symbolic         correct: math-verify: equal" in out
    _, out, _ = reval("grade", "5", "5'", "--explain")
    assert 'the answer holds "\'", which sympy would not read' in out


def test_a_whole_completion_by_the_extraction_that_is_asked_for(reval: Reval, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "We get 40 + 2. The answer is 42."
    code, out, _ = reval("grade", "42", text, "--completion", "--explain")
    assert code == 1
    assert "extraction, boxed  nothing: there is no answer to grade" in out
    code, out, _ = reval("grade", "42", text, "--completion", "--set", "reward.extraction=lenient")
    assert (code, out.split(":")[0]) == (0, "correct")
    monkeypatch.setattr("sys.stdin", io.StringIO(r"so \boxed{42}"))
    code, out, _ = reval("grade", "42", "-", "--completion", "--json", "--explain")
    told = json.loads(out)
    assert (code, told["status"], told["answer"]) == (0, "correct", "42")
    assert [step["tier"] for step in told["path"]][:2] == ["gold", "extraction, boxed"]


def test_options_of_the_policy_and_what_is_not_one(reval: Reval) -> None:
    assert reval("grade", "50", r"50\%")[0] == 0
    assert reval("grade", "50", r"50\%", "--set", "reward.policy.percent_sign_optional=false")[0] == 1
    code, _, err = reval("grade", "50", r"50\%", "--set", "reward.policy.percent=false")
    assert code == 1
    assert "Unknown grading options ['percent']. Known: ['drop_units'" in err
    code, _, err = reval("grade", "5", "5", "--set", "reward.use=my_rewards:brevity")
    assert code == 1
    assert "reval grade judges mathematics" in err
