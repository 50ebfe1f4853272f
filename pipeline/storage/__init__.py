"""Files, wherever they are: local paths by the standard library, s3:// by boto3, other URLs by pyarrow.fs."""

from __future__ import annotations

import os
import posixpath
from contextlib import AbstractContextManager
from typing import BinaryIO

from pipeline.storage.arrow import ArrowFiles
from pipeline.storage.flags import StoreFlags as StoreFlags
from pipeline.storage.flags import take_flags as take_flags
from pipeline.storage.flags import use_flags as use_flags
from pipeline.storage.flags import used_flags as used_flags
from pipeline.storage.local import LocalFiles
from pipeline.storage.local import StoredFile as StoredFile
from pipeline.storage.s3 import S3Files
from pipeline.storage.uncached import UncachedStream
from schemas.command import outputs

BUFFER_BYTES = 16 << 20  # 16 MiB
_LOCAL, _S3, _OTHER = LocalFiles(), S3Files(), ArrowFiles()


def of(path: str) -> LocalFiles | S3Files | ArrowFiles:
    """What has the file: nobody else asks where a path leads."""
    scheme, is_url, _ = path.partition("://")
    return _LOCAL if not is_url else _S3 if scheme == "s3" else _OTHER


def join(folder: str, *names: str) -> str:
    return posixpath.join(folder, *names)


def base_name(path: str) -> str:
    return posixpath.basename(path.rstrip("/"))


def below(path: str, folder: str) -> str | None:
    """The path relative to the folder, empty for itself; None if it isn't in there."""
    if not of(path).is_remote and not of(folder).is_remote:
        path, folder = os.path.realpath(path), os.path.realpath(folder)
    path, folder = f"{path.rstrip('/')}/", f"{folder.rstrip('/')}/"
    return path.removeprefix(folder).rstrip("/") if path.startswith(folder) else None


def open_read(path: str, begin: int = 0, end: int | None = None, buffer_bytes: int = BUFFER_BYTES) -> BinaryIO:
    """A seekable stream of the file's bytes, at byte `begin`; where a request costs time it asks for none after `end`.

    It asks a store for `buffer_bytes` at least: many to read on, few to look here and there.
    """
    return of(path).open_read(path, begin, end, buffer_bytes)


def read_range(path: str, begin: int, size: int | None) -> bytes:
    """`size` bytes from `begin` on, or all; fewer where the file ends earlier: one request to a store."""
    return of(path).read_range(path, begin, size)


def read_bytes(path: str) -> bytes:
    return read_range(path, 0, None)


def read_if_there(path: str) -> bytes | None:
    """The file's bytes; None if there is no such file."""
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None


def atomic_write(path: str, *, durable: bool = False) -> AbstractContextManager[BinaryIO]:
    """A stream whose bytes appear under `path` at once, when the block ends without an error.

    A local file is written beside its place and renamed, if `durable` after its bytes are on the disk. A store has no
    rename, and takes what it got for the whole object: it gets nothing before the block has ended.
    """
    return of(path).atomic_write(path, durable=durable)


def atomic_large_write(path: str) -> AbstractContextManager[BinaryIO | UncachedStream]:
    """As a durable atomic_write, for what is too large to be worth a place in the page cache."""
    return of(path).atomic_large_write(path)


def write_bytes(path: str, content: bytes, *, durable: bool = False) -> None:
    with atomic_write(path, durable=durable) as stream:
        stream.write(content)


def check_output(path: str, command: str) -> None:
    """Raises UserError where something stands that `command` didn't write."""
    if not of(path).is_remote:
        outputs.check_output(path, command)
    elif exists(path) and not outputs.has_mark(read_range(path, 0, outputs.MARK_IN_BYTES), command):
        raise outputs.not_own(path, command)


def write_output(path: str, content: bytes, command: str) -> None:
    """As write_bytes, to a path that the user named; `content` has the mark of `command`. Raises UserError as above."""
    if of(path).is_remote:
        check_output(path, command)
        write_bytes(path, content)
    else:
        with outputs.output(path, command) as temporary:
            temporary.write_bytes(content)


def exists(path: str) -> bool:
    return status(path) is not None


def status(path: str) -> StoredFile | None:
    """The file as a listing would show it; None if there is no such file."""
    return of(path).status(path)


def size_bytes(path: str) -> int | None:
    """The file's size in bytes, None if there is no such file."""
    found = status(path)
    return found.size_bytes if found else None


def fingerprint(path: str) -> str | None:
    """What shows whether a file is as it was written: of a local one all its bytes. None if there is no such file."""
    return of(path).fingerprint(path)


def list_folder(folder: str) -> list[StoredFile]:
    """Every file directly in `folder`; none if there is no such folder."""
    return of(folder).list_folder(folder)


def names(folder: str) -> list[str]:
    """The name of everything directly in `folder`, a folder's with a / behind it; none if there is no such folder."""
    return of(folder).names(folder)


def find(pattern: str) -> list[StoredFile]:
    """The files a path names, sorted by path: itself, everything in and below it if a folder, or a glob's matches."""
    return of(pattern).find(pattern)


def delete(paths: list[str]) -> None:
    """Delete files, all of one store; one that is gone already is no error."""
    if paths:
        of(paths[0]).delete(paths)
