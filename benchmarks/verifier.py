"""The verifier beside math-verify: agreement, wrong acceptances, hostile answers, completions a second, in one run.

    python benchmarks/verifier.py                 # needs the data folder: REVAL_DATA, or ../shared/data; about ten
    minutes python benchmarks/verifier.py --only labelled hostile --json result.json
    python benchmarks/verifier.py --peer 200      # fewer pairs for math-verify, which takes most of the time

math-verify runs in the same worker processes with the same limits; where it would take too long it judges a random
sample, and its row says of how many. Near misses and samples are drawn anew each time (`--seed` repeats a run). Ends
with exit code 1 where a verdict misses a bar; seconds and ratios are printed beside their aims and fail nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spellings import near_misses, respellings

from reval_core.verification import Grader, ProblemData, Verdict, Verifier

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2
PROMPTS, SAMPLES = 640, 16
Pair = tuple[str, str]


@dataclass
class Report:
    """Rows of (what, ours, math-verify, bar), and the bars that were missed."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def add(self, what: str, ours: str, peer: str = "", bar: str = "", *, met: bool = True) -> None:
        """One row, printed at once."""
        self.rows.append((what, ours, peer, bar))
        if not met:
            self.missed.append(f"{what}: {ours}, the bar is {bar}")
        print(f"| {what} | {ours} | {peer} | {bar}{'' if met else ' MISSED'} |", flush=True)


@dataclass
class Graders:
    """Ours by extraction, math-verify in the same kind of pool, the data and the draws."""

    folder: Path
    boxed: Verifier
    lenient: Verifier
    math_verify: Grader
    peer_pairs: int
    chance: random.Random
    report: Report

    def peer(self, pairs: Sequence[Pair]) -> list[bool]:
        """math-verify's verdicts on (gold, completion)."""
        return [v.correct for v in self.math_verify.grade_batch([(ProblemData(gold=g), text) for g, text in pairs])]

    def sample(self, items: Sequence[Any]) -> list[Any]:
        """At most `peer_pairs` of the items, the same order."""
        chosen = sorted(self.chance.sample(range(len(items)), min(len(items), self.peer_pairs)))
        return [items[index] for index in chosen]

    def golds(self) -> list[str]:
        """The distinct gold answers of MATH."""
        files = ("math_train_7472.jsonl.gz", "math_test_5000.jsonl.gz")
        return list(dict.fromkeys(row["answer"] for name in files for row in read_rows(self.folder / name)))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, gzipped or not."""
    data = path.read_bytes()
    text = gzip.decompress(data).decode() if path.suffix == ".gz" else data.decode()
    return [json.loads(line) for line in text.split("\n") if line]


def boxed(answer: str) -> str:
    """A completion that ends in the answer."""
    return f"The answer is \\boxed{{{answer}}}."


def share(right: int, count: int) -> str:
    """`97.1 % of 275`."""
    return f"{100 * right / count:.1f} % of {count}" if count else "none"


def labelled(with_: Graders) -> None:
    """Agreement with the graders' own test suites: a box or a bare answer, and prose by the lenient extraction."""
    cases = read_rows(with_.folder / "verifier/cases_open.jsonl")
    cases = [case for case in cases if case["tier"] in ("core", "constructed")]
    has_box = [case["form"] == "bare" or "boxed" in case["answer"] for case in cases]
    wrong_trues = 0
    for name, wanted in (("a box or a bare answer", True), ("prose without a box", False)):
        chosen = [case for case, box in zip(cases, has_box, strict=True) if box is wanted]
        ours = [
            with_.lenient.grade(case["gold"], case["answer"])
            if case["form"] == "bare"
            else with_.lenient.verify(case["gold"], case["answer"])
            for case in chosen
        ]
        texts = [boxed(case["answer"]) if case["form"] == "bare" else case["answer"] for case in chosen]
        peer = with_.peer([(case["gold"], text) for case, text in zip(chosen, texts, strict=True)])
        agreed = sum(v.correct == c["expected"] for v, c in zip(ours, chosen, strict=True))
        peers = sum(v == c["expected"] for v, c in zip(peer, chosen, strict=True))
        wrong_trues += sum(v.correct and not c["expected"] for v, c in zip(ours, chosen, strict=True))
        met = agreed >= 0.97 * len(chosen) if wanted else agreed >= peers + 0.03 * len(chosen)
        bar = ">= 97 %" if wanted else ">= math-verify + 3 points"
        with_.report.add(f"labelled, {name}", share(agreed, len(chosen)), share(peers, len(chosen)), bar, met=met)
    with_.report.add("labelled, wrong acceptances", str(wrong_trues), "", "<= 2", met=wrong_trues <= 2)


