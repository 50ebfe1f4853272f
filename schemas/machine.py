"""What this machine gives a process: cores; files that take another's place at once, and only their own one's."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from schemas.dataset import CARD, is_own_name
from schemas.errors import UserError

_LITTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{8}(?=\.|$)")
MARK_IN_BYTES = 1 << 16
"""Of a file's beginning, and of its end: its mark is in one of them."""
_PNG_HEADER_BYTES = 33  # the signature and the chunk IHDR

Owned = Callable[[Path], "Sequence[Path] | None"]
"""The files that an output of the command's own consists of; None for anything else that stands there."""


def available_cores() -> int:
    """Cores this process may use, which a container or taskset can make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """A new path beside `path`; what stands there takes its place, at once, when the block ends well.

    A file takes a file's place; a folder that isn't empty stays as it is. Whatever happens, nothing half-written is
    left. If `durable`, the new name is on the disk afterwards, too; what it names is the block's business. Raises
    OSError.
    """
    place = Path(path)
    make_folder(place.parent)
    temporary = _beside(place)
    try:
        yield temporary
        os.replace(temporary, place)
        if durable:
            _sync_folder(place.parent)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def make_folder(path: str | os.PathLike[str]) -> None:
    """Makes a folder and those above it, where there are none; their names are on the disk afterwards."""
    if Path(path).is_dir():
        return
    missing = [folder for folder in (Path(path), *Path(path).parents) if not folder.exists()]
    Path(path).mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """After a power cut a name is only sure to be there if its folder has been written out."""
    with contextlib.suppress(OSError):  # some network disks know no such thing
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a whole text file in UTF-8, at once. Raises OSError."""
    with replaced(path) as temporary:
        temporary.write_text(text, "utf-8")


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
                os.replace(place, aside := _beside(place))
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


def is_litter(path: str) -> bool:
    """Whether a file is what systems and editors leave beside others: nobody's data, whatever the folder is for."""
    *folders, name = path.lower().split("/")
    return (
        name in _LITTER
        or "__macosx" in (*folders, name)
        or any(part.startswith(".") and part.strip(".") for part in (*folders, name))
    )


def without_temporary_mark(name: str) -> str:
    """The name that a file of `replaced` was going to have; other names stay as they are."""
    return _TEMPORARY.sub("", name)


def _beside(place: Path) -> Path:
    return place.with_name(f"{place.stem}.tmp-{uuid.uuid4().hex[:8]}{place.suffix}")
