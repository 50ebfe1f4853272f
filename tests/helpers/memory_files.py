"""A store that knows nothing but what Beam's FileSystem asks for: mem://, kept in a dict of this process."""

# ruff: noqa: ARG002
from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem

FILES: dict[str, bytes] = {}
READ: list[tuple[str, int, int]] = []
"""(URL, first byte, bytes) of every read."""


class _Reads(io.RawIOBase):
    def __init__(self, url: str) -> None:
        self._url, self._at = url, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + {0: 0, 1: self._at, 2: len(FILES[self._url])}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = FILES[self._url][self._at : self._at + len(buffer)]
        READ.append((self._url, self._at, len(data)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Writes(io.BytesIO):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def close(self) -> None:
        if not self.closed:
            FILES[self._url] = self.getvalue()
        super().close()


class MemoryFiles(FileSystem):
    """What Beam asks of a store, answered from FILES."""

    @classmethod
    def scheme(cls) -> str:
        return "mem"

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for url in sorted(FILES):
            if url.startswith(dir_or_prefix):
                yield self.metadata(url)

    def open(self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO) -> Any:
        if path not in FILES:
            raise FileNotFoundError(2, "Not found", path)
        return io.BufferedReader(_Reads(path), 16 << 20)

    def create(self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO) -> Any:
        return _Writes(path)

    def exists(self, path: str) -> bool:
        return path in FILES

    def metadata(self, path: str) -> FileMetadata:
        if path not in FILES:
            raise BeamIOError("Metadata operation failed", {path: KeyError(path)})
        return FileMetadata(path, len(FILES[path]), 1.5)

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            FILES.pop(path, None)

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path: str) -> Any:
        return path.rpartition("/")[::2]

    def mkdirs(self, path: str) -> None:
        raise AssertionError("a store has no folders")

    def copy(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        raise AssertionError("what is copied isn't there at once")

    rename = copy

    def size(self, path: str) -> int:
        return len(FILES[path])

    def last_updated(self, path: str) -> float:
        return 1.5

    def checksum(self, path: str) -> str:
        raise AssertionError("not every store has one")
