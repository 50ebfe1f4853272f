from __future__ import annotations

import hashlib
from pathlib import Path

import gnt_files
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shards import slices as slices_module
from pipeline.shards import staging
from pipeline.shards.chunk import convert_chunk, convert_records
from pipeline.shards.config import ConvertConfig
from pipeline.shards.shard import write_shard
from pipeline.shards.slices import Edges, StagedPart, read_slices, shard_of
from pipeline.source.archives import Input, list_members
from pipeline.source.chunks import Chunk, plan_chunks
from pipeline.steps.settings import PreprocessConfig
from schemas.errors import UserError


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, 99_999))
def test_shard_of_is_exact(keys: list[int], num_shards: int) -> None:
    assert shard_of(np.array(keys, np.uint64), num_shards).tolist() == [key * num_shards >> 64 for key in keys]


def staged(chunks: list[Chunk], config: ConvertConfig, folder: Path) -> list[staging.ChunkReceipt]:
    return [convert_chunk(chunk, config, str(folder)) for chunk in chunks]


@pytest.fixture
def big_member(tmp_path: Path) -> Path:
    path = tmp_path / "1001-c.gnt"
    characters = "啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按硷" * 4
    path.write_bytes(gnt_files.member(gnt_files.records_of(characters)))
    return path


def test_however_a_member_is_cut_its_shards_are_the_same(big_member: Path, tmp_path: Path) -> None:
    config = ConvertConfig(num_shards={"train": 3})
    [member] = list_members([Input("train", str(big_member))], 0)
    digests = []
    for name, chunk_bytes in (("whole", 1 << 30), ("cut", 20_000)):
        folder = tmp_path / name
        chunks = list(plan_chunks(member, str(folder), chunk_bytes))
        receipts = staged(chunks, config, folder)
        written = [write_shard("train", i, receipts, config, str(folder), str(folder)) for i in range(3)]
        assert sum(one.keys for one in written) % 2**64 == sum(one.keys for one in receipts) % 2**64
        files = [one.file for one in written]
        digests.append([(file.sha256, file.manifest_sha256, file.records) for file in files])
        assert sum(file.manifest_rows for file in files) == 84
        assert sum(file.records for file in files) == 80
    assert len(chunks) > 5
    assert digests[0] == digests[1]


def test_of_large_samples_few_are_held_at_once(big_member: Path, tmp_path: Path) -> None:
    [member] = list_members([Input("train", str(big_member))], 0)
    [chunk] = plan_chunks(member, str(tmp_path))
    config = ConvertConfig(num_shards={"train": 2}, preprocess=PreprocessConfig(image_size=1024))
    parts = list(convert_records(big_member.read_bytes(), chunk, config))
    assert [len(part) for part in parts] == [64, 20]  # of 1 MiB each
    for part in parts:
        assert (np.diff(shard_of(part.rows["key"], 2)) >= 0).all()


def test_a_staged_chunk_is_reused_and_a_changed_setting_is_not(big_member: Path, tmp_path: Path) -> None:
    [member] = list_members([Input("train", str(big_member))], 0)
    [chunk] = plan_chunks(member, str(tmp_path))
    config = ConvertConfig(num_shards={"train": 2})
    first = convert_chunk(chunk, config, str(tmp_path))
    written = Path(first.path).stat().st_mtime_ns
    assert convert_chunk(chunk, config, str(tmp_path)) == first
    assert Path(first.path).stat().st_mtime_ns == written
    other = convert_chunk(chunk, ConvertConfig(num_shards={"train": 2}, image_encoding="png"), str(tmp_path))
    assert other.path != first.path
    big_member.touch()
    [member] = list_members([Input("train", str(big_member))], 0)
    [chunk] = plan_chunks(member, str(tmp_path))
    assert convert_chunk(chunk, config, str(tmp_path)).path != first.path


