"""What became of the rows of an import: nothing is left out in silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Step = Callable[[int, int], None]
"""Called with (rows done, rows in all)."""


def no_step(done: int, total: int) -> None:
    """For who does not want to know."""


@dataclass
class Refused:
    """Rows that were left out for one reason."""

    count: int
    example: str
    """The first of them: file, line and what was wrong there."""


@dataclass
class Tally:
    """Rows read, and what became of them."""

    read: int = 0
    new: int = 0
    known: int = 0
    """In the store already, under the same id."""
    labels: int = 0
    """New and known rows that brought a verdict of their own system."""
    refused: dict[str, Refused] = field(default_factory=dict)
    """By reason."""

    def refuse(self, reason: str, example: str, count: int = 1) -> None:
        """Count rows that are left out."""
        if reason in self.refused:
            self.refused[reason].count += count
        else:
            self.refused[reason] = Refused(count, example)

    def add(self, other: Tally) -> None:
        """Count the rows of another file, too."""
        self.read += other.read
        self.new += other.new
        self.known += other.known
        self.labels += other.labels
        for reason, rows in other.refused.items():
            self.refuse(reason, rows.example, rows.count)

    @property
    def left_out(self) -> int:
        """Rows that were refused."""
        return sum(rows.count for rows in self.refused.values())
