"""A data set's records as a sequence, here and in a bucket, in this process and in others."""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import s3_server
from tiny_dataset import CHARACTERS, image_of

from pipeline import Records, open_dataset
from schemas.dataset import DatasetError
from schemas.errors import UserError

RECORDS, SIZE, SHARDS = 107, 16, 3
IN_SHARD_ORDER = [number for shard in range(SHARDS) for number in range(shard, RECORDS, SHARDS)]
TRUTH = [image_of("train", number, SIZE, len(CHARACTERS)) for number in IN_SHARD_ORDER]
IMAGES, LABELS = np.stack([image for image, _ in TRUTH]), np.array([label for _, label in TRUTH])


def test_records_are_a_sequence(folder: Path) -> None:
    records = open_dataset(folder).records("train")
    assert len(records) == RECORDS
    for at in (0, 1, 50, RECORDS - 1, -1, np.int64(7)):
        image, label = records[at]
        np.testing.assert_array_equal(image, IMAGES[at])
        assert (label, type(label)) == (LABELS[at], int)
    for at in (RECORDS, -RECORDS - 1):
        with pytest.raises(IndexError):
            records[at]
    np.testing.assert_array_equal(records.labels, LABELS)
    assert [label for _, label in records] == LABELS.tolist()  # a sequence ends by its IndexError


@pytest.mark.parametrize(
    "at", [slice(None), slice(90, 3, -7), [5, 5, 0, 106], np.array([-1, 3]), np.arange(RECORDS) % 3 == 1, []]
)
def test_many_are_read_at_once(folder: Path, at: Any) -> None:
    images, labels = open_dataset(folder).records("train")[at]
    wanted = np.arange(RECORDS)[np.asarray(at, int) if isinstance(at, list) else at]
    assert (images.dtype, labels.dtype) == ("uint8", "int32")
    np.testing.assert_array_equal(images, IMAGES[wanted])
    np.testing.assert_array_equal(labels, LABELS[wanted])


def test_records_by_their_sample_ids_and_the_manifests_rows(folder: Path) -> None:
    records = open_dataset(folder).records("train")
    names = [f"train/w.gnt/{number}" for number in IN_SHARD_ORDER]
    assert records.rows(["sample_id", "writer"]).to_pylist() == [{"sample_id": one, "writer": "w"} for one in names]
    assert records.positions([names[80], names[2]]).tolist() == [80, 2]
    with pytest.raises(DatasetError, match=r"expected train/w\.gnt/900 among the records of 'train', found none"):
        records.positions([names[0], "train/w.gnt/900"])


def test_a_part_of_the_records(folder: Path) -> None:
    data = open_dataset(folder)
    chosen = np.array([number % 2 == 0 and number > 20 for number in IN_SHARD_ORDER])
    even = pa.array(list(range(22, RECORDS, 2)), pa.uint32())
    text = f"record_index IN ({', '.join(map(str, even.to_pylist()))}) AND writer = 'w'"
    digests = set()
    for where in (text, pc.field("record_index").isin(even)):
        some = data.records("train", where)
        np.testing.assert_array_equal(some[:][0], IMAGES[chosen])
        assert some.positions([f"train/w.gnt/{IN_SHARD_ORDER[0] + 24}"]).tolist() == [0]
        digests.add(some.digest)
    assert len(digests) == 1
    assert data.records("train").digest not in digests
    with pytest.raises(UserError, match=r"where writer = 'x': expected some of the 'train' records of .*, found none"):
        data.records("train", "writer = 'x'")


def test_a_bucket_gives_the_same_by_ranges(folder: Path, bucket: str, server: s3_server.Server) -> None:
    here, there = (open_dataset(place).records("train", "record_index < 90") for place in (folder, bucket))
    assert here.digest == there.digest
    server.log.clear()
    at = np.array([3, 40, 4, 88, 0])
    np.testing.assert_array_equal(here[at][0], there[at][0])
    assert len(server.log) == SHARDS  # neighbours are asked for together
    server.log.clear()
    np.testing.assert_array_equal(here[40][0], there[40][0])
    (request,) = server.log
    assert (request.kind, request.sent_bytes) == ("GET", here._end[40] - here._begin[40])


def test_a_store_that_fails_for_a_moment_and_a_damaged_object(bucket: str, server: s3_server.Server) -> None:
    records = open_dataset(bucket).records("train")
    failed: list[str] = []

    def fault(kind: str, key: str) -> int | None:
        failed.append(key)
        return 503 if kind == "GET" and len(failed) == 1 else None

    server.fault, server.torn = fault, 1
    np.testing.assert_array_equal(records[:][0], IMAGES)
    assert len(failed) > SHARDS
    key = "set/train-00001-of-00003.tfrecord"
    content = bytearray(server.objects(key)[""])
    content[-100] ^= 64
    server.put(key, bytes(content))
    with pytest.raises(DatasetError, match=r"train-00001-of-00003\.tfrecord: record 35 at byte [\d,]+ isn't what its"):
        records[:]


