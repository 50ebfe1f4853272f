"""--index: the index files of NVIDIA DALI's TFRecord reader, from the manifest alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline import storage
from pipeline.inspect.manifest import COMMAND, Inspected
from schemas.command.outputs import not_own
from schemas.dataset import index_name
from schemas.errors import explained

_INDEX = re.compile(rb"(\d+ \d+\n)*")
"""What an index file holds, and nothing else."""


def write_index(inspected: Inspected) -> Iterator[str]:
    """Writes a file of "offset size" lines (bytes, frame included) beside each shard; gives the path of each."""
    for shard in (shard.path for split in inspected.card.splits.values() for shard in split.shards):
        frames = inspected.query(
            "SELECT shard_offset, shard_bytes FROM manifest WHERE shard = ? ORDER BY shard_offset", [shard]
        )
        path = storage.join(inspected.folder, index_name(shard))
        with explained(f"write {path}"):
            if not _INDEX.fullmatch(storage.read_if_there(path) or b""):
                raise not_own(path, COMMAND)
            storage.write_bytes(path, "".join(f"{offset} {size}\n" for offset, size in frames).encode())
        yield path
