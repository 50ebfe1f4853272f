"""One conversion at a time in an output folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from pipeline import storage
from schemas.dataset import LOCK
from schemas.errors import UserError, explained
from schemas.machine import make_folder

_NO_KERNEL_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK)
_LOCAL_DISK = re.compile("ext[234]|xfs|btrfs|bcachefs|f2fs|jfs|zfs|tmpfs|ramfs|overlay|vfat|exfat|ntfs3|apfs|hfs|ufs")
"""File systems of one kernel: whoever else writes there asks the same one for its locks."""


@contextlib.contextmanager
def locked(output: str) -> Iterator[None]:
    """Holds the folder while the block runs. Raises UserError, naming the holder, where another conversion does.

    The lock of a local folder is the kernel's, so it ends with its process, however that ends. An object store knows no
    such thing, nor do some shared disks: two that start there within the same second aren't kept apart.
    """
    path = storage.join(output, LOCK)
    with explained(f"write {path}"):
        if not storage.of(path).is_remote:
            make_folder(output)
        let_go = (None if storage.of(path).is_remote else _lock_local(path, output)) or _lock_by_its_words(path, output)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, UserError):
            let_go()


def _lock_by_its_words(path: str, output: str) -> Callable[[], None]:
    """Writes the lock file where there is no other lock than its content; returns what deletes it."""
    _refuse_holder(path, output, storage.read_if_there(path) or b"")
    storage.write_bytes(path, _me())

    def let_go() -> None:
        if storage.read_if_there(path) == _me():  # not another's, if somebody has deleted ours
            storage.delete([path])

    return let_go


def _lock_local(path: str, output: str) -> Callable[[], None] | None:
    """Holds the kernel's lock of the lock file; returns what lets go, or None where the kernel has no such locks."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _refuse_holder(path, output, os.read(descriptor, 1 << 12), alive=True)
            except OSError as error:
                if error.errno not in _NO_KERNEL_LOCKS:
                    raise
                os.close(descriptor)
                return None
            if not _is_at(descriptor, path):
                os.close(descriptor)
                continue  # its holder has just finished and deleted it
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # reading something else could wait forever
                raise UserError(f"{path}: expected a file, found something else; name another --output")
            _refuse_holder(path, output, os.read(descriptor, 1 << 12), held=_on_local_disk(path))
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, _me(), 0)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise
        break

    def let_go() -> None:
        try:
            if _is_at(descriptor, path):
                os.unlink(path)
        finally:
            os.close(descriptor)

    return let_go


def _is_at(descriptor: int, path: str) -> bool:
    """Whether the open file is still the one of that name."""
    return os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path))


def _refuse_holder(path: str, output: str, content: bytes, *, alive: bool = False, held: bool = False) -> None:
    """Raises UserError for the lock's content, unless its holder is gone, or there is nothing in it.

    Its holder is gone where the kernel's lock is `held` by this process, on a disk where that means something: a
    container that was started again has another name. Elsewhere it must be this host's, and its process have ended: on
    some shared disks another host's lock isn't seen, what it wrote is.
    """
    try:
        holder = json.loads(content)
        host, process, started = str(holder["host"]), holder["process"], holder.get("started")
    except (ValueError, KeyError, TypeError, AttributeError):
        if not alive:
            if content.strip(b"\0"):
                raise UserError(
                    f"{output}: expected a new folder, found a {LOCK} in it that no conversion wrote; name another "
                    "--output, or delete it if nobody needs it"
                ) from None
            return  # torn by a power cut
        host, process, started = socket.gethostname(), "unknown", None
    if alive or not (held or (host == socket.gethostname() and not _lives(process, started))):
        raise UserError(
            f"{output}: expected no other conversion into this folder, found one on {host}, process {process}; "
            f"wait for it, or delete {path} if it is gone"
        )


def _on_local_disk(path: str) -> bool:
    place = os.path.realpath(path)
    try:
        mounts = {disk.mountpoint: disk.fstype for disk in psutil.disk_partitions(all=True)}  # the last one is on top
    except (OSError, RuntimeError):
        return False
    while place not in mounts and place != "/":
        place = os.path.dirname(place)
    return _LOCAL_DISK.fullmatch(mounts.get(place, "")) is not None


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
