"""What the tests of exports share: one data set as raw shards and as PNG shards, and the export of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import converted, inputs
from exports import exported


@pytest.fixture(scope="session")
def shards(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By encoding: train in two shards, test in so many that some of them are empty."""
    folder = tmp_path_factory.mktemp("shards")
    flags = (*inputs(archives), "--num_shards=train=2", "--num_shards=test=30", "--origin=casia")
    return {how: converted(folder / how, *flags, f"--image_encoding={how}") for how in ("raw", "png")}


@pytest.fixture(scope="session")
def exports(shards: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    return {how: exported(of, folder / how) for how, of in shards.items()}
