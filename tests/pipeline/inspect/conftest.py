"""What the tests of inspect share: the command, and two data sets that no test changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Run, called
from inspected import both_splits, dirty_set

from pipeline.inspect import main


@pytest.fixture(scope="session")
def dataset(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return both_splits(archives, tmp_path_factory.mktemp("inspect") / "set")


@pytest.fixture(scope="session")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dirty_set(tmp_path_factory.mktemp("dirty"))


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]) -> Run:
    """pipeline.inspect, called in this process."""
    return called(main, capsys)
