"""Staged chunks: what one chunk became, kept until the shards are written.

The receipt of a staged chunk is written last: it says what the file must hold to be whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass
from typing import Any

from pipeline import storage
from pipeline.shards.rows import Source
from pipeline.source.names import writer_of
from schemas.errors import explained
from schemas.machine import without_temporary_mark

_LAYOUT = 3
"""Of a staged chunk: changes with its rows and with what they hold, so that another release's is left alone."""


@dataclass(frozen=True)
class ChunkReceipt:
    """What a staged chunk holds."""

    split: str
    member: str
    archive: str
    first_record: int
    source_bytes: int
    counts: dict[str, int]
    """By "kept" or "status reason" -> records."""
    keys: int
    """The sum of their keys, modulo 2^64: what the shards must add up to."""
    path: str
    content: str | None
    """The file's fingerprint."""
    parts: list[int]
    """Where the edges of each part begin in the file."""
    source: str = ""
    """Digest of its member and of the settings: shows whether it is a piece of this conversion or of another."""
    uncompiled: str = ""
    """Why the six steps weren't compiled where it was converted."""
    lost_bytes: int = 0
    """Of records rejected for one of LOST_REASONS."""

    @property
    def records(self) -> int:
        return sum(self.counts.values())

    @property
    def order(self) -> tuple[str, int]:
        """Sorts the chunks of a split."""
        return self.member, self.first_record

    @property
    def comes_from(self) -> Source:
        return Source(self.split, self.member, writer_of(self.member), self.archive)


_OWN_NAME = re.compile(r"(chunk|shard|unpacked)-.*")


def private_folder(folder: str, conversion: str) -> str:
    """Where one conversion stages in a folder that it may share with others; what is kept lies in the folder itself."""
    return storage.join(folder, f"conversion-{conversion}")


def has_kept_chunks(folder: str) -> bool:
    with explained(f"read {folder}"):
        return any(name.startswith("chunk-") for name in storage.names(folder))


def clear(folder: str) -> None:
    """Deletes the pieces in a folder that is one conversion's alone, and the folder if nothing else is in it."""
    with explained(f"clear {folder}"):
        files = storage.list_folder(folder)
        storage.delete([file.path for file in files if _OWN_NAME.fullmatch(storage.base_name(file.path))])
    remove_empty(folder)


def remove_empty(folder: str) -> None:
    if not storage.of(folder).is_remote:
        with contextlib.suppress(OSError):  # something is in it
            os.rmdir(folder)


def chunk_path(folder: str, digest: str) -> str:
    return storage.join(folder, f"chunk-{digest}-{_LAYOUT}.rows")


def receipt_path(path: str) -> str:
    return f"{path}.json"


def receipts(folder: str) -> set[str]:
    """The names of those in the folder that are whole: while one is written it has another name."""
    with explained(f"read {folder}"):
        names = storage.names(folder)
    return {name for name in names if name.endswith(".json") and without_temporary_mark(name) == name}


def read_receipt(path: str) -> dict[str, Any] | None:
    """The receipt of a staged file, as JSON; None where there is none that can be relied on."""
    content = storage.read_if_there(receipt_path(path))
    try:
        fields = json.loads(content or b"null")
    except ValueError:
        return None  # torn by a power cut
    return fields if isinstance(fields, dict) else None


def write_receipt(path: str, receipt: Any) -> None:
    storage.write_bytes(receipt_path(path), json.dumps(receipt, ensure_ascii=True).encode())


def read_chunk_receipt(path: str) -> ChunkReceipt | None:
    fields = read_receipt(path)
    if fields is None or fields.get("content") != storage.fingerprint(path):
        return None
    try:
        # The folder may have been moved, or be named by another path than when the receipt was written.
        return ChunkReceipt(**{**fields, "path": path})
    except (KeyError, TypeError):
        return None  # another release's


def commit_chunk(receipt: ChunkReceipt) -> None:
    with explained(f"write {receipt.path}"):
        write_receipt(receipt.path, asdict(receipt))
