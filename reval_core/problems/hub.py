"""Fetching from the hub: tried again where the network failed in a way that may pass, and nowhere else.

huggingface_hub tries the transfer of a file again by itself, but not the first look-up of a repository; what has been
fetched is in its cache, so trying again goes on. A wrong name, a missing token or a refused certificate does not pass.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

TRIES = 4
PAUSE_S = 2.0
"""Seconds before the second try, give or take a half; each further pause is twice as long."""
MAY_PASS = {"TransportError", "ConnectionError", "Timeout", "TimeoutError", "gaierror"}
"""Classes of httpx, requests and Python, by name: which of the two the hub's library uses depends on its version."""
STAYS = {"OfflineModeIsEnabled", "SSLCertVerificationError", "UnsupportedProtocol"}
"""Kinds of these that the next try would meet again."""
BUSY = {408, 425, 429, 500, 502, 503, 504}
"""HTTP status codes that a server gives for a while."""


def fetched(fetch: Callable[[], T]) -> T:
    """The result of the call, tried again after growing pauses while the network is at fault."""
    for tried in range(1, TRIES):
        try:
            return fetch()
        except Exception as error:
            if not may_pass(error):
                raise
            pause = PAUSE_S * 2 ** (tried - 1) * random.uniform(0.5, 1.5)
            log.warning("the hub could not be reached (%s); trying again in %.0f s", type(error).__name__, pause)
            time.sleep(pause)
    return fetch()


def may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    chain = list(_chain(error))
    names = {cls.__name__ for one in chain for cls in type(one).__mro__}
    if names & STAYS:
        return False
    codes = [code for one in chain if (code := getattr(getattr(one, "response", None), "status_code", None))]
    return codes[0] in BUSY if codes else bool(names & MAY_PASS)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