def test_a_shard_that_isnt_whole(folder: Path, tmp_path: Path) -> None:
    shard = shutil.copytree(folder, tmp_path / "copy") / "train-00001-of-00003.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"train-00001-of-00003\.tfrecord: expected [\d,]+ bytes, found [\d,]+;"):
        open_dataset(tmp_path / "copy").records("train")
    shard.unlink()
    with pytest.raises(DatasetError, match=r"train-00001-of-00003\.tfrecord: expected a shard of .* found none"):
        open_dataset(tmp_path / "copy").records("train")


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("status", "dropped", "has 35 kept rows for the 36 of train-00001-of-00003.tfrecord"),
        ("shard", "../train-00001-of-00003.tfrecord", "has 36 kept rows for the 36 of train-00001-of-00003.tfrecord"),
        ("shard_offset", None, "has places of kept records that are null"),
        ("shard_offset", 1 << 60, "has records that lie beyond the ends of their shards"),
    ],
)
def test_a_manifest_that_isnt_the_shards(folder: Path, tmp_path: Path, column: str, value: Any, says: str) -> None:
    part = shutil.copytree(folder, tmp_path / "copy") / "manifest/train-00001-of-00003.parquet"
    rows = pq.read_table(part)
    values = rows[column].to_pylist()
    values[7] = value
    at = rows.schema.get_field_index(column)
    pq.write_table(rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type)), part)
    with pytest.raises(DatasetError, match=f"the manifest of split 'train' {says}"):
        open_dataset(tmp_path / "copy").records("train")


def _digest(work: tuple[Records, list[int]]) -> str:
    records, at = work
    return hashlib.sha256(records[at][0].tobytes()).hexdigest()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_the_same(folder: Path, method: str) -> None:
    records = open_dataset(folder).records("train", "record_index != 5")
    parts = [list(range(worker, len(records), 2)) for worker in range(2)]
    wanted = [_digest((records, part)) for part in parts]  # shards are mapped by now
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_digest, [(records, part) for part in parts]) == wanted


def test_what_is_pickled_is_where_it_lies(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    pickled = pickle.dumps(open_dataset(tmp_path / "copy").records("train", "record_index > 1"))
    assert len(pickled) < 500
    shutil.rmtree(tmp_path / "copy")
    shutil.copytree(folder, tmp_path / "copy")
    assert len(pickle.loads(pickled)) == RECORDS - 2
    part = tmp_path / "copy/manifest/train-00000-of-00003.parquet"
    rows = pq.read_table(part)
    crcs = pa.array([*rows["shard_crc32c"].to_pylist()[:-1], 1], pa.uint32())
    pq.write_table(rows.set_column(rows.schema.get_field_index("shard_crc32c"), "shard_crc32c", crcs), part)
    with pytest.raises(DatasetError, match="aren't those of the process that this one was started by"):
        pickle.loads(pickled)


def test_a_stretch_of_records_is_records_of_its_own(folder: Path, bucket: str) -> None:
    whole = open_dataset(folder).records("train", "record_index != 5")
    images, labels = whole[:]
    for records in (whole, open_dataset(bucket).records("train", "record_index != 5")):
        part = records.between(20, 90).between(10, 60)
        for one in (part, pickle.loads(pickle.dumps(part))):
            np.testing.assert_array_equal(one[:][0], images[30:80])
            np.testing.assert_array_equal(one[[49, 0]][1], labels[[79, 30]])
            assert one.rows(["sample_id"]) == whole.rows(["sample_id"]).slice(30, 50)
            assert one.digest == part.digest != whole.digest
            assert sum(mask.sum() for mask in one.chosen()) == len(one) == 50
    assert whole.between(7, 7)[:][0].shape[0] == 0


def test_reading_raw_images_imports_numpy_and_arrow_alone(tmp_path: Path) -> None:
    from tiny_dataset import write_dataset

    folder = write_dataset(tmp_path / "set", {"train": 9})
    code = f"""
import sys
from pipeline import open_dataset
open_dataset({str(folder)!r}).records("train", "writer = 'w'")[:]
heavy = {{"apache_beam", "boto3", "cv2", "duckdb", "numba", "pandas", "tensorflow", "torch"}}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
