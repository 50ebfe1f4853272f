"""One conversion at a time in an output folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import psutil

from pipeline import storage
from schemas.dataset import LOCK
from schemas.errors import UserError, explained
from schemas.machine import make_folder


@contextlib.contextmanager
def locked(output: str) -> Iterator[None]:
    """Holds the folder while the block runs. Raises UserError, naming the holder, where another conversion does.

    The lock of a local folder is the kernel's, so it ends with its process, however that ends. An object store knows no
    such thing: two that start there within the same second aren't kept apart.
    """
    path = storage.join(output, LOCK)
    with explained(f"write {path}"):
        if storage.of(path).is_remote:
            _refuse_holder(path, output, storage.read_if_there(path) or b"")
            storage.write_bytes(path, _me())
            descriptor = None
        else:
            make_folder(output)
            descriptor = _lock_local(path, output)
    try:
        yield
    finally:
        unlock(output)
        if descriptor is not None:
            os.close(descriptor)


def unlock(output: str) -> None:
    """Lets go of a folder this process holds."""
    with contextlib.suppress(OSError, UserError):
        storage.delete([storage.join(output, LOCK)])


def _lock_local(path: str, output: str) -> int:
    """The open lock file; whoever holds its kernel lock holds the folder."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _refuse_holder(path, output, os.read(descriptor, 1 << 12), alive=True)
            if not os.path.exists(path) or not os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.close(descriptor)
                continue  # its holder has just finished and deleted it
            # On some shared disks another host's lock isn't seen; what it wrote is.
            _refuse_holder(path, output, os.read(descriptor, 1 << 12))
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, _me(), 0)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise
        return descriptor


def _refuse_holder(path: str, output: str, content: bytes, *, alive: bool = False) -> None:
    """Raises UserError for the lock's content, unless it is this host's and its process has ended."""
    try:
        holder = json.loads(content)
        host, process = str(holder["host"]), holder["process"]
    except (ValueError, KeyError, TypeError):
        if not alive:
            return
        host, process = socket.gethostname(), "unknown"
    if alive or host != socket.gethostname() or (storage.of(path).is_remote and _lives(process, holder.get("started"))):
        raise UserError(
            f"{output}: expected no other conversion into this folder, found one on {host}, process {process}; "
            f"wait for it, or delete {path} if it is gone"
        )


def _lives(process: Any, started: Any) -> bool:
    """Whether a process of this host is the one that began then: its number may have been given to another."""
    try:
        return bool(psutil.Process(int(process)).create_time() == started)
    except (psutil.Error, ValueError, TypeError, OverflowError):
        return False


def _me() -> bytes:
    process = os.getpid()
    started = psutil.Process(process).create_time()
    return json.dumps({"host": socket.gethostname(), "process": process, "started": started}).encode()