def golds(with_: Graders) -> None:
    """MATH golds against themselves, against other spellings, and against near misses."""
    golds = with_.golds()
    same = [(gold, boxed(gold)) for gold in golds]
    spelt = [(gold, boxed(text)) for gold in golds for _, text in respellings(gold)]
    missed = [(gold, boxed(text)) for gold in golds for text in near_misses(gold, with_.chance)]
    for name, pairs, expected in (
        ("golds against themselves, refused", same, True),
        ("golds in other spellings, refused", spelt, True),
        ("near misses of golds, accepted", missed, False),
    ):
        wrong = [pair for pair, v in zip(pairs, with_.boxed.verify_many(pairs), strict=True) if v.correct != expected]
        sample = with_.sample(pairs)
        peers = sum(verdict != expected for verdict in with_.peer(sample))
        for gold, text in wrong[:10]:
            print(f"  {gold!r} and {text[19:-2]!r}")
        with_.report.add(name, f"{len(wrong)} of {len(pairs)}", f"{peers} of {len(sample)}", "0", met=not wrong)


def completions(with_: Graders) -> None:
    """Real completions with labels; apart, those whose gold and final answer are plain numbers."""
    right = total = contradicted = exact = 0
    ours_by_file: list[tuple[dict[str, Any], Verdict]] = []
    for path in sorted((with_.folder / "completions").glob("*.jsonl.gz")):
        rows = [row for row in read_rows(path) if row["label"] is not None]
        verdicts = with_.lenient.verify_many([(row["gold"], row["completion"]) for row in rows])
        agreed = sum(v.correct == row["label"] for v, row in zip(verdicts, rows, strict=True))
        pairs = list(zip(rows, verdicts, strict=True))
        ours_by_file += pairs
        right, total = right + agreed, total + len(rows)
        numbers = [(row, v) for row, v in pairs if _is_number(row["gold"]) and _is_number(row["final_answer"])]
        wrong = [(row, v) for row, v in numbers if v.correct != row["label"]]
        exact, contradicted = exact + len(numbers), contradicted + len(wrong)
        for row, v in wrong[:5]:
            print(f"  {path.name} {row['id']}: gold {row['gold']!r}, answer {v.answer!r}, label {row['label']}")
        with_.report.add(f"completions, {path.name.removesuffix('.jsonl.gz')}", share(agreed, len(rows)))
    sample = with_.sample(ours_by_file)
    peer = with_.peer([(row["gold"], row["completion"]) for row, _ in sample])
    peers = sum(verdict == row["label"] for verdict, (row, _) in zip(peer, sample, strict=True))
    overall = share(right, total)
    with_.report.add("completions, all", overall, share(peers, len(sample)), ">= 97 %", met=right >= 0.97 * total)
    bar = "0"
    with_.report.add(
        "completions, number labels contradicted", f"{contradicted} of {exact}", "", bar, met=not contradicted
    )


def _is_number(text: str | None) -> bool:
    return re.fullmatch(r"-?\d+(?:\.\d+)?", text or "") is not None


def hostile(with_: Graders) -> None:
    """Answers made to hang, exhaust or fool a grader: one by one, then the file at once by warm workers."""
    cases = read_rows(with_.folder / "verifier/hostile_open.jsonl")
    pairs = [(_expand(case["gold"]), _expand(case["answer"])) for case in cases]
    expected = [case["expected"] for case in cases]
    verdicts, seconds = [], []
    with Verifier(workers=WORKERS) as verifier:
        verifier.verify_many(_warm_up())
        for pair in pairs:
            begun = time.perf_counter()
            verdicts.append(verifier.verify(*pair))
            seconds.append(time.perf_counter() - begun)
    with Verifier(workers=WORKERS) as verifier:
        verifier.verify_many(_warm_up())
        begun = time.perf_counter()
        verifier.verify_many(pairs)
        whole = time.perf_counter() - begun
    begun = time.perf_counter()
    peer = with_.peer(pairs)
    peers_whole = time.perf_counter() - begun
    right = sum(v.correct == want for v, want in zip(verdicts, expected, strict=True))
    peers = sum(v == want for v, want in zip(peer, expected, strict=True))
    with_.report.add(
        "hostile, verdicts right", share(right, len(pairs)), share(peers, len(pairs)), "all", met=right == len(pairs)
    )
    stopped = sum(v.status == "timeout" for v in verdicts)
    with_.report.add("hostile, stopped at the limit", str(stopped), "", "0", met=not stopped)
    with_.report.add("hostile, slowest answer", f"{max(seconds):.3f} s", "", "< 0.5 s")
    with_.report.add("hostile, all, two workers", f"{whole:.2f} s", f"{peers_whole:.1f} s", "< 3 s")


