"""Streaming out of a bucket: the batches of a local stream, and no byte fetched that they don't need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3_server
import tensorflow as tf
from tiny_dataset import write_dataset

from model.data import stream
from model.data.source import WHOLE, Share
from model.data.stream import StreamSource
from pipeline.reader.dataset import open_dataset
from schemas.dataset import DatasetError
from schemas.errors import UserError

RECORDS, SHARDS, BATCH = 403, 13, 8
PER_EPOCH = RECORDS // BATCH
ROOM = 1 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("stream") / "set", {"train": RECORDS}, shards=SHARDS)


@pytest.fixture
def bucket(server: s3_server.Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its URL. More shards than are read at once, and more records than the shuffle's reach."""
    tf.random.set_seed(None)  # tf.data's shuffle mixes it in, and another test of the process may have set it
    monkeypatch.setattr(stream, "_CYCLE_SHARDS", 4)
    monkeypatch.setattr(stream, "SHUFFLE_RECORDS", 20)
    monkeypatch.setattr(stream, "_BLOCK_RECORDS", 5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return server.put_folder(folder, "set")


def batches(place: str | Path, first: int, last: int, share: Share = WHOLE, where: str | None = None) -> list[Any]:
    from model.data.batches import training_source

    data = open_dataset(place, ROOM)
    source = training_source(data.records("train", where), mode="stream", global_batch=BATCH, seed=3, share=share)
    try:
        return [[column.numpy().tobytes() for column in part] for (part,) in source.batches(first, last)]
    finally:
        source.close()


def fetched(server: s3_server.Server) -> int:
    return sum(request.sent_bytes for request in server.log if request.key.endswith(".tfrecord"))


def test_the_batches_are_those_of_a_local_stream_and_each_shard_is_fetched_once(
    folder: Path, bucket: str, server: s3_server.Server, tmp_path: Path
) -> None:
    size = sum(shard.bytes for shard in open_dataset(folder).card.splits["train"].shards)
    assert batches(bucket, 0, 2 * PER_EPOCH + 3) == batches(folder, 0, 2 * PER_EPOCH + 3)
    assert fetched(server) == size
    where = "record_index BETWEEN 30 AND 290 AND record_index != 77"
    assert batches(bucket, 5, 40, where=where) == batches(folder, 5, 40, where=where)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.shard")) <= ROOM


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_fetch_their_shares_alone(
    folder: Path,
    bucket: str,
    server: s3_server.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    size = sum(shard.bytes for shard in open_dataset(folder).card.splits["train"].shards)
    for worker in range(workers):
        share = Share(workers, range(worker, worker + 1))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine-{worker}"))
        assert batches(bucket, 0, PER_EPOCH, share) == batches(folder, 0, PER_EPOCH, share)
    assert fetched(server) <= 1.05 * size


@pytest.mark.parametrize("share", [WHOLE, Share(2, range(1, 2))])
def test_a_resume_in_mid_epoch_fetches_what_is_still_to_come(
    folder: Path, bucket: str, server: s3_server.Server, share: Share
) -> None:
    first = PER_EPOCH + PER_EPOCH * 9 // 10
    local = batches(folder, PER_EPOCH, 3 * PER_EPOCH, share)
    assert batches(bucket, first, 2 * PER_EPOCH, share) == local[first - PER_EPOCH : PER_EPOCH]
    size = sum(shard.bytes for shard in open_dataset(folder).card.splits["train"].shards) / share.workers
    assert fetched(server) <= 0.2 * size  # a tenth of the records, and whole shards of which half is needed
    assert batches(bucket, first, 3 * PER_EPOCH, share) == local[first - PER_EPOCH :]


def test_a_damaged_object_a_store_that_fails_and_a_bound_too_small(
    folder: Path, bucket: str, server: s3_server.Server
) -> None:
    failures = [503, 503]
    server.fault = lambda kind, _: failures.pop() if kind == "GET" and failures else None
    assert batches(bucket, 0, 3) == batches(folder, 0, 3)
    largest = max(shard.bytes for shard in open_dataset(folder).card.splits["train"].shards)
    with pytest.raises(UserError, match=rf"expected {6 * largest:,} or more, 6 times the largest shard of s3://"):
        StreamSource(open_dataset(bucket, 6 * largest - 1).records("train"), BATCH, 3)
    for number in range(SHARDS):
        key = f"set/train-{number:05}-of-{SHARDS:05}.tfrecord"
        content = bytearray(server.objects(key)[""])
        content[-50] ^= 1
        server.put(key, bytes(content))
    source = StreamSource(open_dataset(bucket, ROOM).records("train"), BATCH, 4)
    with pytest.raises(tf.errors.OpError):
        list(source.batches(0, PER_EPOCH))
    source.close()
    assert isinstance(source.failure, DatasetError)
    assert "isn't the shard that the card names" in str(source.failure)


def test_an_end_in_the_middle_of_a_stream_waits_for_nothing(bucket: str) -> None:
    source = StreamSource(open_dataset(bucket, ROOM).records("train"), BATCH, 3)
    batch = next(iter(source.batches(0, 100 * PER_EPOCH)))
    source.close()
    assert np.asarray(batch[0][0]).shape[0] == BATCH