def test_a_staging_folder_may_move(big_member: Path, tmp_path: Path) -> None:
    [member] = list_members([Input("train", str(big_member))], 0)
    config = ConvertConfig(num_shards={"train": 1})
    [chunk] = plan_chunks(member, str(tmp_path / "here"))
    convert_chunk(chunk, config, str(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    chunks = staged([chunk], config, tmp_path / "there")
    assert write_shard("train", 0, chunks, config, str(tmp_path), str(tmp_path / "there")).file.records == 80


def test_a_chunk_without_receipt_is_made_again(big_member: Path, tmp_path: Path) -> None:
    [member] = list_members([Input("train", str(big_member))], 0)
    [chunk] = plan_chunks(member, str(tmp_path))
    config = ConvertConfig(num_shards={"train": 2})
    first = convert_chunk(chunk, config, str(tmp_path))
    content = Path(first.path).read_bytes()
    Path(staging.receipt_path(first.path)).unlink()
    Path(first.path).write_bytes(b"torn")
    assert convert_chunk(chunk, config, str(tmp_path)) == first
    assert Path(first.path).read_bytes() == content


def test_chunks_of_a_shard_may_come_in_any_order(big_member: Path, tmp_path: Path) -> None:
    [member] = list_members([Input("train", str(big_member))], 0)
    config = ConvertConfig(num_shards={"train": 1})
    chunks = staged(list(plan_chunks(member, str(tmp_path), 20_000)), config, tmp_path)
    assert len(chunks) > 3
    forward = write_shard("train", 0, chunks, config, str(tmp_path / "a"), str(tmp_path / "sa")).file
    backward = write_shard("train", 0, chunks[::-1], config, str(tmp_path / "b"), str(tmp_path / "sb")).file
    assert forward == backward


@pytest.mark.parametrize("what", ["image", "label", "begin", "rows", "crc32c"])
def test_what_changed_since_it_was_staged_becomes_no_shard(big_member: Path, tmp_path: Path, what: str) -> None:
    [member] = list_members([Input("train", str(big_member))], 0)
    [chunk] = plan_chunks(member, str(tmp_path))
    config = ConvertConfig(num_shards={"train": 2})
    [receipt] = chunks = staged([chunk], config, tmp_path)
    part = StagedPart(receipt.path, receipt.parts[0], 0)
    [one] = Edges().slices([part], 0, 2)
    row = 64 * read_slices([one]).rows["outcome"].tolist().index(0)
    edge = part.edges + {"begin": 7, "rows": 8, "crc32c": 12}.get(what, 0)
    at = {"image": one.begin + one.size_bytes - 1, "label": one.begin + row + 60}.get(what, edge)
    path = Path(receipt.path)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path.name}: expected the bytes that were staged"):
        write_shard("train", 0, chunks, config, str(tmp_path), str(tmp_path))
    again = staged([chunk], config, tmp_path)
    files = [write_shard("train", shard, again, config, str(tmp_path), str(tmp_path)).file for shard in range(2)]
    assert sum(file.records for file in files) == 80


def test_rows_are_in_key_order(big_member: Path, tmp_path: Path) -> None:
    [member] = list_members([Input("train", str(big_member))], 0)
    config = ConvertConfig(num_shards={"train": 2})
    chunks = staged(list(plan_chunks(member, str(tmp_path), 20_000)), config, tmp_path)
    for shard in range(2):
        file = write_shard("train", shard, chunks, config, str(tmp_path), str(tmp_path)).file
        ids = pa.parquet.read_table(tmp_path / file.manifest_path)["sample_id"].to_pylist()
        keys = [int.from_bytes(hashlib.blake2b(i.encode(), digest_size=8).digest(), "big") for i in ids]
        assert keys == sorted(keys)
        assert {key * 2 >> 64 for key in keys} == {shard}


def test_an_empty_shard_is_two_files_too(tmp_path: Path) -> None:
    config = ConvertConfig(num_shards={"train": 2})
    file = write_shard("train", 1, [], config, str(tmp_path), str(tmp_path)).file
    assert (file.records, file.bytes, file.manifest_rows) == (0, 0, 0)
    assert (tmp_path / file.path).read_bytes() == b""
    assert pa.parquet.read_table(tmp_path / file.manifest_path).num_rows == 0


def test_edges_that_there_is_no_room_for_are_read_by_twos(
    big_member: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [member] = list_members([Input("train", str(big_member))], 0)
    config = ConvertConfig(num_shards={"train": 3})
    chunks = staged(list(plan_chunks(member, str(tmp_path), 20_000)), config, tmp_path)
    parts = [StagedPart(chunk.path, at, 0) for chunk in chunks for at in chunk.parts]
    edges = Edges()
    held = [edges.slices(parts, shard, 3) for shard in range(3)]
    assert sum(one.rows for slices in held for one in slices) == 84
    for limit in ("_MOST_AT_ONCE", "_MOST_EDGES"):
        with monkeypatch.context() as patch:
            patch.setattr(slices_module, limit, 0)
            assert [edges.slices(parts, shard, 3) for shard in range(3)] == held
