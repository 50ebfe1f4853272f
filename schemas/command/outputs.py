"""What a command writes where it is told to: it takes the place of nothing that the same command didn't write."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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


def sums_text(digests: Mapping[str, str]) -> str:
    """What sha256sum writes, and checks with -c: a line for each file, of its SHA-256 and its name."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def read_sums(text: str) -> dict[str, str]:
    """Name -> SHA-256. Raises ValueError for what sums_text didn't write."""
    return {name: digest for digest, name in (line.split("  ", 1) for line in text.splitlines())}


def files_below(folder: Path) -> dict[str, Path]:
    """Everything below it but folders, by its name from there."""
    entries = {entry.relative_to(folder).as_posix(): entry for entry in sorted(folder.rglob("*"))}
    return {name: entry for name, entry in entries.items() if entry.is_symlink() or not entry.is_dir()}


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def as_summed(sums: str, folders: Collection[str]) -> Owned:
    """A folder that holds the files that its file `sums` lists, as they were, and no other; or one that is empty.

    It may have `folders` below it.
    """

    def owned(path: Path) -> Sequence[Path] | None:
        if not any(path.iterdir()):
            return []
        files, digests = files_below(path), read_sums((path / sums).read_text("utf-8"))
        below = {folder.relative_to(path).as_posix() for folder in path.rglob("*") if folder.is_dir()}
        if files.keys() != digests.keys() | {sums} or not below <= set(folders):
            return None
        if not all(file.is_file() and not file.is_symlink() for file in files.values()):
            return None
        if any(sha256_of(files[name]) != digest for name, digest in digests.items()):
            return None
        return list(files.values())

    return owned


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
