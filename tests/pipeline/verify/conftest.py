"""What the tests of verify share: a data set to look at, and a copy to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import gnt_files
import pytest
from commands import converted, inputs

CHARACTERS = "啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按硷"
ALLOWED = ("--num_shards=train=2", "--max_reject_fraction=0.1")


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two writers for training, one of them with a broken header, and one for testing."""
    folder = tmp_path_factory.mktemp("sources")
    for split, writers in (("train", (1001, 1002)), ("test", (1241,))):
        (folder / split).mkdir()
        for writer in writers:
            data = bytearray(gnt_files.member(gnt_files.records_of(CHARACTERS, seed=writer)))
            if writer == 1002:
                data[gnt_files.parse(bytes(data))[7][0]] ^= 1
            (folder / split / f"{writer}-c.gnt").write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def intact(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tmp_path_factory.mktemp("intact") / "out", *inputs(sources), *ALLOWED)


@pytest.fixture(scope="session")
def intact_png(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tmp_path_factory.mktemp("intact-png") / "out", *inputs(sources), *ALLOWED, "--image_encoding=png")


@pytest.fixture
def dataset(intact: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(intact, tmp_path / "out"))
