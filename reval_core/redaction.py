"""Keeps secrets out of what is printed, logged and stored: values of secret variables, names in addresses."""

from __future__ import annotations

import logging
import os
import re

_SECRET_NAME = re.compile(r"TOKEN|PASSWORD|SECRET|API_KEY|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
_USERINFO = re.compile(r"([A-Za-z][\w+.-]*://)[^\s\"']*@")
_QUERY = re.compile(r"([?&][\w-]*(?:token|password|secret|key)[\w-]*=)[^\s&\"']+", re.IGNORECASE)
SHORTEST = 6
"""A value of fewer characters is too likely to be an ordinary word."""


def without_secrets(text: str) -> str:
    """The text with ``***`` in the place of each secret."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= SHORTEST:
            text = text.replace(value, "***")
    return _QUERY.sub(r"\1***", _USERINFO.sub(r"\1***@", text))


def holds_secret(address: str) -> bool:
    """Whether an address has a user name, a password or a token in it."""
    return without_secrets(address) != address


class Redacting(logging.Filter):
    """Puts ``***`` into log records before any handler that it is added to writes them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, its message without secrets."""
        record.msg, record.args = without_secrets(record.getMessage()), None
        return True
