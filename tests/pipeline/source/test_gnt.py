from __future__ import annotations

import struct

import gnt_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.source import gnt
from schemas.manifest import EMPTY_BITMAP, HEADER_MISMATCH, OVERSIZED, TRUNCATED

CHARACTERS = "啊阿埃挨哎唉哀皑癌蔼"
SOUND = gnt_files.member(gnt_files.records_of(CHARACTERS))
OFFSETS = [offset for offset, _, _ in gnt_files.parse(SOUND)]


def with_field(data: bytes, record: int, field: str, value: int) -> bytes:
    """`data` with one header field of one record changed."""
    place, layout = {"size": (0, "<I"), "tag": (4, ">H"), "width": (6, "<H"), "height": (8, "<H")}[field]
    changed = bytearray(data)
    struct.pack_into(layout, changed, OFFSETS[record] + place, value)
    return bytes(changed)


def assert_tiles(records: gnt.Records, data: bytes) -> None:
    assert records.offset.tolist() == [0, *np.cumsum(records.size)[:-1].tolist()]
    assert records.end == len(data)


bitmaps = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1)).map(
    lambda t: np.random.default_rng(t[2]).integers(0, 256, (t[0], t[1]), dtype=np.uint8)
)
tags = st.sampled_from([gnt_files.tag(c) for c in "啊座硷A8，"] + [b"\xa8\x44", b"\xff\xff"])


@given(st.lists(st.tuples(tags, bitmaps), max_size=12))
@settings(max_examples=60, deadline=None)
def test_every_record_is_found(records: list[gnt_files.Record]) -> None:
    data = gnt_files.member(records)
    found = gnt.walk(data)
    assert found.offset.tolist() == [offset for offset, _, _ in gnt_files.parse(data)]
    assert found.size.tolist() == [10 + bitmap.size for _, bitmap in records]
    assert found.tag_code.tolist() == [int.from_bytes(tag, "big") for tag, _ in records]
    assert found.height.tolist() == [bitmap.shape[0] for _, bitmap in records]
    assert found.width.tolist() == [bitmap.shape[1] for _, bitmap in records]
    assert set(found.fault) <= {gnt.SOUND}


@pytest.mark.parametrize("record", [0, 4, 9])
@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("size", 0, HEADER_MISMATCH),
        ("size", 77, HEADER_MISMATCH),
        ("size", 0xFFFFFFFF, HEADER_MISMATCH),
        ("width", 0, HEADER_MISMATCH),
        ("width", 65535, HEADER_MISMATCH),
        ("height", 1, HEADER_MISMATCH),
    ],
)
def test_a_damaged_header_costs_one_record(record: int, field: str, value: int, fault: str) -> None:
    data = with_field(SOUND, record, field, value)
    found = gnt.walk(data)
    assert found.offset.tolist() == OFFSETS
    assert [i for i, f in enumerate(found.fault) if f] == [record]
    assert found.fault[record] == fault
    assert_tiles(found, data)


def test_an_empty_bitmap_is_a_record_of_ten_bytes() -> None:
    empty = struct.pack("<I2sHH", 10, b"\xb0\xa1", 0, 30)
    found = gnt.walk(empty + SOUND)
    assert found.fault[0] == EMPTY_BITMAP
    assert found.offset[1] == 10
    assert len(found) == 1 + len(CHARACTERS)


@pytest.mark.parametrize("lost", [1, 9, 10, 11, 2000])
def test_a_truncated_tail_costs_the_last_record(lost: int) -> None:
    data = SOUND[:-lost]
    found = gnt.walk(data)
    assert found.fault == [gnt.SOUND] * (len(CHARACTERS) - 1) + [TRUNCATED]
    assert_tiles(found, data)


def test_what_is_left_behind_the_last_record_is_one_reject() -> None:
    found = gnt.walk(SOUND + b"\0" * 7)
    assert found.fault[-1] == TRUNCATED
    assert found.size[-1] == 7
    assert found.width[-1] == found.tag_code[-1] == -1


def test_garbage_between_records_is_one_reject() -> None:
    garbage = bytes(np.random.default_rng(3).integers(0, 256, 200_000, dtype=np.uint8))
    data = SOUND[: OFFSETS[5]] + garbage + SOUND[OFFSETS[5] :]
    found = gnt.walk(data)
    assert [i for i, f in enumerate(found.fault) if f] == [5]
    assert found.size[5] == len(garbage)
    assert_tiles(found, data)


def test_a_header_that_asks_for_too_much_is_one_reject() -> None:
    huge = struct.pack("<I2sHH", 10 + 4000 * 4000, b"\xb0\xa1", 4000, 4000) + b"\xff" * 1000
    found = gnt.walk(huge + SOUND)
    assert found.fault == [OVERSIZED] + [gnt.SOUND] * len(CHARACTERS)
    assert found.size[0] == len(huge)


def test_a_walk_of_a_part_sees_what_the_whole_walk_saw() -> None:
    data = with_field(SOUND, 6, "size", 5)
    whole = gnt.walk(data)
    cuts = gnt.clean_cuts(whole)
    assert cuts.tolist() == [1, 2, 3, 7]
    for cut in cuts.tolist():
        at = int(whole.offset[cut])
        first, second = gnt.walk(data[:at]), gnt.walk(data[at:])
        assert first.offset.tolist() + (second.offset + at).tolist() == whole.offset.tolist()
        assert first.fault + second.fault == whole.fault


def test_nothing_is_no_record() -> None:
    assert len(gnt.walk(b"")) == 0
    assert gnt.walk(b"").end == 0
