"""Damaged input: every byte accounted for, every record outside the damage kept, in any chunks and any packing."""

from __future__ import annotations

import contextlib
import random
import zipfile
from collections.abc import Iterable
from pathlib import Path

import gnt_files
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import KINDS, Damaged, flip_header_bit, is_undecidable, mutate

from pipeline.shards.chunk import convert_records
from pipeline.shards.config import ConvertConfig
from pipeline.source import chunks, gnt
from pipeline.source.archives import Input, list_members
from pipeline.source.chunks import plan_chunks, read_chunk
from pipeline.source.members import Member
from schemas.errors import UserError
from schemas.manifest import TRUNCATED

ORIGINAL = gnt_files.member(
    [
        (gnt_files.tag(c), gnt_files.strokes(i, 20 + 7 * i % 31, 18 + 5 * i % 23))
        for i, c in enumerate("啊阿埃挨哎唉哀皑癌蔼矮艾")
    ]
)
RECORDS = gnt_files.parse(ORIGINAL)
CI = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Row = tuple[int, int, str, int, int, int]
"""(offset, size, fault, tag code, width, height)"""

seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(KINDS)


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that a member of some kilobytes meets all of them."""
    monkeypatch.setattr(gnt, "MAX_RECORD_BYTES", 2_500)
    monkeypatch.setattr(gnt, "MAX_DAMAGE_BYTES", 4_000)
    monkeypatch.setattr(gnt, "LOOKAHEAD_BYTES", 4_000 + gnt.CHAIN_LENGTH * 2_500 + gnt.HEADER_BYTES)


def rows_of(records: gnt.Records, shift: int = 0) -> list[Row]:
    columns = (records.offset + shift, records.size, records.tag_code, records.width, records.height)
    offset, size, tag_code, width, height = (column.tolist() for column in columns)
    return list(zip(offset, size, records.fault, tag_code, width, height, strict=True))


def rows_in_chunks(member: Member, folder: Path, chunk_bytes: int) -> list[Row]:
    """The rows that converting the member's chunks gives; they must tile the member."""
    rows: list[Row] = []
    end = 0
    for chunk in plan_chunks(member, str(folder), chunk_bytes):
        data = read_chunk(chunk)
        assert (chunk.begin, chunk.first_record, len(data)) == (end, len(rows), chunk.size_bytes)
        rows += rows_of(gnt.walk(data), chunk.begin)
        end = chunk.end
    assert end == member.size_bytes
    return rows


def assert_nothing_is_lost(rows: list[Row], damaged: Damaged) -> None:
    begins, sizes = [row[0] for row in rows], [row[1] for row in rows]
    assert begins == np.cumsum([0, *sizes[:-1]])[: len(begins)].tolist()
    assert sum(sizes) == len(damaged.data)
    sound = [(row[0], row[1]) for row in rows if not row[2]]
    for offset, record in damaged.whole.items():
        assert (offset, len(record)) in sound or is_undecidable(sound, damaged, offset)


def loose(folder: Path, data: bytes) -> Member:
    path = folder / "1001-c.gnt"
    path.write_bytes(data)
    return Member("train", str(path), path.name, len(data), "")


@given(kinds, seeds)
@CI
def test_a_walk_accounts_for_every_byte_and_keeps_what_is_whole(kind: str, seed: int) -> None:
    damaged = mutate(ORIGINAL, kind, random.Random(seed))
    assert_nothing_is_lost(rows_of(gnt.walk(damaged.data)), damaged)


@given(st.binary(max_size=400), st.integers(0, 12), st.integers(0, 12))
@CI
def test_a_walk_survives_any_bytes(noise: bytes, first: int, last: int) -> None:
    head, tail = ORIGINAL[: RECORDS[first % 12][0]], ORIGINAL[RECORDS[last % 12][0] :]
    data = head + noise + tail
    rows = rows_of(gnt.walk(data))
    assert sum(row[1] for row in rows) == len(data)
    assert all(row[1] > 0 for row in rows)


def assert_chunks_agree(data: bytes, folder: Path, chunk_bytes: int) -> list[Row]:
    """Chunks give what one walk gives, but for damage longer than a chunk, which has no clean place to cut."""
    cuts: list[int] = []

    def watched_cut(parts: Iterable[gnt.Records]) -> tuple[int, int]:
        cuts.append((found := last_clean_cut(parts))[0])
        return found

    def watched_next(data: bytes, stop: int, left: int) -> tuple[int, int]:
        count, size = next_cut(data, stop, left)
        if size == left:
            cuts.pop()  # nothing is cut there
        return count, size

    last_clean_cut, next_cut = gnt.last_clean_cut, chunks._next_cut
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gnt, "last_clean_cut", watched_cut)
        patch.setattr(chunks, "_next_cut", watched_next)
        patch.setattr(chunks, "_PART_RECORDS", 4)
        rows = rows_in_chunks(loose(folder, data), folder, chunk_bytes)
    if all(cuts):
        assert rows == rows_of(gnt.walk(data))
    return rows


