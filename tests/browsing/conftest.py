"""The small store, and a client of its browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsed import Browsed, build
from starlette.testclient import TestClient

from reval_core.browsing import application
from reval_core.home import Home

PORT = 4300


@pytest.fixture(scope="session")
def browsed(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Browsed:
    """Tests read it, none changes it."""
    return build(Home(tmp_path_factory.mktemp("browsed")), random_folder)


@pytest.fixture(scope="session")
def client(browsed: Browsed) -> Iterator[TestClient]:
    """Asks as a browser does that was led to 127.0.0.1."""
    with TestClient(application(browsed.home, PORT), base_url=f"http://127.0.0.1:{PORT}") as asks:
        yield asks
