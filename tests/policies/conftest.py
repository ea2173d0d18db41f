"""A house of policies, made once a module; tests that write get a copy of its root."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
from house import House


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, random_folder: Path) -> House:
    return House(tmp_path_factory.mktemp("built"), random_folder)


@pytest.fixture
def house(built: House, tmp_path: Path) -> House:
    """A house of the test's own."""
    return copy.copy(built).at(Path(shutil.copytree(built.root, tmp_path / "root")))
