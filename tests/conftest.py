"""What the tests share: real pixels where they are at hand, and a small archive of synthetic ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import gnt_files
import pytest
from commands import Run, called
from places import REAL

from pipeline.convert import direct, main

if TYPE_CHECKING:
    import s3_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: begun last, one of them would keep one process busy while the others idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def one_core() -> Iterator[None]:
    """Conversions in the tests' own process stay there, where tests reach into them, unless their flags say else."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(direct, "available_cores", lambda: 1)
        yield


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real handwriting; it isn't part of the project."""
    if not REAL.is_dir():
        pytest.skip("no real handwriting beside the project, in ../shared/real")
    return REAL


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ with three writers and test/ with one: 40 characters each, 硷 and a symbol among them."""
    folder = tmp_path_factory.mktemp("archives")
    characters = "啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按暗岸胺案肮昂盎凹敖熬翱袄傲奥懊澳芭捌硷A"
    for split, writers in (("train", (1001, 1002, 1003)), ("test", (1241,))):
        (folder / split).mkdir()
        for writer in writers:
            data = gnt_files.member(gnt_files.records_of(characters, seed=writer))
            (folder / split / f"{writer}-c.gnt").write_bytes(data)
    return folder


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Run:
    """pipeline.convert, called in this process."""
    return called(main, capsys, "--runner=DirectRunner")


@pytest.fixture(scope="module")
def module_server() -> Iterator[s3_server.Server]:
    import s3_server  # moto takes a second

    with s3_server.running() as server:
        yield server


@pytest.fixture
def server(module_server: s3_server.Server, monkeypatch: pytest.MonkeyPatch) -> s3_server.Server:
    """An empty S3 server, to which the environment leads."""
    import s3_server

    s3_server.lead_to(module_server, monkeypatch)
    return module_server