def _expand(value: str | dict[str, Any]) -> str:
    """A long answer that the file keeps in parts."""
    return value if isinstance(value, str) else value["prefix"] + value["unit"] * value["times"] + value["suffix"]


def _warm_up() -> list[Pair]:
    """Mixed pairs that reach the symbolic tier, so that both workers have loaded what they use."""
    return [(f"x^{n}+\\ldots+y", boxed(f"z^{n}+\\ldots+y")) for n in range(20)]


def throughput(with_: Graders) -> None:
    """Completions a second, by warm workers and an empty cache; the median of three loads."""
    texts = [
        (row["gold"], row["completion"])
        for path in sorted((with_.folder / "completions").glob("*.jsonl.gz"))
        for row in read_rows(path)
        if row["answer_format"] == "boxed"
    ]
    loads: dict[str, tuple[Callable[[], list[Pair]], str]] = {
        f"groups, {PROMPTS} prompts x {SAMPLES}": (lambda: _groups(with_, [text for _, text in texts]), "20"),
        "real completions, no groups": (lambda: with_.chance.sample(texts, 4_000), "10"),
    }
    for name, (load, aim) in loads.items():
        rates, ratios, peers_rates = [], [], []
        for _ in range(3):
            pairs = load()
            with Verifier(workers=WORKERS) as verifier:
                verifier.verify_many(_warm_up())
                rates.append(_rate(verifier.verify_many, pairs))
            peers_rates.append(_rate(with_.peer, with_.chance.sample(pairs, min(len(pairs), with_.peer_pairs))))
            ratios.append(rates[-1] / peers_rates[-1])
        ours, peers = statistics.median(rates), statistics.median(peers_rates)
        least = " and 2,500 /s" if aim == "20" else ""
        with_.report.add(
            f"completions a second, {name}", f"{ours:,.0f} /s", f"{peers:,.0f} /s", f">= {aim} times{least}"
        )
        with_.report.add("  ratio", f"{statistics.median(ratios):.0f} times")


def _rate(grade: Callable[[Sequence[Pair]], Sequence[Any]], pairs: Sequence[Pair]) -> float:
    begun = time.perf_counter()
    grade(pairs)
    return len(pairs) / (time.perf_counter() - begun)


def _groups(with_: Graders, bodies: list[str]) -> list[Pair]:
    """The load of one round: half of a group right, in one or two spellings, the rest a few near misses."""
    pairs: list[Pair] = []
    for gold in with_.chance.sample(with_.golds(), PROMPTS):
        right = [gold] * 4 + [text for _, text in respellings(gold)][:8:7]
        wrong = near_misses(gold, with_.chance) or [str(with_.chance.randrange(10_000))]
        for _ in range(SAMPLES):
            body = with_.chance.choice(bodies).rpartition("\\boxed")[0][-1900:]
            pairs.append((gold, body + boxed(with_.chance.choice(right if with_.chance.random() < 0.55 else wrong))))
    return pairs


SECTIONS = {
    "labelled": labelled,
    "golds": golds,
    "completions": completions,
    "hostile": hostile,
    "throughput": throughput,
}


def main() -> None:
    """Run the sections, print the table, and hold the verdicts against the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--peer", type=int, default=1_000, help="pairs for math-verify where there are more")
    parser.add_argument("--seed", type=int, default=None, help="of the near misses and samples; else a fresh one")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    folder = Path(os.environ.get("REVAL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "verifier").is_dir():
        sys.exit(f"no data at {folder}: set REVAL_DATA to the folder with verifier/ and completions/")
    seed = random.SystemRandom().randrange(10**9) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {WORKERS} workers\n\n| what | ours | math-verify | bar or aim |\n|---|---|---|---|")
    report = Report()
    with (
        Verifier(workers=WORKERS, timeout_s=5.0) as strict,
        Verifier(workers=WORKERS, timeout_s=5.0, extraction="lenient") as lenient,
        Grader("math_verify_peer:accuracy", workers=WORKERS) as peer,
    ):
        with_ = Graders(folder, strict, lenient, peer, arguments.peer, random.Random(seed), report)
        for name in arguments.only:
            SECTIONS[name](with_)
    if arguments.json:
        arguments.json.write_text(json.dumps({"seed": seed, "rows": report.rows, "missed": report.missed}, indent=1))
    if report.missed:
        sys.exit("\n" + "\n".join(report.missed))


if __name__ == "__main__":
    main()
