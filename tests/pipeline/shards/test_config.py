"""Which libraries the bytes pass through, and that asking for their versions never fails."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from places import ROOT

from pipeline.shards import config
from pipeline.shards.config import LIBRARIES, ConvertConfig, library_versions

COMPILED = """
import builtins, sys
whole = builtins.__import__
def without_opencv(name, *rest, **more):
    if name.partition(".")[0] == "cv2": raise ImportError("no OpenCV here")
    return whole(name, *rest, **more)
builtins.__import__ = without_opencv
from pipeline.shards.chunk import convert_records
from pipeline.shards.config import ConvertConfig
from pipeline.source.archives import Input, list_members
from pipeline.source.chunks import plan_chunks, read_chunk
[member] = list_members([Input("train", sys.argv[1])], 0)
for encoding in ("raw", "png"):
    config = ConvertConfig(num_shards={"train": 1}, image_encoding=encoding)
    for chunk in plan_chunks(member, "."):
        assert sum(len(table) for table in convert_records(read_chunk(chunk), chunk, config)) > 10
assert "cv2" not in sys.modules and "numba" in sys.modules
"""


@pytest.fixture(autouse=True)
def asked_anew() -> None:
    config._installed_version.cache_clear()


def test_no_pixel_passes_through_opencv(archives: Path) -> None:
    member = next(iter((archives / "train").glob("*.gnt")))
    command = [sys.executable, "-c", COMPILED, str(member)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_and_numba_are_named_and_opencv_is_only_where_it_was_used() -> None:
    assert list(library_versions()) == list(LIBRARIES)
    assert library_versions()["numba"] == metadata.version("numba")
    assert library_versions()["hwdb-shards"] == metadata.version("hwdb-shards")
    assert "opencv-python" not in library_versions()
    assert library_versions(uncompiled=True)["opencv-python"][0].isdigit()


@pytest.mark.parametrize("installed", ["opencv-contrib-python", "opencv-contrib-python-headless", "none at all"])
def test_any_build_of_opencv_will_do(monkeypatch: pytest.MonkeyPatch, installed: str) -> None:
    def version(name: str) -> str:
        if name.startswith("opencv") and name != installed:
            raise metadata.PackageNotFoundError(name)
        return "5.0.1"

    monkeypatch.setattr(config.metadata, "version", version)
    expected = "unknown" if installed == "none at all" else "5.0.1"
    assert library_versions(uncompiled=True)["opencv-python"] == expected


def test_no_lookup_fails_a_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(config.metadata, "version", version)
    assert set(library_versions(uncompiled=True).values()) == {"unknown"}
    assert ConvertConfig(num_shards={"train": 1}).digest("train")


@pytest.mark.parametrize("library", ["numba", "hwdb-shards"])
def test_pieces_of_another_release_are_left_alone(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    before = ConvertConfig(num_shards={"train": 1}).digest("train")
    whole = config._installed_version
    monkeypatch.setattr(config, "_installed_version", lambda *names: "9" if names == (library,) else whole(*names))
    assert ConvertConfig(num_shards={"train": 1}).digest("train") != before
