"""Agreement with labelled cases, hostile cases and real completions; skipped without the shared data."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from reval_core.verification import Verdict, Verifier
from reval_core.verification.tiers import check_gold

pytestmark = pytest.mark.slow


def read_rows(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def grade_case(verifier: Verifier, case: dict[str, Any]) -> Verdict:
    if case["form"] == "bare":
        return verifier.grade(case["gold"], case["answer"])
    return verifier.verify(case["gold"], case["answer"])


def expand(value: str | dict[str, Any]) -> str:
    if isinstance(value, str):
        return value
    return str(value["prefix"] + value["unit"] * value["times"] + value["suffix"])


def test_agreement_with_labelled_cases(verifier_data: Path, lenient: Verifier) -> None:
    cases = [c for c in read_rows(verifier_data / "verifier/cases_open.jsonl") if c["tier"] in ("core", "constructed")]
    wrong = [(case, verdict) for case in cases if (verdict := grade_case(lenient, case)).correct != case["expected"]]
    wrong_trues = [case for case, verdict in wrong if verdict.correct]
    agreement = 1 - len(wrong) / len(cases)
    print(f"\nagreement {agreement:.4f} on {len(cases)} cases, {len(wrong_trues)} wrong acceptances")
    assert agreement >= 0.97
    assert len(wrong_trues) <= 2


@pytest.mark.parametrize("mode", ["boxed", "lenient"])
def test_hostile_cases(verifier_data: Path, mode: str, request: pytest.FixtureRequest) -> None:
    verifier: Verifier = request.getfixturevalue(mode)
    for case in read_rows(verifier_data / "verifier/hostile_open.jsonl"):
        verdict = verifier.verify(expand(case["gold"]), expand(case["answer"]))
        assert verdict.correct == case["expected"], (case["why"], verdict)
        assert verdict.status not in ("timeout", "error"), (case["why"], verdict)


@pytest.mark.parametrize(
    ("name", "minimum"),
    [("rollout_groups_areal", 0.99), ("samples8_qwen25_math", 0.995), ("long_cot_sky_t1", 0.995)],
)
def test_agreement_on_real_completions(verifier_data: Path, boxed: Verifier, name: str, minimum: float) -> None:
    rows = [r for r in read_rows(verifier_data / f"completions/{name}.jsonl.gz") if r["label"] is not None]
    verdicts = boxed.verify_many([(row["gold"], row["completion"]) for row in rows])
    agreed = sum(verdict.correct == row["label"] for verdict, row in zip(verdicts, rows, strict=True))
    print(f"\n{name}: agreement {agreed / len(rows):.4f} on {len(rows)} completions")
    assert agreed / len(rows) >= minimum
    assert not any(v.correct and not r["label"] for v, r in zip(verdicts, rows, strict=True))


def test_golds_equal_themselves_and_not_their_near_misses(verifier_data: Path, boxed: Verifier) -> None:
    golds = list(dict.fromkeys(row["answer"] for row in read_rows(verifier_data / "math_test_5000.jsonl.gz")))
    for gold in golds:
        check_gold(gold)
    verdicts = boxed.verify_many([(gold, f"so \\boxed{{{gold}}}.") for gold in golds])
    assert [verdict for verdict in verdicts if not verdict.correct] == []
    chance = random.Random(1)
    pairs = []
    for gold in golds:
        places = [index for index, char in enumerate(gold) if char.isdigit()]
        if places:
            place = chance.choice(places)
            digit = chance.choice([d for d in "0123456789" if d != gold[place]])
            pairs.append((gold, f"\\boxed{{{gold[:place]}{digit}{gold[place + 1 :]}}}"))
    accepted = [pair for pair, verdict in zip(pairs, boxed.verify_many(pairs), strict=True) if verdict.correct]
    print(f"\n{len(accepted)} of {len(pairs)} near misses accepted")
    assert len(accepted) <= 2, accepted
