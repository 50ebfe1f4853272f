"""What this machine gives a process: its cores, and files that take another's place at once."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

_LITTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{8}(?=\.|$)")


def available_cores() -> int:
    """Cores this process may use, which a container or taskset can make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path | None:
    """This package's in the user's cache folder; None for a user without a home, as a container can have."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "hwdb-shards") if os.path.isabs(cache) else None


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """A new path beside `path`; what stands there takes its place, at once, when the block ends well.

    A file takes a file's place; a folder that isn't empty stays as it is. Whatever happens, nothing half-written is
    left. If `durable`, the new name is on the disk afterwards, too; what it names is the block's business. Raises
    OSError.
    """
    place = Path(path)
    make_folder(place.parent)
    temporary = beside(place)
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


def beside(place: Path) -> Path:
    """A name of its own for what is to take the place, or has stood there."""
    return place.with_name(f"{place.stem}.tmp-{uuid.uuid4().hex[:8]}{place.suffix}")
