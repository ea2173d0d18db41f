"""Fixtures for the verification tests: shared data, and verifiers whose workers are started once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reval_core.verification import Verifier


@pytest.fixture(scope="session")
def verifier_data() -> Path:
    """The folder of shared data (REVAL_DATA, or shared/data beside the checkout), else skip."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("REVAL_DATA", beside))
    if not (folder / "verifier").is_dir():
        pytest.skip(f"no shared data at {folder}; set REVAL_DATA to run this test")
    return folder


LIMIT_S = 60.0
"""Seconds for an answer: what these tests grade takes a fraction of one, on a machine that pauses more."""


@pytest.fixture(scope="session")
def lenient() -> Iterator[Verifier]:
    """One verifier with lenient extraction for the whole test run."""
    with Verifier(workers=2, extraction="lenient", timeout_s=LIMIT_S) as verifier:
        yield verifier


@pytest.fixture(scope="session")
def boxed() -> Iterator[Verifier]:
    """One verifier with boxed extraction for the whole test run."""
    with Verifier(workers=2, timeout_s=LIMIT_S) as verifier:
        yield verifier
