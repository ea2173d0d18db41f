"""Text of others, shown so that it gives no orders: completions, names of files, errors that quote either."""

from __future__ import annotations

import logging
import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def visible(text: str, keep: str = "") -> str:
    """The text with its control characters, but those to ``keep``, as a program writes them, such as ``\\x1b``.

    A completion or a file's name may hold some that move the cursor, colour what follows, or give the terminal orders.
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


class VisibleFormatter(logging.Formatter):
    """For what a terminal shows of a log."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text without control characters but line breaks and tabs."""
        return visible(super().format(record), keep="\n\t")
