"""Writing a large local file past the page cache, on systems that have a way to.

A shard has to be on the disk before its receipt says so, and what reads it comes later. Through the page cache each of
its pages would be found, filled and written out from there, push out something that is read again, and count as memory
of the container that writes it.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

_DIRECT = getattr(os, "O_DIRECT", 0)  # Linux
_BLOCK_BYTES = 4096  # a direct write begins at a multiple of it, in the file and in memory, and is one long
_BUFFER_BYTES = 1 << 20  # 1 MiB


class UncachedStream:
    """Takes bytes; while one buffer is filled, the other is on its way to the disk."""

    def __init__(self, fd: int, writer: ThreadPoolExecutor) -> None:
        self._fd, self._writer = fd, writer
        self._buffer, self._other = (memoryview(mmap.mmap(-1, _BUFFER_BYTES)) for _ in range(2))  # whole pages
        self._filled = self._size = 0
        self._written: Future[None] | None = None

    def write(self, octets: bytes | memoryview) -> None:
        rest = memoryview(octets)
        self._size += len(rest)
        while rest:
            part = rest[: _BUFFER_BYTES - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            rest = rest[len(part) :]
            if self._filled == _BUFFER_BYTES:
                self._send()

    def finish(self) -> None:
        """Everything written is on the disk afterwards."""
        self._filled = -(-self._filled // _BLOCK_BYTES) * _BLOCK_BYTES
        self._send()
        self._wait()
        os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)

    def _send(self) -> None:
        self._wait()
        self._written = self._writer.submit(_write, self._fd, self._buffer[: self._filled])
        self._buffer, self._other, self._filled = self._other, self._buffer, 0

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()


@contextmanager
def uncached_write(path: str) -> Iterator[UncachedStream]:
    """A stream to a new file, whose bytes are on the disk when the block ends without an error."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        # Asked for afterwards: a file system without direct writes makes the file before it refuses to open it so.
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | _DIRECT)
        with ThreadPoolExecutor(1) as writer:
            stream = UncachedStream(fd, writer)
            yield stream
            stream.finish()
    finally:
        os.close(fd)


def _write(fd: int, octets: memoryview) -> None:
    while octets:
        try:
            octets = octets[os.write(fd, octets) :]
        except OSError as error:
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            if error.errno != errno.EINVAL or not flags & _DIRECT:
                raise
            # Its blocks are larger than ours, or a full disk has taken part of one.
            fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~_DIRECT)
