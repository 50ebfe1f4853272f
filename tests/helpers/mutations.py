"""Damage done to GNT data on purpose, and which records it leaves whole."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from gnt_files import parse

Edit = tuple[int, int, bytes]
"""(begin, end, what stands there instead)"""
HEADER_BYTES = 10
KINDS = ("flip", "header_flip", "truncate", "insert", "delete", "overwrite", "repeat", "swap_headers")


@dataclass(frozen=True)
class Damaged:
    """A member after a mutation."""

    kind: str
    data: bytes
    whole: dict[int, bytes]
    """New offset -> the bytes of each record outside the damaged region."""


def mutate(original: bytes, kind: str, rng: random.Random, most_bytes: int = 5_000) -> Damaged:
    """One mutation of a kind, at a place that `rng` draws."""
    edits = sorted(_edits(original, kind, rng, most_bytes))
    data, end = b"", 0
    for begin, stop, instead in edits:
        data += original[end:begin] + instead
        end = stop
    data += original[end:]
    first, last, shift = edits[0][0], edits[-1][1], len(data) - len(original)
    whole = {}
    for offset, _, bitmap in parse(original):
        stop = offset + HEADER_BYTES + bitmap.size
        if stop <= first:
            whole[offset] = original[offset:stop]
        elif offset >= last:
            whole[offset + shift] = original[offset:stop]
    return Damaged(kind, data, whole)


def flip_header_bit(original: bytes, record: int, bit: int) -> bytes:
    """The data with one bit of a record's header turned round."""
    changed = bytearray(original)
    changed[parse(original)[record][0] + bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def is_undecidable(found: Sequence[tuple[int, int]], damaged: Damaged, lost: int) -> bool:
    """Whether the record at `lost` vanished in one whose own header reaches exactly to the next good record.

    The bytes deleted before it were as many as it has itself: nothing in a file without checksums tells.
    """
    ends = {offset for offset, _ in found} | {len(damaged.data)}
    return any(offset < lost < offset + size and offset + size in ends for offset, size in found)


def _edits(original: bytes, kind: str, rng: random.Random, most_bytes: int) -> list[Edit]:
    n = len(original)
    offsets = [offset for offset, _, _ in parse(original)]
    at = rng.randrange(n)
    size = min(rng.randint(1, most_bytes), n - at)
    if kind in ("flip", "header_flip"):
        if kind == "header_flip":
            at = rng.choice(offsets) + rng.randrange(HEADER_BYTES)
        return [(at, at + 1, bytes([original[at] ^ 1 << rng.randrange(8)]))]
    if kind == "truncate":
        return [(at, n, b"")]
    if kind == "insert":
        return [(at, at, _noise(rng, size))]
    if kind == "delete":
        return [(at, at + size, b"")]
    if kind == "overwrite":
        return [(at, at + size, _noise(rng, size))]
    if kind == "repeat":
        return [(at, at, original[at : at + size])]
    a, b = sorted(rng.sample(offsets, 2))
    headers = original[a : a + HEADER_BYTES], original[b : b + HEADER_BYTES]
    return [(a, a + HEADER_BYTES, headers[1]), (b, b + HEADER_BYTES, headers[0])]


def _noise(rng: random.Random, size: int) -> bytes:
    return rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size)])