@pytest.mark.usefixtures("small_limits")
@given(kinds, seeds, st.sampled_from([700, 3_000, 9_000]))
@CI
def test_chunks_find_what_one_walk_finds(tmp_path: Path, kind: str, seed: int, chunk_bytes: int) -> None:
    damaged = mutate(ORIGINAL * 2, kind, random.Random(seed), most_bytes=3_000)
    assert_nothing_is_lost(assert_chunks_agree(damaged.data, tmp_path, chunk_bytes), damaged)


@pytest.mark.usefixtures("small_limits")
@given(seeds, st.sampled_from([2_000, 6_000]), st.floats(0.05, 0.4))
@settings(CI, max_examples=300)
def test_chunks_of_much_damage_agree_too(tmp_path: Path, seed: int, chunk_bytes: int, share: float) -> None:
    rng = random.Random(seed)
    pieces = []
    for _, tag, bitmap in RECORDS * 2:
        piece = gnt_files.record(tag, bitmap)
        if rng.random() < share:
            at = rng.randrange(len(piece))
            instead = rng.choice([b"", rng.randbytes(rng.randint(1, 30)), piece[:at], bytes(rng.randint(1, 3_000))])
            piece = piece[:at] + instead + piece[at + rng.randint(0, 20) :]
        pieces.append(piece)
    assert_chunks_agree(b"".join(pieces), tmp_path, chunk_bytes)


@pytest.mark.usefixtures("small_limits")
@given(kinds, seeds, st.booleans())
@settings(CI, max_examples=60)
def test_packed_damage_is_the_same_damage(tmp_path: Path, kind: str, seed: int, is_packed: bool) -> None:
    data = mutate(ORIGINAL * 2, kind, random.Random(seed), most_bytes=3_000).data
    method = zipfile.ZIP_DEFLATED if is_packed else zipfile.ZIP_STORED
    path = gnt_files.write_zip(tmp_path / "a.zip", {"1001-c.gnt": data}, method)
    (member,) = list_members([Input("train", str(path))], 0)
    assert rows_in_chunks(member, tmp_path, 6_000) == rows_in_chunks(loose(tmp_path, data), tmp_path, 6_000)


