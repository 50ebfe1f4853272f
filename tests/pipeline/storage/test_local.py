"""Files on a disk: whether one is the same, what a folder holds, what lies below what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline import storage


def version(path: Path) -> str:
    found = storage.status(str(path))
    assert found is not None
    return found.version


def test_a_change_that_keeps_size_and_time_shows(tmp_path: Path) -> None:
    path = tmp_path / "1001-c.gnt"
    path.write_bytes(b"before")
    was, first = path.stat(), version(path)
    assert version(path) == first
    path.write_bytes(b"after!")
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    second = version(path)
    (tmp_path / "other").write_bytes(b"third!")
    os.utime(tmp_path / "other", ns=(was.st_atime_ns, was.st_mtime_ns))
    (tmp_path / "other").replace(path)
    third = version(path)
    assert path.stat().st_mtime_ns == was.st_mtime_ns
    assert len({first, second, third}) == 3


def test_everything_in_a_folder_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("folder")
    os.mkfifo(tmp_path / "fifo")
    assert storage.names(str(tmp_path)) == ["dangling", "fifo", "file", "folder/", "link/"]
    assert storage.names(str(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("path", "folder", "expected"),
    [
        ("a/b/c", "a", "b/c"),
        ("a", "a", ""),
        ("a/./b/..", "a", ""),
        ("ab", "a", None),
        ("a", "a/b", None),
        ("link/c", "a/b", "c"),
        ("s3://b/x/y", "s3://b/x", "y"),
        ("s3://b/x/", "s3://b/x", ""),
        ("s3://b/xy", "s3://b/x", None),
        ("/a", "s3://b", None),
    ],
)
def test_what_lies_below_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, folder: str, expected: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    assert storage.below(path, folder) == expected
