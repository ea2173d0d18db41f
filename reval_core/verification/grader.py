"""Grader: the one door through which the pipeline grades, whatever the reward is."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from reval_core.errors import ConfigError
from reval_core.verification.explain import Step, explain
from reval_core.verification.pool import Outcome, WorkerPool
from reval_core.verification.reward import problem_to_json
from reval_core.verification.verdict import (
    Extraction,
    GradingPolicy,
    Verdict,
    failed,
    identity,
    verdict_from_json,
)
from reval_core.verification.verifier import Verifier


class Grader:
    """Grades (problem, completion) items by mathematics or by a custom reward; safe from any thread.

    Args:
        use: `math`, or `package.module:attribute` of a reward of your own (see reward.py).
        args: keyword arguments of your own reward; plain JSON data; part of its identity.
        workers, timeout_s, memory_gb: the processes and the hard limits of one completion.
        extraction, policy: as in Verifier; for `math` only. `policy` may be a mapping of options.

    A custom reward runs in workers of the same kind as the symbolic tier and is called with one completion
    at a time, so that a hang or an exception costs that completion alone. It is imported there and
    never in this process.
    """

    def __init__(
        self,
        use: str = "math",
        args: Mapping[str, Any] | None = None,
        *,
        workers: int = 2,
        timeout_s: float = 2.0,
        memory_gb: float = 2.0,
        extraction: Extraction = "boxed",
        policy: GradingPolicy | Mapping[str, Any] | None = None,
    ) -> None:
        self.use = use
        self.args = dict(args or {})
        self._backend: _MathBackend | _CustomBackend
        if use == "math":
            if self.args:
                raise ConfigError("The reward 'math' takes no args; its options are in policy.")
            verifier = Verifier(workers, timeout_s, extraction, grading_policy(policy), memory_gb=memory_gb)
            self._backend = _MathBackend(verifier)
            return
        if ":" not in use:
            raise ConfigError(f"Unknown reward {use!r}. Known: math; or give 'package.module:attribute'.")
        pool = WorkerPool(
            {"serve": "reward", "use": use, "args": self.args},
            workers=workers,
            timeout_s=timeout_s,
            memory_gb=memory_gb,
        )
        self._backend = _CustomBackend(pool, use, self.args)

    @property
    def grader_id(self) -> str:
        """The verifier_id: for a custom reward the digest of its name, version and args.

        A custom reward's name and version are asked of a worker, which starts it. Raises
        ConfigError when it cannot be imported.
        """
        return self._backend.identity()

    def grade_batch(self, items: Sequence[tuple[Any, str]]) -> list[Verdict]:
        """Verdicts for (problem, completion) items, in order. A failing item never fails the batch."""
        return self._backend.grade(items)

    def explain(self, gold: str, completion: str) -> list[Step]:
        """The path of a completion to its verdict, for people; a custom reward has none."""
        if not isinstance(self._backend, _MathBackend):
            return []
        return explain(self._backend.verifier, gold, completion, completion=True)

    def close(self) -> None:
        """End every worker process."""
        self._backend.close()

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _MathBackend:
    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self.close = verifier.close

    def identity(self) -> str:
        return self.verifier.verifier_id

    def grade(self, items: Sequence[tuple[Any, str]]) -> list[Verdict]:
        return self.verifier.verify_many([(problem.gold, text) for problem, text in items])


class _CustomBackend:
    def __init__(self, pool: WorkerPool, use: str, args: Mapping[str, Any]) -> None:
        self.pool = pool
        self.use = use
        self.args = args
        self.close = weakref.finalize(self, pool.close)

    def identity(self) -> str:
        greeting = self.pool.greeting()
        return identity("custom", greeting["name"], greeting["version"], dict(self.args))

    def grade(self, items: Sequence[tuple[Any, str]]) -> list[Verdict]:
        tasks = [{"problem": problem_to_json(problem), "completion": completion} for problem, completion in items]
        return [self._verdict(outcome) for outcome in self.pool.run_many(tasks)]

    def _verdict(self, outcome: Outcome) -> Verdict:
        seconds = outcome.seconds
        if outcome.kind == "timeout":
            return failed("timeout", None, "custom", f"{self.use}: stopped at the time limit", seconds)
        if outcome.kind == "died":
            return failed("error", None, "custom", f"{self.use}: its process died twice", seconds)
        if "error" in outcome.reply:
            return failed("error", None, "custom", f"{self.use}: {outcome.reply['error']}", seconds)
        try:
            verdict = verdict_from_json(outcome.reply["verdict"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            return failed("error", None, "custom", f"{self.use}: malformed verdict ({error})", seconds)
        return dataclasses.replace(verdict, seconds=seconds)


def grading_policy(policy: GradingPolicy | Mapping[str, Any] | None) -> GradingPolicy:
    """A policy out of a configuration's options.

    Raises:
        ConfigError: an option is unknown.
    """
    if policy is None or isinstance(policy, GradingPolicy):
        return policy or GradingPolicy()
    known = {option.name for option in dataclasses.fields(GradingPolicy)}
    unknown = set(policy) - known
    if unknown:
        raise ConfigError(f"Unknown grading options {sorted(unknown)}. Known: {sorted(known)}.")
    return GradingPolicy(**policy)
