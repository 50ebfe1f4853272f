"""A small data set in both encodings, here and in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest
import s3_server
from tiny_dataset import write_dataset

RECORDS, SIZE = 107, 16


@pytest.fixture(scope="session", params=["raw", "png"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reader") / request.param
    return write_dataset(place, {"train": RECORDS, "test": 21}, size=SIZE, encoding=request.param)


@pytest.fixture
def bucket(server: s3_server.Server, folder: Path) -> str:
    """The URL of the data set, uploaded; the server's log is empty."""
    return server.put_folder(folder, "set")
