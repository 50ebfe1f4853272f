"""Direct writes: the bytes that were given, whatever the pieces, the file system and the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.storage import uncached
from pipeline.storage.uncached import uncached_write

MIB = 1 << 20


def pieces(sizes: list[int]) -> list[bytes]:
    random = np.random.default_rng(len(sizes))
    return [random.bytes(size) for size in sizes]


def write(path: Path, parts: Iterable[bytes]) -> None:
    with uncached_write(str(path)) as stream:
        for part in parts:
            stream.write(part)


def replace(path: Path, parts: Iterable[bytes]) -> None:
    with storage.atomic_large_write(str(path)) as stream:
        for part in parts:
            stream.write(part)


@given(st.lists(st.one_of(st.integers(0, 9000), st.integers(MIB - 2, 2 * MIB + 5)), max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_file_is_the_pieces_one_behind_the_other(tmp_path: Path, sizes: list[int]) -> None:
    path, parts = tmp_path / f"{len(list(tmp_path.iterdir()))}", pieces(sizes)
    write(path, parts)
    assert path.read_bytes() == b"".join(parts)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_sizes_at_the_edges_of_blocks_and_buffers(tmp_path: Path, size: int) -> None:
    write(tmp_path / "whole", pieces([size]))
    assert (tmp_path / "whole").read_bytes() == pieces([size])[0]


def test_a_piece_may_change_once_it_is_taken(tmp_path: Path) -> None:
    piece = bytearray(b"a" * MIB)
    with uncached_write(str(tmp_path / "file")) as stream:
        for letter in b"abc":
            piece[:] = bytes([letter]) * MIB
            stream.write(piece)
    assert (tmp_path / "file").read_bytes() == b"a" * MIB + b"b" * MIB + b"c" * MIB


def test_a_file_system_without_direct_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really, asked = fcntl.fcntl, []

    def refuse(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL and argument & uncached._DIRECT:
            asked.append(argument)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return really(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    parts = pieces([3 * MIB + 77, 5])
    write(tmp_path / "file", parts)
    assert (tmp_path / "file").read_bytes() == b"".join(parts)
    assert bool(asked) == bool(uncached._DIRECT)


def test_where_a_disk_takes_direct_writes_they_are_direct(tmp_path: Path) -> None:
    try:
        os.close(os.open(tmp_path / "probe", os.O_CREAT | os.O_WRONLY | uncached._DIRECT))
    except OSError:
        pytest.skip("no direct writes on this file system")
    with uncached_write(str(tmp_path / "file")) as stream:
        assert fcntl.fcntl(stream._fd, fcntl.F_GETFL) & uncached._DIRECT == uncached._DIRECT


def test_a_disk_whose_blocks_are_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_write, refused = os.write, []

    def write_some(fd: int, octets: memoryview) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & uncached._DIRECT:
            refused.append(len(octets))
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return really_write(fd, octets)

    monkeypatch.setattr(os, "write", write_some)
    parts = pieces([3 * MIB + 77, 5])
    write(tmp_path / "file", parts)
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == b"".join(parts)
    assert len(refused) <= 1


@pytest.mark.parametrize("most", [8192, 5000])  # blocks, and parts of blocks
def test_a_disk_that_takes_less_than_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    really_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, octets: really_write(fd, octets[:most] if len(octets) > 9 else octets))
    parts = pieces([MIB + 123_456])
    write(tmp_path / "file", parts)
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == parts[0]


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """The kernel refuses a byte more of a file, as a full disk does."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("limit", [0, 5000, MIB + 1000, 3 * MIB])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    (tmp_path / "file").write_bytes(b"before")
    with at_most(limit), pytest.raises(OSError, match="File too large"):
        replace(tmp_path / "file", pieces([MIB] * 3 + [1]))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    def one_that_fails() -> Iterator[bytes]:
        yield b"half"
        raise KeyError("the other half")

    with pytest.raises(KeyError, match="the other half"):
        replace(tmp_path / "file", one_that_fails())
    assert not list(tmp_path.iterdir())


def test_a_file_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    with storage.atomic_large_write(str(tmp_path / "file")) as stream:
        stream.write(b"after")
        assert (tmp_path / "file").read_bytes() == b"before"
    assert (tmp_path / "file").read_bytes() == b"after"
    (tmp_path / "plain").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode
