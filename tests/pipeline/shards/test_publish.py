"""What is lost on the way from chunks to shards is found, by sums; sources in a store are looked at by listing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline import storage
from pipeline.shards import publish
from pipeline.shards.config import ConvertConfig
from pipeline.shards.rows import IS_KEPT, IS_OUTSIDE, ROW, Tally
from pipeline.shards.shard import ShardReceipt
from pipeline.shards.staging import ChunkReceipt
from pipeline.source.members import Member
from pipeline.storage import StoredFile
from schemas.dataset import ShardFile
from schemas.errors import UserError

CONFIG = ConvertConfig(num_shards={"train": 2})
MEMBERS = [Member("train", f"/in/{name}", name, 500, "1 1 1") for name in ("1001-c.gnt", "1002-c.gnt")]


def rows_of(seed: int) -> np.ndarray:
    rows, random = np.zeros(50, ROW), np.random.default_rng(seed)
    rows["key"] = random.integers(0, 2**64, 50, np.uint64)
    rows["outcome"] = np.where(random.random(50) < 0.3, IS_OUTSIDE, IS_KEPT)
    return rows


def tally_of(rows: np.ndarray) -> Tally:
    tally = Tally()
    tally.add(rows)
    return tally


def chunks_of(of_members: list[np.ndarray]) -> list[ChunkReceipt]:
    tallies = [tally_of(rows) for rows in of_members]
    return [
        ChunkReceipt("train", member.name, "in", 0, 500, tally.counts, tally.keys, "", "", [])
        for member, tally in zip(MEMBERS, tallies, strict=True)
    ]


def shards_of(rows: np.ndarray) -> list[ShardReceipt]:
    labels, found = "00" * 470, []
    for shard in range(2):
        own = rows[(rows["key"] >> np.uint64(63)) == shard]
        tally = tally_of(own)
        file = ShardFile("a", 1, 1, "0" * 64, "b", len(own), 1, "0" * 64)
        found.append(ShardReceipt("train", shard, "", "", file, tally.counts, tally.keys, labels))
    return found


def test_a_record_lost_or_twice_or_another_is_found() -> None:
    of_members = [rows_of(1), rows_of(2)]
    chunks, rows = chunks_of(of_members), np.concatenate(of_members)
    card = publish.build_card(MEMBERS, chunks, shards_of(rows), CONFIG)
    kept = [int((own["outcome"] == IS_KEPT).sum()) for own in of_members]
    assert [entry.counts.kept for entry in card.inputs] == kept
    assert [entry.counts.dropped for entry in card.inputs] == [{"outside_class_set": 50 - n} for n in kept]
    assert card.splits["train"].counts.read == 100
    lost, twice, instead, changed = rows[1:], np.append(rows, rows[:1]), rows.copy(), rows.copy()
    instead[0] = instead[1] = rows[rows["outcome"] == rows[0]["outcome"]][2]
    changed["outcome"][0] = IS_KEPT + IS_OUTSIDE - changed["outcome"][0]
    for wrong in (lost, twice, instead, changed):
        with pytest.raises(RuntimeError, match="train: 100 records were read"):
            publish.build_card(MEMBERS, chunks, shards_of(wrong), CONFIG)
    with pytest.raises(RuntimeError, match="records were read"):
        publish.build_card(MEMBERS, chunks[:1], shards_of(rows), CONFIG)
    with pytest.raises(RuntimeError, match="expected 2 shards, found 1"):
        publish.build_card(MEMBERS, chunks, shards_of(rows)[:1], CONFIG)


def test_sources_in_a_store_are_listed_by_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {f"s3://b/{folder}/{n}-c.gnt": StoredFile("", 500, "1") for folder in "ab" for n in range(3)}
    files = [replace(file, path=path) for path, file in here.items()]
    asked: list[str] = []

    def listed(folder: str) -> list[StoredFile]:
        asked.append(folder)
        return [file for file in files if file.path.startswith(f"{folder}/")]

    def status(path: str) -> StoredFile | None:
        asked.append(path)
        return next(file for file in files if file.path == path)

    monkeypatch.setattr(storage, "list_folder", listed)
    monkeypatch.setattr(storage, "status", status)
    members = [Member("train", file.path, "x", 500, "1") for file in files if "b/1" not in file.path[5:]]
    alone = Member("train", files[4].path, "x", 500, "1")
    publish.check_sources([*members, replace(alone, zip_entry=3)])
    assert asked == ["s3://b/a", "s3://b/b"]
    publish.check_sources([alone])
    assert asked[2:] == [alone.location]
    for other in (replace(files[0], version="2"), replace(files[0], size_bytes=501), None):
        files[:] = [*filter(None, [other]), *files[1:]]
        with pytest.raises(UserError, match=r"s3://b/a/0-c.gnt: expected the file that was listed"):
            publish.check_sources(members)
