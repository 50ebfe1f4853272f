"""A bounded cache on disk for the shards of data sets that lie in a store: whole shards, each as the card says."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline import storage
from schemas.dataset import Card, DatasetError, ShardFile
from schemas.errors import UserError, explained
from schemas.machine import beside, cache_folder, make_folder

_PIECE_BYTES = 16 << 20  # of a shard, asked for at once
_WAIT_SECONDS = 0.05
_SUFFIX = ".shard"


class ShardCache:
    """What several processes share: one fetches a shard, the others wait for it; the one used longest ago goes first.

    A shard is called by its SHA-256, so a data set that lies in two places is kept once. What a kill leaves is a
    temporary file, which the next process removes. Raises UserError where the bound doesn't hold one shard.
    """

    def __init__(self, url: str, card: Card, most_bytes: int) -> None:
        cache = cache_folder()
        if cache is None:
            raise UserError(
                f"XDG_CACHE_HOME: expected a folder for the shards of {url}, found no home folder; name one"
            )
        self._url, self._folder, self.most_bytes = url, cache / "shards", most_bytes
        self._largest = max(shard.bytes for split in card.splits.values() for shard in split.shards)
        self.check_room(1)

    def check_room(self, shards: int) -> None:
        """Raises UserError where the bound doesn't hold so many at once."""
        if shards * self._largest > self.most_bytes:
            of = "the largest shard" if shards == 1 else f"{shards} times the largest shard"
            raise UserError(
                f"--cache_bytes {self.most_bytes:,}: expected {shards * self._largest:,} or more, {of} of {self._url}"
            )

    @property
    def most_open(self) -> int:
        """Shards that a process may hold open: what is open takes its room even when it has gone from the cache."""
        return max(1, self.most_bytes // self._largest // 2)

    def opened(self, shard: ShardFile) -> BinaryIO:
        """The shard, whole, open to be read. Raises DatasetError for one that isn't what the card says."""
        path = self._folder / f"{shard.sha256}{_SUFFIX}"
        with explained(f"keep shards in {self._folder}"):
            make_folder(self._folder)
            with self._locked(shard.sha256):
                while True:
                    with contextlib.suppress(FileNotFoundError):  # another process may have made room meanwhile
                        stream = open(path, "rb")  # noqa: SIM115
                        if os.fstat(stream.fileno()).st_size == shard.bytes:
                            os.utime(stream.fileno(), ns=(time.time_ns(),) * 2)  # its own clock ticks slowly
                            return stream
                    self._fetch(shard, path)

    def forget(self, shard: ShardFile) -> None:
        """Removes a shard that isn't what was fetched any more: the next who asks has it fetched again."""
        (self._folder / f"{shard.sha256}{_SUFFIX}").unlink(missing_ok=True)

    def _fetch(self, shard: ShardFile, path: Path) -> None:
        temporary, digest, url = beside(path), hashlib.sha256(), storage.join(self._url, shard.path)
        while not self._reserve(shard.bytes, temporary):
            time.sleep(_WAIT_SECONDS)  # others fetch, and what they have fetched may go
        try:
            with open(temporary, "r+b") as stream:
                for begin in range(0, shard.bytes, _PIECE_BYTES):
                    piece = storage.read_range(url, begin, min(_PIECE_BYTES, shard.bytes - begin))
                    digest.update(piece)
                    stream.write(piece)
                stream.flush()
                os.fsync(stream.fileno())
            if digest.hexdigest() != shard.sha256:
                raise DatasetError(
                    f"{url}: isn't the shard that the card names, by its SHA-256; copy it again, or convert again"
                )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def _reserve(self, size: int, temporary: Path) -> bool:
        """Makes a file that takes up the room, if the bound has it when what was used longest ago has gone."""
        with self._locked("room"):
            there: list[tuple[float, int, Path]] = []
            for path in self._folder.glob(f"*{_SUFFIX}"):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    if ".tmp-" not in path.name or self._is_locked(path.name.partition(".")[0]):
                        there.append((status.st_mtime, status.st_size, path))
                    else:
                        path.unlink()  # a kill left it
            room = self.most_bytes - sum(one for _, one, _ in there)
            for _, one, path in sorted(there):
                if room < size and ".tmp-" not in path.name:
                    path.unlink(missing_ok=True)
                    room += one
            if room < size:
                return False
            with open(temporary, "wb") as stream:
                stream.truncate(size)
            return True

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Of all processes and threads here one at a time; the kernel lets go with the process, however it ends."""
        descriptor = os.open(self._folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _is_locked(self, name: str) -> bool:
        """Whether a process fetches that shard."""
        descriptor = os.open(self._folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False
