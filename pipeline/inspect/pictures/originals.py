"""The bitmaps that a data set was made from, read again from the archives, wherever they lie now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash

from pipeline import storage
from pipeline.inspect.manifest import Row
from pipeline.source import archives
from pipeline.source.archives import Input
from pipeline.source.gnt import HEADER_BYTES
from pipeline.source.members import Member, open_member
from pipeline.verify.record import MemberReader
from schemas.dataset import Card, MemberInput
from schemas.errors import UserError

_BUFFER_BYTES = 64 << 10  # 64 KiB: a record, not all that lies between two
_SIZES = slice(6, 10)  # a header's width and height, which the digest covers with the pixels


@dataclass
class Originals:
    """Finds the archives of a card; what it couldn't find stands in `lost`."""

    card: Card
    against: Sequence[str] = ()
    lost: list[str] = field(default_factory=list)
    """A line for every member whose bitmaps couldn't be read."""
    _listed: dict[str, list[Member]] = field(default_factory=dict)

    def read(self, rows: Iterable[Row]) -> dict[str, np.ndarray]:
        """sample_id -> uint8 [h, w] of those of the rows that have a bitmap which can be read. Paper is 255."""
        by_member: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            if row.bitmap_digest is not None:
                by_member.setdefault((row.split, row.member), []).append(row)
        found: dict[str, np.ndarray] = {}
        for (split, name), own in by_member.items():
            entry = next((e for e in self.card.inputs if (e.split, e.member) == (split, name)), None)
            if entry is None:
                self.lost.append(f"{name}: not among the inputs on the card")
                continue
            try:
                found.update(_read_bitmaps(self._find(entry), sorted(own, key=lambda row: row.source_offset)))
            except UserError as error:
                self.lost.append(str(error))
        return found

    def _find(self, entry: MemberInput) -> Member:
        same = []
        for path in self.against or [entry.location]:
            if path not in self._listed:
                one = archives.parse_input(path, "--against") if self.against else Input(entry.split, path)
                self._listed[path] = archives.list_members([one], 0) if storage.find(one.path) else []
            # Named alone, a member has its base name, which with others beside it may have stood behind its folder.
            same += [
                one
                for one in self._listed[path]
                if f"/{entry.member}".endswith(f"/{one.name}") and one.size_bytes == entry.bytes
            ]
        if not same and self.against:
            what = f"{entry.member} of {entry.bytes:,} bytes"
            raise UserError(f"{what} isn't under --against; name the archive that holds it")
        if not same:
            where = f"at {entry.location} any more"
            raise UserError(f"{entry.member} isn't {where}; --against PATH names where the archives are now")
        return next((member for member in same if member.split == entry.split), same[0])


def _read_bitmaps(member: Member, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """The bitmaps of rows in the order of their offsets; what is packed is unpacked once."""
    found = {}
    buffer_bytes = _BUFFER_BYTES if member.random_access else storage.BUFFER_BYTES
    with open_member(member, buffer_bytes) as stream:
        reader = MemberReader(stream, member)
        for row in rows:
            record = reader.read(row.source_offset, row.source_bytes)
            if row.width is None or row.height is None:
                continue
            pixels = record[HEADER_BYTES : HEADER_BYTES + row.width * row.height]
            if xxhash.xxh3_64_intdigest(record[_SIZES] + pixels) != row.bitmap_digest:
                raise UserError(
                    f"{member}, record {row.record_index} at byte {row.source_offset:,}: expected the bitmap that was "
                    "converted, found another; name the right archive with --against"
                )
            found[row.sample_id] = np.frombuffer(pixels, np.uint8).reshape(row.height, row.width)
    return found
