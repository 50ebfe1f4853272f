"""The cache of shards: whole, within its bound, shared by processes, right after a kill and whatever the store does."""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest
import s3_server

from pipeline import Records, open_dataset
from schemas.dataset import DatasetError
from schemas.errors import UserError

ROOM = 1 << 20


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/hwdb-shards/shards"


def sizes(cache: Path) -> list[int]:
    return [path.stat().st_size for path in cache.glob("*.shard")]


def fetched(server: s3_server.Server) -> int:
    """Bytes of shards that went over the wire."""
    return sum(request.sent_bytes for request in server.log if request.key.endswith(".tfrecord"))


def test_every_shard_is_fetched_once_and_read_from_the_disk(
    folder: Path, bucket: str, server: s3_server.Server, cache: Path
) -> None:
    wanted = open_dataset(folder).records("train")[:][0]
    split = open_dataset(folder).card.splits["train"]
    for _ in range(3):  # each a run of its own
        records = open_dataset(bucket, ROOM).records("train")
        np.testing.assert_array_equal(records[:][0], wanted)
        np.testing.assert_array_equal(records[[90, 3]][0], wanted[[90, 3]])
        np.testing.assert_array_equal(records[::-1][0], wanted[::-1])
        assert fetched(server) == sum(shard.bytes for shard in split.shards)
    kept = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in cache.glob("*.shard")}
    assert kept == {shard.sha256: shard.sha256 for shard in split.shards}


def test_the_bound_holds_and_what_was_used_longest_ago_goes(
    folder: Path, bucket: str, server: s3_server.Server, cache: Path
) -> None:
    data = open_dataset(bucket)
    shards = data.card.splits["train"].shards
    room = max(shard.bytes for shard in shards)
    wanted = open_dataset(folder).records("train")[:][0]
    records = open_dataset(bucket, room).records("train")
    np.testing.assert_array_equal(records[:][0], wanted)
    assert len(sizes(cache)) == 1
    two = open_dataset(bucket, 2 * room).records("train")
    server.log.clear()
    for at in (0, 50, 1, 90, 2):  # shards 0, 1, 0, 2 and 0 again
        two[at]
        assert sum(sizes(cache)) <= 2 * room
    assert fetched(server) == sum(shard.bytes for shard in shards)  # shard 1 went, which was used longest ago
    with pytest.raises(UserError, match=rf"--cache_bytes {room - 1:,}: expected {room:,} or more, the largest shard"):
        open_dataset(bucket, room - 1)


def _digest(records: Records) -> str:
    return hashlib.sha256(records[:][0].tobytes()).hexdigest()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_what_one_has_fetched(
    folder: Path, bucket: str, server: s3_server.Server, processes: int
) -> None:
    records = open_dataset(bucket, ROOM).records("train")
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        digests = pool.map(_digest, [records] * processes, chunksize=1)
    assert set(digests) == {_digest(open_dataset(folder).records("train"))}
    assert fetched(server) == sum(shard.bytes for shard in records.shards)


def test_threads_in_a_cache_of_one_shard(folder: Path, bucket: str, cache: Path) -> None:
    room = max(shard.bytes for shard in open_dataset(bucket).card.splits["train"].shards)
    records = open_dataset(bucket, room).records("train")
    wanted = open_dataset(folder).records("train")[:][0]
    found: list[bool] = []

    def read(first: int) -> None:
        found.append(np.array_equal(records[first::4][0], wanted[first::4]))

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4
    assert len(sizes(cache)) == 1


def test_what_a_kill_left_is_removed_and_fetched_again(bucket: str, cache: Path) -> None:
    records = open_dataset(bucket, ROOM).records("train")
    first, second, third = records.shards
    cache.mkdir(parents=True)
    (cache / f"{first.sha256}.tmp-0123abcd.shard").write_bytes(bytes(first.bytes))  # killed while it fetched
    (cache / f"{second.sha256}.shard").write_bytes(bytes(second.bytes - 1))  # cut by a full disk or a power cut
    (cache / f"{third.sha256}.shard").write_bytes(bytes(third.bytes))
    with pytest.raises(DatasetError, match=r"record 28 at byte [\d,]+ isn't what its checksum says"):
        records[100]  # of the right size, and other bytes: none is handed out, and the shard is fetched anew
    assert open_dataset(bucket, ROOM).records("train")[:][0].any()
    assert sorted(path.stem for path in cache.glob("*.shard")) == sorted(one.sha256 for one in records.shards)


def test_a_store_that_fails_for_a_moment_and_a_damaged_object(
    folder: Path, bucket: str, server: s3_server.Server, cache: Path
) -> None:
    records = open_dataset(bucket, ROOM).records("train")
    failures = [503]
    server.fault = lambda kind, _: failures.pop() if kind == "GET" and failures else None
    server.torn = 1
    np.testing.assert_array_equal(records[:40][0], open_dataset(folder).records("train")[:40][0])
    key = "set/train-00002-of-00003.tfrecord"
    content = bytearray(server.objects(key)[""])
    content[100] ^= 1
    server.put(key, bytes(content))
    with pytest.raises(DatasetError, match=r"train-00002-of-00003\.tfrecord: isn't the shard that the card names"):
        records[100]
    assert not list(cache.glob("*.tmp-*"))
    assert records.shards[2].sha256 not in {path.stem for path in cache.glob("*.shard")}


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_that_share_a_split_fetch_no_byte_of_it_twice(
    folder: Path,
    bucket: str,
    server: s3_server.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    """Machines of their own, each with its cache; their shares end within shards."""
    whole = open_dataset(folder).records("train", "record_index != 4")
    images, size = whole[:][0], sum(shard.bytes for shard in whole.shards)
    for most in (1.05 * size, 1.05 * size if workers > 1 else 0):  # the second time as a run that goes on
        server.log.clear()
        for worker in range(workers):
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine-{worker}"))
            first, last = (len(whole) * n // workers for n in (worker, worker + 1))
            share = open_dataset(bucket, ROOM).records("train", "record_index != 4").between(first, last)
            np.testing.assert_array_equal(share[:][0], images[first:last])
        assert fetched(server) <= most
