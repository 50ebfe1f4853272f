"""stdout and stderr while a command runs: what can't be written there ends no work whose product is a file."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

EXIT_READER_GONE = 141
"""What a shell gives for `cat` in `cat FILE | head -1`: 128 and SIGPIPE's 13."""
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ESHUTDOWN}
_LENIENT = {"replace", "ignore", "xmlcharrefreplace", "backslashreplace", "namereplace"}
"""Error handlers that can encode every text; a caller who chose one of these keeps it."""


class Unwritable(BaseException):
    """What a command was asked to print can't be written. Not an Exception: nothing on the way may go on after it."""


class Words:
    """What a command says: its two streams, and what became of them."""

    def __init__(self, command: str, out: Any, err: Any) -> None:
        self.command = command
        self.is_product = False
        """Whether the words on stdout are what the command is for, and not beside a file that it writes."""
        self.failure: Exception | None = None
        """Why stdout couldn't be written."""
        self.thread = threading.get_ident()
        self.err = _lenient(err, lambda _: None)
        self.out = _lenient(out, self._failed)

    def _failed(self, error: Exception) -> None:
        self.failure = error
        if not self.is_product:
            self.complain(f"{_reason(error)}; what it says is lost, its work is not")
        elif threading.get_ident() == self.thread:
            raise Unwritable

    def complain(self, what: str) -> None:
        self.err.write(f"{self.command}: can't write to stdout: {what}\n")
        self.err.flush()

    def ended(self, status: int) -> int:
        """The command's exit status, `status` being that of its work."""
        with contextlib.suppress(Unwritable):
            self.out.flush()
        if self.failure is None or not self.is_product:
            return status
        if getattr(self.failure, "errno", None) in _GONE:
            return EXIT_READER_GONE
        self.complain(f"{_reason(self.failure)}; send it elsewhere, or make room")
        return 2


class _Sink(io.RawIOBase):
    """Where a stream's bytes go, until that fails once; afterwards they go nowhere."""

    def __init__(self, target: Any, failed: Callable[[Exception], None]) -> None:
        self.target, self.failed = target, failed
        self.is_open = True

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(self.target is not None and self.target.isatty())

    def fileno(self) -> int:
        if self.target is None:
            raise io.UnsupportedOperation("fileno")
        return int(self.target.fileno())

    def write(self, data: Any) -> int:
        octets = memoryview(data).cast("B")
        if self.is_open:
            try:
                self._write_all(octets)
            except (OSError, ValueError) as error:  # a ValueError from a file that its owner has closed
                self.is_open = False
                self.failed(error)
        return len(octets)

    def _write_all(self, octets: memoryview) -> None:
        if self.target is None:
            raise OSError(errno.EBADF, "it is closed")
        while len(octets):
            written = self.target.write(octets)
            if written is None:  # a terminal or pipe that somebody has set not to block
                select.select([], [self.target], [])
            octets = octets[written or 0 :]


@contextlib.contextmanager
def speaking(command: str) -> Iterator[Words]:
    """sys.stdout and sys.stderr fail no more while the block runs; afterwards they are what they were."""
    _occupy_standard_files()
    before = sys.stdout, sys.stderr
    words = Words(command, *before)
    sys.stdout, sys.stderr = words.out, words.err
    _speaking.append(words)
    try:
        yield words
    finally:
        _speaking.remove(words)
        with contextlib.suppress(Unwritable):
            words.out.flush()
        words.err.flush()
        sys.stdout, sys.stderr = before


_speaking: list[Words] = []
"""Of the commands that run in this process, the last begun last."""


def prints_its_product() -> None:
    """To be called by a command for which stdout is no side matter: it ends where that can't be written."""
    if _speaking:
        words = _speaking[-1]
        words.is_product = True
        if words.failure is not None:
            raise Unwritable


def can_hold_any_text(stream: Any) -> bool:
    """Whether no character has to be replaced on its way into the stream."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def _lenient(stream: Any, failed: Callable[[Exception], None]) -> Any:
    """Another stream to the same place; what isn't encoded there, a StringIO or a notebook's, stays as it is."""
    if stream is None:
        return io.TextIOWrapper(_Sink(None, failed), "utf-8", "backslashreplace", write_through=True)
    if type(stream).write is not io.TextIOWrapper.write:
        return stream
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    raw = getattr(stream.buffer, "raw", stream.buffer)
    sink = _Sink(raw, failed)
    return io.TextIOWrapper(
        sink if stream.write_through else io.BufferedWriter(sink),
        stream.encoding,
        stream.errors if stream.errors in _LENIENT else "backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _occupy_standard_files() -> None:
    """Where 0, 1 or 2 is closed the next file opened would get its number, and what is printed would go into it."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
