"""Files that take another's place: whole, at once, and where durable also after a power cut. And the cache folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pipeline import storage
from schemas.machine import cache_folder, make_folder, replaced

Events = list[tuple[str, str]]


def test_a_user_without_a_home_has_no_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/.cache/hwdb-shards")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # neither HOME nor a line in passwd
    assert cache_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/hwdb-shards")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """What was renamed, and which files and folders were written out, in their order."""
    seen: Events = []
    rename, sync = os.replace, os.fsync

    def watched_rename(source: str, target: str) -> None:
        rename(source, target)
        seen.append(("rename", Path(target).name))

    def watched_sync(descriptor: int) -> None:
        sync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, Path(path).name if kind == "folder" else Path(path).suffix))

    monkeypatch.setattr(os, "replace", watched_rename)
    monkeypatch.setattr(os, "fsync", watched_sync)
    return seen


linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


@linux
def test_a_durable_file_is_written_out_then_renamed_then_its_folder_is(tmp_path: Path, events: Events) -> None:
    storage.write_bytes(str(tmp_path / "card.json"), b"{}", durable=True)
    assert events == [("file", ".json"), ("rename", "card.json"), ("folder", tmp_path.name)]


@linux
def test_a_shard_too(tmp_path: Path, events: Events) -> None:
    with storage.atomic_large_write(str(tmp_path / "a.tfrecord")) as stream:
        stream.write(b"x" * 5_000)
    assert events == [("file", ".tfrecord"), ("rename", "a.tfrecord"), ("folder", tmp_path.name)]


@linux
def test_new_folders_are_written_out_in_those_above_them(tmp_path: Path, events: Events) -> None:
    make_folder(tmp_path / "a" / "b")
    assert events == [("folder", "a"), ("folder", tmp_path.name)]
    make_folder(tmp_path / "a" / "b")
    assert len(events) == 2


@linux
def test_what_needn_t_last_costs_no_wait(tmp_path: Path, events: Events) -> None:
    storage.write_bytes(str(tmp_path / "receipt.json"), b"{}")
    assert events == [("rename", "receipt.json")]


def test_a_disk_that_knows_no_such_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_descriptor: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refused)
    with replaced(tmp_path / "a", durable=True) as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "a").read_text() == "whole"
