"""A problem: what the model is asked, the answer that counts, and what the file says beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from reval_core.identity import digest

Message = Mapping[str, str]


@dataclass(frozen=True)
class Problem:
    """One problem. Its id is the digest of the messages; gold answer and metadata are versioned apart.

    Mending a gold answer therefore regrades stored completions and never generates them again.
    """

    messages: tuple[Message, ...]
    """The conversation that the model answers: mappings with ``role`` and ``content``."""
    gold: str
    """The answer that counts; empty for rewards that need none."""
    source: str = ""
    """Where it was read."""
    external_id: str = ""
    """The file's own id, or its line number."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The file's other columns, for rewards and SQL."""

    graded_on: Literal["gold", "row"] = "gold"
    """What its verdicts depend on: the gold answer, or all that a reward of one's own may read beside the messages."""

    @property
    def problem_id(self) -> str:
        """Digest of what the model is asked."""
        return digest("prb", [dict(message) for message in self.messages])

    @property
    def gold_digest(self) -> str:
        """Digest of what its verdicts depend on; mending it regrades."""
        if self.graded_on == "gold":
            return digest("gld", self.gold)
        metadata = json.loads(json.dumps(dict(self.metadata), default=str))
        return digest("gld", {"gold": self.gold, "source": self.source, "metadata": metadata})

    @property
    def question(self) -> str:
        """Text of the last user message."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")


def ask(question: str) -> tuple[Message, ...]:
    """A conversation of one user message."""
    return ({"role": "user", "content": question},)


def once_each(problems: Iterable[Problem]) -> tuple[dict[str, Problem], list[str]]:
    """Problems by id, the first of those that ask the same; and where two of them have other gold answers, in words."""
    kept: dict[str, Problem] = {}
    contradicted = []
    for problem in problems:
        known = kept.setdefault(problem.problem_id, problem)
        if known.gold_digest != problem.gold_digest:
            contradicted.append(
                f"{known.source} {known.external_id} says {known.gold!r}, "
                f"{problem.source} {problem.external_id} says {problem.gold!r}"
            )
    return kept, contradicted
