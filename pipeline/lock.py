"""One conversion at a time in an output folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator

import psutil

from pipeline import storage
from pipeline.errors import UserError

_LOCK = "lock.json"


@contextlib.contextmanager
def locked(staging_folder: str, output: str) -> Iterator[None]:
    """Holds the folder while the block runs.

    Raises UserError, naming the holder, where another conversion is at work in the folder.
    A lock whose process has ended is taken over. On an object store nothing can be created exclusively, so two that
    start within the same second aren't kept apart there; their pieces are the same bytes, or have other names.
    """
    path = storage.join(staging_folder, _LOCK)
    with storage.explained(f"write {path}"):
        holder = _holder(path)
        if holder is not None:
            host, process = holder["host"], holder["process"]
            raise UserError(
                f"{output}: expected no other conversion into this folder, found one on {host}, process {process}; "
                f"wait for it, or delete {path} if it is gone"
            )
        storage.write_bytes(path, json.dumps(_me()).encode())
        if _read(path) != _me():
            raise UserError(f"{output}: another conversion into this folder began at the same moment; start one again")
    try:
        yield
    finally:
        unlock(staging_folder)


def unlock(staging_folder: str) -> None:
    """Lets go of a folder this process holds."""
    with contextlib.suppress(OSError):
        storage.delete([storage.join(staging_folder, _LOCK)])


def _holder(path: str) -> dict[str, object] | None:
    """Whoever holds the lock, None if nobody who is alive does."""
    holder = _read(path)
    if holder is None:
        return None
    if holder.get("host") != socket.gethostname():
        return holder
    try:
        alive = psutil.Process(int(str(holder["process"]))).create_time() == holder["started"]
    except (psutil.Error, KeyError, ValueError):
        alive = False
    return holder if alive else None


def _read(path: str) -> dict[str, object] | None:
    if not storage.exists(path):
        return None
    try:
        holder = json.loads(storage.read_bytes(path))
    except ValueError:
        return None
    return holder if isinstance(holder, dict) else None


def _me() -> dict[str, object]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": psutil.Process().create_time(),
    }
