"""Files, wherever they are: local paths by the standard library, URLs by Beam's FileSystems.

Beam's local file system lists a whole folder to delete one file and knows no fsync, so local paths don't go through it;
and a command that only touches local files needn't import Beam.
"""

from __future__ import annotations

import contextlib
import glob as globbing
import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from pipeline.storage import remote
from pipeline.storage.remote import use_flags as use_flags
from pipeline.storage.remote import use_known_flags as use_known_flags
from pipeline.storage.remote import used_flags as used_flags
from pipeline.storage.uncached import UncachedStream, uncached_write
from schemas.machine import replaced

BUFFER_BYTES = 16 << 20  # 16 MiB


@dataclass(frozen=True)
class StoredFile:
    """A file as its listing shows it."""

    path: str
    size_bytes: int
    version: str
    """Changes when the file's content does: the modification time."""


def is_remote(path: str) -> bool:
    return "://" in path


def join(folder: str, *names: str) -> str:
    return posixpath.join(folder, *names)


def base_name(path: str) -> str:
    return posixpath.basename(path.rstrip("/"))


def open_read(path: str, begin: int = 0, end: int | None = None, buffer_bytes: int = BUFFER_BYTES) -> BinaryIO:
    """A seekable stream of the file's bytes, at byte `begin`; where a request costs time it asks for none after `end`.

    It asks a store for `buffer_bytes` at least: many to read on, few to look here and there.
    """
    if is_remote(path):
        return remote.open_read(path, begin, end, buffer_bytes)
    stream = open(path, "rb")  # noqa: SIM115
    stream.seek(begin)
    return stream


def read_range(path: str, begin: int, size: int) -> bytes:
    """`size` bytes from `begin` on, fewer where the file ends earlier: one request to a store."""
    if is_remote(path):
        return remote.read_range(path, begin, size)
    with open(path, "rb") as stream:
        stream.seek(begin)
        return stream.read(size)


def read_bytes(path: str) -> bytes:
    if is_remote(path):
        return remote.read_range(path, 0, None)
    with open(path, "rb") as stream:
        return stream.read()


def read_if_there(path: str) -> bytes | None:
    """The file's bytes; None if there is no such file."""
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def atomic_write(path: str, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A stream whose bytes appear under `path` at once, when the block ends without an error.

    A local file is written beside its place and renamed, if `durable` after its bytes are on the disk. A store has no
    rename, and takes what it got for the whole object: it gets nothing before the block has ended.
    """
    if is_remote(path):
        with remote.gathered() as stream:
            yield stream
            remote.upload(path, stream)
        return
    with replaced(path) as temporary, open(temporary, "wb") as stream:
        yield stream
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


@contextlib.contextmanager
def atomic_large_write(path: str) -> Iterator[BinaryIO | UncachedStream]:
    """As a durable atomic_write, for what is too large to be worth a place in the page cache."""
    if is_remote(path):
        with atomic_write(path) as stream:
            yield stream
        return
    with replaced(path) as temporary, uncached_write(str(temporary)) as uncached:
        yield uncached


def write_bytes(path: str, content: bytes, *, durable: bool = False) -> None:
    with atomic_write(path, durable=durable) as stream:
        stream.write(content)


def exists(path: str) -> bool:
    return remote.status(path) is not None if is_remote(path) else os.path.exists(path)


def status(path: str) -> StoredFile | None:
    """The file as a listing would show it; None if there is no such file."""
    if is_remote(path):
        found = remote.status(path)
        return StoredFile(*found) if found else None
    return _local_file(path) if os.path.isfile(path) else None


def size_bytes(path: str) -> int | None:
    """The file's size in bytes, None if there is no such file."""
    found = status(path)
    return found.size_bytes if found else None


def special_kind(path: str) -> str | None:
    """What stands under a local path, in words, if it is neither a file nor a folder; None if it is, or nothing is."""
    if is_remote(path) or not os.path.exists(path):
        return None
    return _SPECIAL_KINDS.get(stat.S_IFMT(os.stat(path).st_mode))


def list_folder(folder: str) -> list[StoredFile]:
    """Every file directly in `folder`; none if there is no such folder."""
    if is_remote(folder):
        return [StoredFile(*found) for found in remote.match_in(folder, "*")]
    try:
        with os.scandir(folder) as entries:
            return [_local_file(entry.path) for entry in entries if entry.is_file()]
    except FileNotFoundError:
        return []


def find(pattern: str) -> list[StoredFile]:
    """The files a path names, sorted by path: itself, everything in and below it if a folder, or a glob's matches."""
    if is_remote(pattern):
        if any(c in pattern for c in "*?["):
            return [StoredFile(*found) for found in remote.match(pattern)]
        itself = remote.status(pattern)
        return [StoredFile(*found) for found in ([itself] if itself else remote.match_in(pattern, "**"))]
    if os.path.isdir(pattern):
        return _local_tree(pattern)
    if os.path.exists(pattern):
        return [_local_file(pattern)]
    found: list[StoredFile] = []
    for path in sorted(globbing.glob(pattern, recursive=True)):
        found.extend(_local_tree(path) if os.path.isdir(path) else [_local_file(path)])
    return sorted({file.path: file for file in found}.values(), key=lambda file: file.path)


def delete(paths: list[str]) -> None:
    """Delete files; one that is gone already is no error."""
    urls = [path for path in paths if is_remote(path)]
    if urls:
        remote.delete(urls)
    for path in paths:
        if not is_remote(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def delete_empty_folder(folder: str) -> None:
    """Deletes a local folder that nothing is left in; an object store has no folders."""
    if not is_remote(folder):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


_SPECIAL_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _local_tree(folder: str) -> list[StoredFile]:
    paths: list[str] = []
    seen: set[str] = set()
    # By itself the walk passes over folders that can't be read, and over links to folders.
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        if os.path.realpath(parent) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        paths.extend(os.path.join(parent, name) for name in names)
    return [_local_file(path) for path in sorted(paths)]


def _raise(error: OSError) -> NoReturn:
    raise error


def _local_file(path: str) -> StoredFile:
    status = os.stat(path) if os.path.exists(path) else os.lstat(path)
    return StoredFile(path, status.st_size, str(status.st_mtime_ns))
