"""A small data set in both encodings, here and in a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3_server
from tiny_dataset import write_dataset

RECORDS, SIZE = 107, 16


@pytest.fixture(scope="session", params=["raw", "png"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reader") / request.param
    return write_dataset(place, {"train": RECORDS, "test": 21}, size=SIZE, encoding=request.param)


@pytest.fixture(scope="module")
def module_server() -> Iterator[s3_server.Server]:
    with s3_server.running() as server:
        yield server


@pytest.fixture
def server(
    module_server: s3_server.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[s3_server.Server]:
    """An empty bucket; what boto3 takes from the environment leads to it, and to nothing of the user's."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", module_server.url)
    for name, value in s3_server.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    module_server.empty()
    yield module_server
    module_server.fault = None


@pytest.fixture
def bucket(server: s3_server.Server, folder: Path) -> str:
    """The URL of the data set, uploaded; the server's log is empty."""
    for path in folder.rglob("*"):
        if path.is_file():
            server.put(f"set/{path.relative_to(folder)}", path.read_bytes())
    server.log.clear()
    return f"s3://{s3_server.BUCKET}/set"
