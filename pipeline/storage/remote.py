"""Files behind URLs: ranges where a part is wanted, objects that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import io
import re
import tempfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import IO, Any, BinaryIO, cast

from pipeline.storage.local import StoredFile
from schemas.errors import UserError

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

    def list_prefix(self, prefix: str, *, deep: bool) -> list[StoredFile]:
        """The files whose URLs begin so, unless `deep` those of one folder."""
        raise NotImplementedError

    def names(self, folder: str) -> list[str]:
        raise NotImplementedError

    def delete(self, paths: list[str]) -> None:
        raise NotImplementedError

    def connect(self, url: str) -> Any:
        """What is asked for the file; never one that was made before a fork."""
        raise NotImplementedError

    def explain(self, error: Exception, url: str) -> str:
        """What went wrong; what to do. Raises FileNotFoundError if it is that there is no such file."""
        raise NotImplementedError

    @contextlib.contextmanager
    def asked(self, doing: str, url: str) -> Iterator[Any]:
        """What `connect` gives. What goes wrong in the block becomes the one line of a UserError."""
        try:
            yield self.connect(url)
        except (UserError, FileNotFoundError):
            raise
        except Exception as error:
            raise UserError(f"can't {doing} {url}: {self.explain(error, url)}") from error

    def open_read(self, path: str, begin: int, end: int | None, buffer_bytes: int) -> BinaryIO:
        if end is None:
            found = self.status(path)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, "there is no such file", path)
            end = found.size_bytes
        stream = io.BufferedReader(_Ranges(self, path, end), max(1, min(buffer_bytes, end - begin)))
        stream.seek(begin)
        return cast(BinaryIO, stream)

    @contextlib.contextmanager
    def atomic_write(self, path: str, *, durable: bool = False) -> Iterator[BinaryIO]:  # noqa: ARG002
        # Gathered until it is whole: in memory, or if it is large on the disk.
        with tempfile.SpooledTemporaryFile(PIECE_BYTES) as stream:
            yield cast(BinaryIO, stream)
            stream.seek(0)
            self.upload(path, stream)

    atomic_large_write = atomic_write

    def fingerprint(self, path: str) -> str | None:
        """Its size: an object is there whole or not at all."""
        found = self.status(path)
        return str(found.size_bytes) if found else None

    def list_folder(self, folder: str) -> list[StoredFile]:
        return self.list_prefix(folder.rstrip("/") + "/", deep=False)

    def find(self, pattern: str) -> list[StoredFile]:
        found = self._matches(pattern)
        if found or "*" in pattern or "?" in pattern:  # without a match its brackets are a name's
            return found or self._matches(pattern.replace("[", "[[]"))
        is_bucket = "/" not in pattern.partition("://")[2].rstrip("/")
        itself = None if is_bucket else self.status(pattern)
        return [itself] if itself else self.list_prefix(pattern.rstrip("/") + "/", deep=True)

    def _matches(self, pattern: str) -> list[StoredFile]:
        begin = re.split(r"[\[*?]", pattern)[0]
        if begin == pattern:
            return []
        found = self.list_prefix(begin, deep="/" in pattern[len(begin) :] or "**" in pattern)
        return [file for file in found if _fits(pattern.split("/"), file.path.split("/"))]


class _Ranges(io.RawIOBase):
    """The bytes of a file up to `end`, each read a range."""

    def __init__(self, files: RemoteFiles, url: str, end: int) -> None:
        self._files, self._url, self._end = files, url, end
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
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


def _fits(pattern: list[str], names: list[str]) -> bool:
    """As glob does it, folder by folder: `**` stands for any number of them."""
    if not pattern or not names:
        return pattern in ([], ["**"]) and not names
    if pattern[0] == "**":
        return _fits(pattern[1:], names) or _fits(pattern, names[1:])
    return fnmatchcase(names[0], pattern[0]) and _fits(pattern[1:], names[1:])


def shown(files: Iterable[StoredFile]) -> list[StoredFile]:
    """Files sorted by their URL, without what a console makes to show a folder."""
    return sorted((file for file in files if not file.path.endswith("/")), key=lambda file: file.path)
