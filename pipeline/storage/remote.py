"""Files behind URLs: ranges where a part is wanted, objects that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import io
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, BinaryIO, cast

import pyarrow as pa

from pipeline.storage.local import StoredFile

PIECE_BYTES = 32 << 20  # 32 MiB: what is handed to a store at once; a staged chunk is most often one piece


class RemoteFiles:
    """What stores have in common. What one raises is a FileNotFoundError, or a UserError that says what to do."""

    is_remote = True

    def read_range(self, path: str, begin: int, size: int | None) -> bytes:
        raise NotImplementedError

    def upload(self, path: str, stream: IO[bytes]) -> None:
        """Writes the file, all of it; if that fails, none of it shows."""
        raise NotImplementedError

    def status(self, path: str) -> StoredFile | None:
        raise NotImplementedError

    def list_folder(self, folder: str, *, deep: bool = False) -> list[StoredFile]:
        """The files in a folder, with `deep` below it too; its name may hold what a pattern is made of."""
        raise NotImplementedError

    def match(self, pattern: str) -> list[StoredFile]:
        """The files that fit; `*` stays in a folder, `**` doesn't."""
        raise NotImplementedError

    def delete(self, paths: list[str]) -> None:
        raise NotImplementedError

    def open_read(self, path: str, begin: int, end: int | None, buffer_bytes: int) -> BinaryIO:
        if end is None:
            found = self.status(path)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, "there is no such file", path)
            end = found.size_bytes
        stream = io.BufferedReader(_Ranges(self, path, end), max(1, min(buffer_bytes, end - begin)))
        stream.seek(begin)
        return cast(BinaryIO, stream)

    def read_buffer(self, path: str, begin: int, size: int) -> pa.Buffer:
        return pa.py_buffer(self.read_range(path, begin, size))

    @contextlib.contextmanager
    def atomic_write(self, path: str, *, durable: bool = False) -> Iterator[BinaryIO]:  # noqa: ARG002
        # Gathered until it is whole: in memory, or if it is large on the disk.
        with tempfile.SpooledTemporaryFile(PIECE_BYTES) as stream:
            yield cast(BinaryIO, stream)
            stream.seek(0)
            self.upload(path, stream)

    atomic_large_write = atomic_write

    def exists(self, path: str) -> bool:
        return self.status(path) is not None

    def fingerprint(self, path: str) -> str | None:
        """Its size: an object is there whole or not at all."""
        found = self.status(path)
        return str(found.size_bytes) if found else None

    def find(self, pattern: str) -> list[StoredFile]:
        if any(c in pattern for c in "*?["):
            return self.match(pattern)
        is_bucket = "/" not in pattern.partition("://")[2].rstrip("/")
        itself = None if is_bucket else self.status(pattern)
        return [itself] if itself else self.list_folder(pattern, deep=True)

    def delete_empty_folder(self, folder: str) -> None:
        pass


class _Ranges(io.RawIOBase):
    """The bytes of a file up to `end`, each read a range."""

    def __init__(self, files: RemoteFiles, url: str, end: int) -> None:
        self._files, self._url, self._end = files, url, end
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        if base + offset < 0:
            raise OSError("negative seek position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._end - self._at)
        if size <= 0:
            return 0
        data = self._files.read_range(self._url, self._at, size)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def shown(files: Iterable[StoredFile]) -> list[StoredFile]:
    """Files sorted by their URL, without what a console makes to show a folder."""
    return sorted((file for file in files if not file.path.endswith("/")), key=lambda file: file.path)
