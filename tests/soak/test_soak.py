"""Writers killed at random moments, in small numbers; `benchmarks/faults.py` does the same in large ones."""

from pathlib import Path

import pytest

from tests.soak.faults import Found, Soak, kill_one, kill_one_of_two

pytestmark = [pytest.mark.slow, pytest.mark.long]
SLICE_BYTES = 400_000


def assert_whole(soak: Soak) -> None:
    assert soak.found == Found(), (soak.phases, soak.told)
    assert soak.batches > 0


def test_twelve_kills_lose_double_and_halve_nothing(tmp_path: Path) -> None:
    soak = kill_one(tmp_path, kills=12, seed=0, slice_bytes=SLICE_BYTES, kills_each=12, mean_s=0.2)
    assert_whole(soak)
    assert soak.kills == 12
    assert len(soak.phases) > 2


def test_of_two_writers_one_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    soak = kill_one_of_two(tmp_path, kills=2, seed=0, slice_bytes=SLICE_BYTES, mean_s=0.2)
    assert_whole(soak)