@given(seeds, st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
@settings(CI, max_examples=250)
def test_a_damaged_zip_is_refused_or_read_in_full(tmp_path: Path, seed: int, method: int) -> None:
    rng = random.Random(seed)
    members = {f"100{i}-c.gnt": ORIGINAL[: RECORDS[3 + i][0]] for i in range(3)}
    content = bytearray(gnt_files.write_zip(tmp_path / "a.zip", members, method).read_bytes())
    directory = content.rindex(b"PK\x01\x02") - 200
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(rng.choice([0, directory]), len(content))
        action = rng.randrange(4)
        if action < 2:
            content[at] ^= 1 << rng.randrange(8)
        elif action == 2:
            del content[at : at + rng.randint(1, 40)]
        else:
            content[at:at] = rng.randbytes(rng.randint(1, 40))
    (tmp_path / "a.zip").write_bytes(content)
    try:
        listed = list_members([Input("train", str(tmp_path / "a.zip"))], 0)
        found = {m.name: b"".join(read_chunk(chunk) for chunk in plan_chunks(m, str(tmp_path), 5_000)) for m in listed}
    except UserError:
        return
    assert found == members


@given(kinds, seeds)
@settings(CI, max_examples=40)
def test_damage_never_ends_a_conversion(kind: str, seed: int) -> None:
    damaged = mutate(ORIGINAL, kind, random.Random(seed))
    config = ConvertConfig(num_shards={"train": 1})
    chunk = chunks.Chunk(Member("train", "x", "1001-c.gnt", len(damaged.data), ""), 0, len(damaged.data), 0)
    sizes = [int(part.rows["source_bytes"].sum()) for part in convert_records(damaged.data, chunk, config)]
    assert sum(sizes) == len(damaged.data)


def test_a_flipped_header_bit_costs_at_most_its_record() -> None:
    lost = []
    for record in (0, 5, 10, 11):
        for bit in range(80):
            found = {
                row[:2] + row[3:] for row in rows_of(gnt.walk(flip_header_bit(ORIGINAL, record, bit))) if not row[2]
            }
            whole = {row[:2] + row[3:] for row in rows_of(gnt.walk(ORIGINAL))}
            lost.append(len(whole - found))
    assert max(lost) == 1


def test_a_record_that_lost_bytes_does_not_take_the_next_one_with_it() -> None:
    offset = RECORDS[4][0]
    data = ORIGINAL[: offset + 40] + ORIGINAL[offset + 47 :]
    rows = rows_of(gnt.walk(data))
    assert [i for i, row in enumerate(rows) if row[2]] == [4]
    assert rows[4][:3] == (offset, RECORDS[5][0] - offset - 7, TRUNCATED)
    assert len(rows) == len(RECORDS)


@pytest.mark.usefixtures("small_limits")
def test_long_damage_is_several_rejects() -> None:
    data = ORIGINAL + bytes(10_000) + ORIGINAL
    rows = rows_of(gnt.walk(data))
    assert [row[1] for row in rows if row[2]] == [4_000, 4_000, 2_000]
    assert len(rows) == 2 * len(RECORDS) + 3


def test_two_damaged_headers_close_together_cost_two_records() -> None:
    data = bytearray(ORIGINAL)
    for record in (4, 6):
        data[RECORDS[record][0]] ^= 1
    faults = [row[2] for row in rows_of(gnt.walk(bytes(data)))]
    assert [i for i, fault in enumerate(faults) if fault] == [4, 6]


def test_an_empty_bitmap_behind_damage_hides_nothing() -> None:
    empty = b"\x0a\0\0\0\xb0\xa1\0\0\x05\0"
    data = b"\xff" * 50 + ORIGINAL[: RECORDS[1][0]] + empty + ORIGINAL[RECORDS[1][0] :]
    rows = rows_of(gnt.walk(data))
    assert len(rows) == 1 + len(RECORDS) + 1
    assert [i for i, row in enumerate(rows) if row[2]] == [0, 2]


def test_what_was_made_of_a_damaged_zip_does_not_stand_in_for_the_intact_one(tmp_path: Path) -> None:
    """Same path, size, directory and CRC: only the bytes differ, so the pieces are named by them."""
    path = gnt_files.write_zip(tmp_path / "a.zip", {"1001-c.gnt": ORIGINAL}, zipfile.ZIP_STORED)
    intact = path.read_bytes()
    at = intact.index(ORIGINAL) + 6_000
    path.write_bytes(intact[:at] + bytes([intact[at] ^ 1]) + intact[at + 1 :])
    planned: list[dict[tuple[int, int], str]] = []
    for content in (path.read_bytes(), intact):
        path.write_bytes(content)
        (member,) = list_members([Input("train", str(path))], 0)
        pieces = plan_chunks(member, str(tmp_path), 3_000)
        with contextlib.nullcontext() if content is intact else pytest.raises(UserError, match="the zip is damaged"):
            planned.append({})
            planned[-1].update(((chunk.begin, chunk.end), chunk.digest("")) for chunk in pieces)
    damaged, sound = planned
    assert damaged.keys() == sound.keys()
    assert [begin <= 6_000 < end for begin, end in sound] == [damaged[key] != sound[key] for key in sound]
    assert sum(damaged[key] != sound[key] for key in sound) == 1


@CI
@given(st.integers(0, 2**32), st.sampled_from(KINDS), st.integers(1, 13), st.integers(0, len(ORIGINAL)))
def test_a_walk_in_parts_is_the_walk(seed: int, kind: str, most: int, stop: int) -> None:
    data = mutate(ORIGINAL, kind, random.Random(seed)).data
    whole = gnt.walk(data, stop=stop)
    parts = list(gnt.walk_in_parts(data, most, stop=stop))
    assert all(len(part) == most for part in parts[:-1])
    assert [row for part in parts for row in rows_of(part)] == rows_of(whole)
    cuts = gnt.clean_cuts(whole).tolist()
    assert gnt.last_clean_cut(parts) == ((cuts[-1], int(whole.offset[cuts[-1]])) if cuts else (0, 0))


@pytest.mark.usefixtures("small_limits")
@given(kinds, seeds, st.sampled_from([700, 3_000, 9_000]), st.sampled_from([400, 1_500, 4_000]), st.integers(0, 3))
@CI
def test_windows_probed_apart_give_the_chunks_of_one_walk(
    tmp_path: Path, kind: str, seed: int, chunk_bytes: int, window_bytes: int, damages: int
) -> None:
    rng = random.Random(seed)
    copies = [mutate(ORIGINAL, kind, rng, most_bytes=3_000).data for _ in range(damages)]
    data = b"".join([ORIGINAL, *copies, ORIGINAL])
    # A GNT in a bitmap: runs that begin in there meet nothing.
    inner = gnt_files.member([(gnt_files.tag("啊"), np.full((6, 6), 9, np.uint8))] * 20)
    bitmap = np.frombuffer(inner.ljust(1_200, b"\xff")[:1_200], np.uint8).reshape(30, 40)
    data += gnt_files.record(gnt_files.tag("阿"), bitmap) * 2 + ORIGINAL
    member = loose(tmp_path, data)
    windows = {i: chunks.probe(member, i, window_bytes) for i in range(chunks.count_windows(member, window_bytes))}
    serial = list(plan_chunks(member, "", chunk_bytes))
    assert list(plan_chunks(member, "", chunk_bytes, windows, window_bytes)) == serial
    some = {i: window for i, window in windows.items() if rng.random() < 0.7}
    assert list(plan_chunks(member, "", chunk_bytes, some, window_bytes)) == serial


def test_of_a_sound_member_nothing_is_walked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = loose(tmp_path, ORIGINAL * 40)
    windows = {i: chunks.probe(member, i, 30_000) for i in range(chunks.count_windows(member, 30_000))}
    serial = list(plan_chunks(member, "", 20_000))
    monkeypatch.setattr(chunks, "_next_cut", None)
    assert len(serial) > 10
    assert list(plan_chunks(member, "", 20_000, windows, 30_000)) == serial
