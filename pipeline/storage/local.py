"""Files on a disk of this machine, or on one that is mounted here."""

from __future__ import annotations

import contextlib
import glob as globbing
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

import xxhash

from pipeline.storage.uncached import UncachedStream, uncached_write
from schemas.machine import replaced

_SPECIAL_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class StoredFile:
    """A file as its listing shows it."""

    path: str
    size_bytes: int
    version: str
    """Changes when the file's content does: of a local file the times of its last modification and last change, which
    nobody can set, and its inode; the ETag of an object, or when it was made."""
    special: str | None = None
    """What it is, in words, if it is neither a file nor a folder."""


class LocalFiles:
    is_remote = False

    def open_read(self, path: str, begin: int, end: int | None, buffer_bytes: int) -> BinaryIO:  # noqa: ARG002
        stream = open(path, "rb")  # noqa: SIM115
        stream.seek(begin)
        return stream

    def read_range(self, path: str, begin: int, size: int | None) -> bytes:
        with open(path, "rb") as stream:
            stream.seek(begin)
            return stream.read(size)

    @contextlib.contextmanager
    def atomic_write(self, path: str, *, durable: bool = False) -> Iterator[BinaryIO]:
        with replaced(path, durable=durable) as temporary, open(temporary, "wb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())

    @contextlib.contextmanager
    def atomic_large_write(self, path: str) -> Iterator[UncachedStream]:
        with replaced(path, durable=True) as temporary, uncached_write(str(temporary)) as stream:
            yield stream

    def status(self, path: str) -> StoredFile | None:
        return _stored(path) if os.path.isfile(path) else None

    def fingerprint(self, path: str) -> str | None:
        """Size and XXH3-64: after a power cut it can be shorter than its receipt says, or zeros."""
        if not os.path.isfile(path):
            return None
        digest, size = xxhash.xxh3_64(), 0
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
        return f"{size} {digest.hexdigest()}"

    def list_folder(self, folder: str) -> list[StoredFile]:
        try:
            with os.scandir(folder) as entries:
                there = list(entries)
        except FileNotFoundError:
            return []
        found = []
        for entry in there:
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                if entry.is_file():
                    found.append(_stored(entry.path))
        return found

    def names(self, folder: str) -> list[str]:
        try:
            with os.scandir(folder) as entries:
                return sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
        except FileNotFoundError:
            return []

    def find(self, pattern: str) -> list[StoredFile]:
        paths = [pattern] if os.path.exists(pattern) else _matches(pattern)
        found = {file for path in paths for file in (_tree(path) if os.path.isdir(path) else [path])}
        return [_stored(path) for path in sorted(found)]

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _matches(pattern: str) -> list[str]:
    """A glob's matches; a folder that is there under its name as written, HWDB [2020], is no pattern."""
    begin, slash, rest = pattern, "", ""
    while begin and not os.path.isdir(begin):
        begin, slash, last = begin.rpartition("/")
        rest = f"{slash}{last}{rest}"
    tried = (globbing.glob(one, recursive=True) for one in (globbing.escape(begin) + rest, pattern.replace("[", "[[]")))
    return next(filter(None, tried), [])


def _tree(folder: str) -> list[str]:
    paths: list[str] = []
    seen: set[str] = set()
    # By itself the walk passes over folders that can't be read, and over links to folders.
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        if os.path.realpath(parent) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        paths.extend(os.path.join(parent, name) for name in names)
    return paths


def _raise(error: OSError) -> NoReturn:
    raise error


def _stored(path: str) -> StoredFile:
    status = os.stat(path) if os.path.exists(path) else os.lstat(path)
    special = _SPECIAL_KINDS.get(stat.S_IFMT(status.st_mode))
    version = f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    return StoredFile(path, status.st_size, version, special)
