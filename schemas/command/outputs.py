"""What a command writes where it is told to: it takes the place of nothing that the same command didn't write."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from schemas.dataset import CARD, is_own_name
from schemas.errors import UserError
from schemas.machine import beside, replaced

MARK_IN_BYTES = 1 << 16
"""Of a file's beginning, and of its end: its mark is in one of them."""
_PNG_HEADER_BYTES = 33  # the signature and the chunk IHDR

Owned = Callable[[Path], "Sequence[Path] | None"]
"""The files that an output of the command's own consists of; None for anything else that stands there."""


def mark_of(command: str) -> str:
    """What a file says of itself that `command` wrote where it was told to: only such a file is replaced."""
    return f"written by hwdb-shards {command}"


def has_mark(content: bytes, command: str) -> bool:
    """Whether a file's beginning or its end has the mark of `command`."""
    mark = mark_of(command).encode()
    return mark in content[:MARK_IN_BYTES] or mark in content[-MARK_IN_BYTES:]


def marked_by(command: str, older: str | None = None) -> Owned:
    """A file with the mark of `command`, or with what earlier releases wrote near the file's beginning."""

    def owned(path: Path) -> Sequence[Path] | None:
        with path.open("rb") as file:
            content = file.read(MARK_IN_BYTES)
            file.seek(max(MARK_IN_BYTES, path.stat().st_size - MARK_IN_BYTES))
            from_before = older is not None and older.encode() in content
            return [path] if from_before or has_mark(content + file.read(), command) else None

    return owned


def marked_png(png: bytes, command: str) -> bytes:
    """The same picture with the mark in a text chunk."""
    chunk = b"tEXtSoftware\0" + mark_of(command).encode()
    size, check = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))
    return png[:_PNG_HEADER_BYTES] + size + chunk + check + png[_PNG_HEADER_BYTES:]


def check_output(path: str | os.PathLike[str], command: str, owned: Owned | None = None) -> Path:
    """Where an output goes that the user named, links followed.

    Raises UserError where something stands there that `command` didn't write, or a data set has a file by that name.
    """
    place = Path(os.path.realpath(path))
    for folder in place.parents[:2]:
        if is_own_name(place.relative_to(folder).as_posix()) and (folder / CARD).is_file():
            raise UserError(f"{path}: is the name of a file of the data set {folder}; choose another path")
    is_own = not os.path.lexists(place)
    if place.is_dir() or place.is_file():
        with contextlib.suppress(OSError, ValueError):
            is_own = (owned or marked_by(command))(place) is not None
    if not is_own:
        raise not_own(path, command)
    return place


def not_own(path: str | os.PathLike[str], command: str) -> UserError:
    return UserError(
        f"{path}: expected nothing there, or what {command} wrote, found something else, which stays as it is; "
        "choose another path, or move it away"
    )


@contextlib.contextmanager
def output(path: str | os.PathLike[str], command: str, owned: Owned | None = None) -> Iterator[Path]:
    """As `replaced`, of a path that the user named: nothing is replaced or removed that `command` didn't write.

    An earlier output goes file by file, as `owned` lists them, once the new one stands in its place. Raises OSError, or
    UserError as check_output does.
    """
    place = check_output(path, command, owned)
    aside = None
    try:
        with replaced(place) as temporary:
            yield temporary
            check_output(place, command, owned)
            if place.is_dir():
                os.replace(place, aside := beside(place))
    except BaseException:
        if aside is not None and not os.path.lexists(place):
            os.replace(aside, place)
        raise
    if aside is not None:
        for file in (owned or marked_by(command))(aside) or ():
            file.unlink()
        for folder, _, _ in os.walk(aside, topdown=False):
            with contextlib.suppress(OSError):  # it isn't empty: something came in meanwhile
                os.rmdir(folder)
