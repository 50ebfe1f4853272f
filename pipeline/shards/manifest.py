"""The manifest part of a shard, written in row groups of one size, however its rows arrive."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from schemas.errors import explained
from schemas.manifest import MANIFEST_SCHEMA

ROW_GROUP_ROWS = 1 << 20
"""The bytes depend on it."""
_PARQUET = {"compression": "zstd", "write_page_index": True}
_LET_GO_SECONDS = 0.01


@contextlib.contextmanager
def open_manifest(path: str, gathered_in: str | None = None) -> Iterator[ManifestWriter]:
    """A manifest part to write to, which appears under `path` when the block ends well.

    Rows that come in more than one table are gathered in files without a name, in the folder `gathered_in`.
    """
    with explained(f"write {path}"), storage.atomic_write(path, durable=True) as stream:
        sink = _Sink(stream)
        try:
            with contextlib.closing(pq.ParquetWriter(sink, MANIFEST_SCHEMA, **_PARQUET)) as parquet:
                writer = ManifestWriter(path, sink, parquet, gathered_in)
                yield writer
                writer.finish()
        finally:
            sink.forget()  # what failed is written once more when it is collected


class ManifestWriter:
    """A manifest part, while it is written."""

    def __init__(self, path: str, sink: _Sink, parquet: pq.ParquetWriter, gathered_in: str | None) -> None:
        self.rows = 0
        self._path, self._sink, self._parquet = path, sink, parquet
        self._gathered = None if gathered_in is None else _RowGroup(gathered_in)

    @property
    def bytes(self) -> int:
        return self._sink.size

    @property
    def sha256(self) -> str:
        return self._sink.digest.hexdigest()

    def write(self, rows: pa.Table) -> None:
        """Adds rows of MANIFEST_SCHEMA."""
        self.rows += rows.num_rows
        with explained(f"write {self._path}"):
            if self._gathered is None:
                self._parquet.write_table(rows, ROW_GROUP_ROWS)
                return
            while rows.num_rows:
                room = ROW_GROUP_ROWS - self._gathered.rows
                self._gathered.add(rows[:room])
                rows = rows[room:]
                if self._gathered.rows == ROW_GROUP_ROWS:
                    self._gathered.write(self._parquet)

    def finish(self) -> None:
        if self._gathered is not None and self._gathered.rows:
            self._gathered.write(self._parquet)


class _RowGroup:
    """Rows of a row group, each column in files: Parquet wants it in one piece, which memory needn't hold."""

    def __init__(self, folder: str) -> None:
        self._valid = [np.zeros(ROW_GROUP_ROWS, bool) for _ in MANIFEST_SCHEMA]
        self._files: list[list[IO[bytes]]] = [
            [tempfile.TemporaryFile(dir=folder) for _ in range(1 + pa.types.is_string(field.type))]  # noqa: SIM115
            for field in MANIFEST_SCHEMA
        ]
        """A column's values; of one of strings, where each begins and ends (int32), and the text."""
        self._clear()

    def add(self, rows: pa.Table) -> None:
        for column, valid, files in zip(rows.itercolumns(), self._valid, self._files, strict=True):
            for array in column.chunks:
                _append(array, files)
            valid[self.rows : self.rows + len(column)] = column.is_valid()
        self.rows += rows.num_rows

    def write(self, parquet: pq.ParquetWriter) -> None:
        """Writes them, and begins the next ones."""
        columns, maps = [], []
        for field, valid, files in zip(MANIFEST_SCHEMA, self._valid, self._files, strict=True):
            mapped = [_mapped(file) for file in files]
            bits = (
                None if valid[: self.rows].all() else pa.py_buffer(np.packbits(valid[: self.rows], bitorder="little"))
            )
            columns.append(pa.Array.from_buffers(field.type, self.rows, [bits, *map(pa.py_buffer, mapped)]))
            maps += [one for one in mapped if isinstance(one, mmap.mmap)]
        with _let_go(maps):
            parquet.write_table(pa.table(columns, schema=MANIFEST_SCHEMA), ROW_GROUP_ROWS)
        self._clear()

    def _clear(self) -> None:
        self.rows = 0
        for files in self._files:
            for file in files:
                file.seek(0)
                file.truncate()
            if len(files) > 1:
                files[0].write(bytes(4))


def _append(array: pa.Array, files: list[IO[bytes]]) -> None:
    values, *text = files
    if not text:
        width = array.type.bit_width // 8
        values.write(memoryview(array.buffers()[1])[width * array.offset :][: width * len(array)])
        return
    ends = np.frombuffer(array.buffers()[1], np.int32, 1 + len(array), 4 * array.offset)
    values.write((ends[1:] + np.int32(text[0].tell() - ends[0])).data)
    text[0].write(memoryview(array.buffers()[2] or b"")[ends[0] : ends[-1]])


def _mapped(file: IO[bytes]) -> mmap.mmap | bytes:
    file.flush()
    return mmap.mmap(file.fileno(), file.tell(), mmap.MAP_SHARED, mmap.PROT_READ) if file.tell() else b""


@contextlib.contextmanager
def _let_go(maps: list[mmap.mmap]) -> Iterator[None]:
    """What has been read of mapped files counts as this process's memory until it lets go of it: now and then, here."""
    done = threading.Event()

    def let_go() -> None:
        while not done.wait(_LET_GO_SECONDS):
            for one in maps:
                one.madvise(mmap.MADV_DONTNEED)

    thread = threading.Thread(target=let_go, name="let go", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _Sink:
    """What Parquet is written to: counted, hashed and handed on."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self._stream: BinaryIO | None = stream

    def write(self, octets: bytes) -> int:
        if self._stream is not None:
            self._stream.write(octets)
            self.digest.update(octets)
            self.size += len(octets)
        return len(octets)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def forget(self) -> None:
        self._stream = None
