"""Verifier: golds and answers in, verdicts out. Cheap tiers here, the symbolic tier in killable workers.

Answers that arithmetic can judge never start a process: the pool's workers start with the first pair
that needs them. Verdicts are cached by (gold, answer), timeouts included, so that one hostile answer
copied sixteen times costs one kill.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType

from reval_core.errors import ConfigError
from reval_core.verification import choices
from reval_core.verification.extraction import boxes, extract, final_part
from reval_core.verification.normalise import compact
from reval_core.verification.pool import Outcome, WorkerPool
from reval_core.verification.tiers import clean_gold, decide, symbolic_text
from reval_core.verification.verdict import (
    EXTRACTIONS,
    Extraction,
    GradingPolicy,
    Verdict,
    decided,
    failed,
    math_identity,
)

CACHE_CHARACTERS = 20_000_000
"""Golds and answers whose verdicts are kept, together: about 100 MB at most."""
_NOTHING = failed("no_answer", None, "extraction", "no answer was found in the completion")
_Key = tuple[str, str]


class Verifier:
    """Grades mathematical answers; safe from any thread and from many at once.

    Args:
        workers: processes for the symbolic tier.
        timeout_s: hard limit of wall seconds for one answer there; not part of the identity.
        extraction: `boxed` (the last balanced box or nothing) or `lenient` (also stated answers).
        policy: the choices that graders differ in.
        memory_gb: address space of one worker in GB.

    Use it as a context manager or call `close()`.
    """

    def __init__(
        self,
        workers: int = 2,
        timeout_s: float = 2.0,
        extraction: Extraction = "boxed",
        policy: GradingPolicy | None = None,
        *,
        memory_gb: float = 2.0,
    ) -> None:
        if extraction not in EXTRACTIONS:
            known = " or ".join(EXTRACTIONS)
            raise ConfigError(f"extraction must be {known}, got {extraction!r}.")
        self.extraction: Extraction = extraction
        self.policy = policy or GradingPolicy()
        self.pool = WorkerPool({"serve": "math"}, workers=workers, timeout_s=timeout_s, memory_gb=memory_gb)
        self._cache: OrderedDict[_Key, Verdict] = OrderedDict()
        self._cached_characters = 0
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, self.pool.close)

    @property
    def verifier_id(self) -> str:
        """Digest of the verifier's version, the extraction and the policy."""
        return math_identity(self.extraction, self.policy)

    def grade(self, gold: str, answer: str) -> Verdict:
        """Judge an answer that stands alone, as it would in the box."""
        return self._judge([(gold, answer)])[0]

    def verify(self, gold: str, completion: str) -> Verdict:
        """Judge a whole completion."""
        return self.verify_many([(gold, completion)])[0]

    def verify_many(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Judge (gold, completion) pairs; verdicts in the same order."""
        answers = [self.find_answer(gold, completion) for gold, completion in pairs]
        found = [(gold, answer) for (gold, _), answer in zip(pairs, answers, strict=True) if answer]
        verdicts = iter(self._judge(found))
        return [next(verdicts) if answer else _NOTHING for answer in answers]

    def find_answer(self, gold: str, completion: str) -> str | None:
        """The answer in a completion, None if there is none.

        The gold tells only whether to look for the letter of a choice, and whether a short text is the gold itself.
        """
        if self.extraction == "lenient":
            part = final_part(completion)
            if len(gold) < 300 and choices.gold_letter(gold):
                found = boxes(part)
                rest = part[found[-1][1] :] if found else part
                return choices.find(extract(part, "boxed"), rest[-2_000:])
            if len(part) <= 2_000 and "box" not in part and compact(part) == compact(clean_gold(gold)):
                return part.strip() or None
        return extract(completion, self.extraction, join_boxes=self.policy.join_boxes)

    def close(self) -> None:
        """End every worker. The verifier cannot be used for symbolic answers afterwards."""
        self._finalizer()

    def __enter__(self) -> Verifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _judge(self, pairs: Sequence[_Key]) -> list[Verdict]:
        """Verdicts for (gold, answer) pairs: cache, tiers in process, then one batch to the pool."""
        verdicts: dict[_Key, Verdict] = {}
        undecided: list[_Key] = []
        for pair in dict.fromkeys(pairs):
            verdict = self._cached(pair) or decide(*pair, self.policy)
            if verdict is None:
                undecided.append(pair)
            else:
                verdicts[pair] = verdict
        if undecided:
            tasks = [
                {"gold": symbolic_text(clean_gold(gold)), "answer": symbolic_text(answer)} for gold, answer in undecided
            ]
            outcomes = self.pool.run_many(tasks)
            for pair, outcome in zip(undecided, outcomes, strict=True):
                verdicts[pair] = _symbolic_verdict(pair[1], outcome)
        for pair, verdict in verdicts.items():
            self._remember(pair, verdict)
        return [verdicts[pair] for pair in pairs]

    def _cached(self, pair: _Key) -> Verdict | None:
        with self._lock:
            verdict = self._cache.get(pair)
            if verdict is not None:
                self._cache.move_to_end(pair)
        return verdict

    def _remember(self, pair: _Key, verdict: Verdict) -> None:
        """Keep a verdict; a worker's death says nothing about the answer and is not kept."""
        size = len(pair[0]) + len(pair[1])
        if verdict.status == "error" or size > CACHE_CHARACTERS // 1000:
            return
        with self._lock:
            if pair not in self._cache:
                self._cache[pair] = dataclasses.replace(verdict, seconds=0.0)
                self._cached_characters += size
            while self._cached_characters > CACHE_CHARACTERS:
                (gold, answer), _ = self._cache.popitem(last=False)
                self._cached_characters -= len(gold) + len(answer)


def _symbolic_verdict(answer: str, outcome: Outcome) -> Verdict:
    if outcome.kind == "timeout":
        reason = "stopped at the time limit"
        return failed("timeout", answer, "symbolic", reason, outcome.seconds)
    if outcome.kind == "died":
        reason = "the grading process died twice on this answer"
        return failed("error", answer, "symbolic", reason, outcome.seconds)
    if "error" in outcome.reply:
        reason = str(outcome.reply["error"])
        return failed("error", answer, "symbolic", reason, outcome.seconds)
    equal, reason = bool(outcome.reply.get("equal")), str(outcome.reply.get("reason", ""))
    return decided(equal, answer, "symbolic", reason, outcome.seconds)
