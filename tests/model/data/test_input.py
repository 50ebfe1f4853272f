from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny_dataset import CHARACTERS, image_of, write_dataset

from model.data.batches import evaluation_batches, input_mode, training_source
from model.data.examples import load_split
from model.data.source import WHOLE, Share, TrainingSource
from pipeline.reader.dataset import open_dataset
from schemas.dataset import CARD, Card, DatasetError, read_card
from schemas.errors import UserError

RECORDS, BATCH, SIZE = 107, 8, 16
PER_EPOCH = RECORDS // BATCH
MODES = ("memory", "stream")
Batch = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "raw", {"train": RECORDS, "validation": 21}, size=SIZE)


@pytest.fixture(scope="module")
def expected() -> dict[bytes, int]:
    """Image -> label of every training sample."""
    samples = [image_of("train", number, SIZE, len(CHARACTERS)) for number in range(RECORDS)]
    return {image.tobytes(): label for image, label in samples}


@pytest.mark.parametrize("mode", MODES)
def test_an_epoch_is_a_permutation_without_its_remainder(folder: Path, expected: dict[bytes, int], mode: str) -> None:
    batches = _batches(_source(folder, mode), 0, 3 * PER_EPOCH)
    orders = []
    for epoch in range(3):
        of_epoch = batches[epoch * PER_EPOCH : (epoch + 1) * PER_EPOCH]
        seen = [image.tobytes() for images, _ in of_epoch for image in images]
        assert Counter(seen).most_common(1)[0][1] == 1
        assert len(seen) == PER_EPOCH * BATCH
        assert all(
            expected[image.tobytes()] == label
            for images, labels in of_epoch
            for image, label in zip(images, labels, strict=True)
        )
        orders.append(seen)
    assert orders[0] != orders[1] != orders[2]
    assert set(orders[0]) != set(orders[1])  # another remainder is left out


@pytest.mark.parametrize("mode", MODES)
def test_batches_have_static_shapes_and_narrow_types(folder: Path, mode: str) -> None:
    parts = _source(folder, mode).batches(0, 1, 2).element_spec
    assert len(parts) == 2
    for images, labels in parts:
        assert (images.shape, images.dtype) == ((BATCH // 2, SIZE, SIZE, 1), "uint8")
        assert (labels.shape, labels.dtype) == ((BATCH // 2,), "int32")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", [1, PER_EPOCH - 1, PER_EPOCH, PER_EPOCH + 5])
def test_a_run_that_starts_at_a_step_sees_what_one_from_the_beginning_sees(folder: Path, mode: str, first: int) -> None:
    whole = _batches(_source(folder, mode), 0, 2 * PER_EPOCH + 3)
    resumed = _batches(_source(folder, mode), first, 2 * PER_EPOCH + 3)
    _assert_same(whole[first:], resumed)


@pytest.mark.parametrize("mode", MODES)
def test_another_seed_is_another_order(folder: Path, mode: str) -> None:
    first, other = (_batches(_source(folder, mode, seed=seed), 0, 1) for seed in (5, 6))
    assert (first[0][0] != other[0][0]).any()


@pytest.mark.parametrize("mode", MODES)
def test_replicas_share_the_same_batches(folder: Path, mode: str) -> None:
    source = _source(folder, mode)
    parts = _batches(source, 3, PER_EPOCH + 3, 4)
    for step, (images, labels) in enumerate(_batches(source, 3, PER_EPOCH + 3)):
        own = parts[4 * step : 4 * step + 4]
        np.testing.assert_array_equal(np.concatenate([part[0] for part in own]), images)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in own]), labels)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workers", [2, 4])
def test_each_worker_draws_its_part_of_every_batch_from_a_share_of_its_own(
    folder: Path, expected: dict[bytes, int], mode: str, workers: int
) -> None:
    shares = [Share(8, range(first, first + 8 // workers)) for first in range(0, 8, 8 // workers)]
    sources = [_source(folder, mode, share=share) for share in shares]
    assert {(source.steps_per_epoch, source.batch) for source in sources} == {(PER_EPOCH, BATCH // workers)}
    drawn = []
    for source in sources:
        batches = _batches(source, 0, 40 * PER_EPOCH)
        per_epoch = [
            [image.tobytes() for images, _ in batches[first : first + PER_EPOCH] for image in images]
            for first in range(0, len(batches), PER_EPOCH)
        ]
        assert all(len(epoch) == len(set(epoch)) == PER_EPOCH * BATCH // workers for epoch in per_epoch)
        assert per_epoch[0] != per_epoch[1]
        _assert_same(batches[PER_EPOCH + 5 : 2 * PER_EPOCH], _batches(source, PER_EPOCH + 5, 2 * PER_EPOCH))
        drawn.append({image for epoch in per_epoch for image in epoch})
    assert all(len(share) == RECORDS // workers for share in drawn)
    assert sum(map(len, drawn)) == len(set().union(*drawn))  # no two have one in common
    assert set().union(*drawn) <= expected.keys()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("replicas", [1, 2])
def test_the_rows_of_a_replica_are_those_they_were(folder: Path, mode: str, replicas: int) -> None:
    """Digests of the batches as they were before a source gave each replica its part: a run goes on with the same."""
    found = _batches(_source(folder, mode), 3, PER_EPOCH + 3, replicas)
    assert len(found) == replicas * PER_EPOCH
    for replica in range(replicas):
        digest = hashlib.sha256()
        for images, labels in found[replica::replicas]:
            digest.update(images.tobytes() + labels.tobytes())
        assert digest.hexdigest()[:16] == ROWS[mode, replicas][replica]


ROWS = {
    ("memory", 1): ("0c4085842ea4466f",),
    ("memory", 2): ("e202f0e1e9d74d43", "a4fbc486b83ec6de"),
    ("stream", 1): ("0096c73e573b33c3",),
    ("stream", 2): ("bda04d893bdfba04", "b39752d20172e25e"),
}
"""(mode, replicas) -> the digest of each replica's rows of steps 3 to 15."""


@pytest.mark.parametrize("mode", MODES)
def test_a_part_of_the_records_is_all_that_is_trained_on(folder: Path, mode: str) -> None:
    """Once an epoch, the same after a resume."""
    records = open_dataset(folder).records("train", "record_index BETWEEN 10 AND 57 AND record_index != 20")
    source = training_source(records, mode=mode, global_batch=BATCH, seed=0)
    assert (source.records, source.steps_per_epoch) == (47, 5)
    whole = _batches(source, 0, 10)
    some = {image_of("train", number, SIZE, len(CHARACTERS))[0].tobytes() for number in range(10, 58) if number != 20}
    for epoch in (whole[:5], whole[5:]):
        seen = [image.tobytes() for images, _ in epoch for image in images]
        assert len(seen) == len(set(seen)) == 40
        assert set(seen) < some
    _assert_same(whole[7:], _batches(source, 7, 10))


@pytest.mark.parametrize("mode", MODES)
def test_png_shards_give_the_same_batches_as_raw_ones(folder: Path, tmp_path: Path, mode: str) -> None:
    png = write_dataset(tmp_path / "png", {"train": RECORDS}, size=SIZE, encoding="png")
    _assert_same(_batches(_source(folder, mode), 0, 5), _batches(_source(png, mode), 0, 5))


def test_auto_takes_memory_where_the_split_fits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _source(folder, "auto").mode == "memory"
    monkeypatch.setattr("model.data.batches.free_memory_bytes", lambda: RECORDS * SIZE * SIZE)
    assert _source(folder, "auto").mode == "stream"


def test_auto_takes_the_device_where_it_has_room_for_the_split(folder: Path) -> None:
    split = RECORDS * SIZE * SIZE
    asked = {"mode": "auto", "global_batch": BATCH}
    found = [input_mode(open_dataset(folder).records("train"), **asked, device_bytes=n * split) for n in (0, 3, 4)]
    assert found == ["memory", "memory", "device"]


def test_the_rows_on_the_device_are_those_of_memory_mode(folder: Path) -> None:
    held = _source(folder, "device")
    images, labels = (column.numpy() for column in held.on("CPU:0"))
    found = [
        (images[rows], labels[rows].astype(np.int32)) for parts in held.rows(3, PER_EPOCH + 3, 4) for rows in parts
    ]
    _assert_same(found, _batches(_source(folder, "memory"), 3, PER_EPOCH + 3, 4))


_COPIES = """
import re
import numpy as np
from model.data.examples import aligned_empty
from model.data.batches import MemorySource

def peak_mib():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) >> 10

images = aligned_empty((64 << 10, 64, 64, 1))  # 256 MiB
images[:] = 1
before = peak_mib()
source = MemorySource(images, np.zeros(len(images), np.int32), 64, 1)
next(iter(source.batches(0, 100)))
print(peak_mib() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_a_split_in_memory_is_never_there_twice() -> None:
    run = subprocess.run([sys.executable, "-c", _COPIES], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 128


@pytest.mark.parametrize(
    ("batch", "replicas", "workers", "steps"),
    [(8, 1, 1, 3), (8, 2, 1, 2), (8, 2, 2, 2), (7, 1, 1, 3), (21, 4, 1, 1), (3, 4, 2, 2), (50, 1, 1, 1)],
)
def test_evaluation_sees_every_sample_once_and_masks_the_rest(
    folder: Path, batch: int, replicas: int, workers: int, steps: int
) -> None:
    data = open_dataset(folder)
    names = data.records("validation").rows(["sample_id"])["sample_id"].to_pylist()
    local = replicas // workers
    of_workers = [
        list(
            evaluation_batches(
                data.records("validation"), batch, Share(replicas, range(worker * local, (worker + 1) * local))
            )
        )
        for worker in range(workers)
    ]
    assert [len(of_worker) for of_worker in of_workers] == [steps] * workers
    found = [
        tuple(column.numpy() for column in part) for of_worker in of_workers for parts in of_worker for part in parts
    ]
    assert len(found) == steps * replicas
    assert all(images.shape == (batch, SIZE, SIZE, 1) for images, *_ in found)
    everywhere = [position for _, _, mask, positions in found for position in positions[mask]]
    assert everywhere == list(range(21))  # each worker reads a stretch
    kept = [
        (names[position], image, label)
        for images, labels, mask, positions in found
        for image, label, keep, position in zip(images, labels, mask, positions, strict=True)
        if keep
    ]
    in_shard_order = [f"validation/w.gnt/{number}" for shard in range(3) for number in range(shard, 21, 3)]
    assert [sample_id for sample_id, _, _ in kept] == in_shard_order
    for sample_id, image, label in kept:
        truth, true_label = image_of("validation", int(sample_id.rsplit("/", 1)[1]), SIZE, len(CHARACTERS))
        np.testing.assert_array_equal(image[:, :, 0], truth)
        assert label == true_label
    assert all(not images[~mask].any() for images, _, mask, _ in found)


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected the folder of a data set, found none"):
        open_dataset(tmp_path / "nowhere")


def test_an_unfinished_conversion(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the conversion isn't finished"):
        open_dataset(tmp_path)


def test_a_foreign_format_version(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", {"train": 9})
    _write_card(folder, replace(read_card(folder), format_version="2.0.0"))
    with pytest.raises(DatasetError, match=r"expected format version 1\.x, found 2\.0\.0"):
        open_dataset(folder)


def test_a_class_list_that_is_not_the_cards(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", {"train": 9})
    (folder / "classes.txt").write_text("甲\n乙\n", "utf-8")
    with pytest.raises(DatasetError, match=r"classes\.txt: isn't the class list that the card names"):
        open_dataset(folder)


@pytest.mark.parametrize("mode", MODES)
def test_a_split_that_is_not_there(folder: Path, mode: str) -> None:
    with pytest.raises(DatasetError, match="no split 'test'; it has train, validation"):
        training_source(open_dataset(folder).records("test"), mode=mode, global_batch=BATCH, seed=0)


@pytest.mark.parametrize("mode", MODES)
def test_a_truncated_shard(tmp_path: Path, mode: str) -> None:
    folder = write_dataset(tmp_path / "data", {"train": 9})
    shard = folder / "train-00001-of-00003.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"train-00001-of-00003\.tfrecord: expected [\d,]+ bytes, found [\d,]+"):
        _source(folder, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_missing_shard(tmp_path: Path, mode: str) -> None:
    folder = write_dataset(tmp_path / "data", {"train": 9})
    (folder / "train-00002-of-00003.tfrecord").unlink()
    with pytest.raises(DatasetError, match=r"train-00002-of-00003\.tfrecord: expected a shard .* found none"):
        _source(folder, mode)


@pytest.mark.parametrize(
    ("byte", "says"),
    [
        (-100, r"record 2 at byte [\d,]+ isn't what its checksum says"),
        (8, "record 0 at byte 0 isn't what its checksum says"),  # the checksum of the first frame's length
        (1, "record 0 at byte 0 isn't what its checksum says"),  # the length itself
    ],
)
def test_a_flipped_bit(tmp_path: Path, byte: int, says: str) -> None:
    folder = write_dataset(tmp_path / "data", {"train": 9})
    shard = folder / "train-00001-of-00003.tfrecord"
    content = bytearray(shard.read_bytes())
    content[byte] ^= 64
    shard.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"train-00001-of-00003\.tfrecord: {says}; the shard is damaged"):
        _source(folder, "memory")


def test_a_streamed_shard_with_a_flipped_bit(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", {"train": 9})
    shard = folder / "train-00001-of-00003.tfrecord"
    content = bytearray(shard.read_bytes())
    content[-100] ^= 64
    shard.write_bytes(content)
    with pytest.raises(tf.errors.DataLossError, match="corrupted record"):
        _batches(_source(folder, "stream"), 0, 1)


def test_a_card_that_counts_otherwise(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", {"train": 9})
    card = read_card(folder)
    split = card.split("train")
    first, second, *others = split.shards
    shards = [replace(first, records=first.records + 1), replace(second, records=second.records - 1), *others]
    wrong = replace(split, shards=[replace(one, manifest_rows=one.records) for one in shards])
    _write_card(folder, replace(card, splits={"train": wrong}))
    with pytest.raises(DatasetError, match="the manifest of split 'train' has 3 kept rows for the 4 of train-00000"):
        _source(folder, "memory")


@pytest.mark.parametrize("stretch_records", [1, 2, 5, 1_000])
def test_a_split_is_loaded_whole_whatever_the_stretches(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stretch_records: int
) -> None:
    monkeypatch.setattr("model.data.examples._LOAD_RECORDS", stretch_records)
    images, labels = load_split(open_dataset(folder).records("train"))
    in_shard_order = [number for shard in range(3) for number in range(shard, RECORDS, 3)]
    truth = [image_of("train", number, SIZE, len(CHARACTERS)) for number in in_shard_order]
    np.testing.assert_array_equal(images[:, :, :, 0], np.stack([image for image, _ in truth]))
    np.testing.assert_array_equal(labels, [label for _, label in truth])


@pytest.mark.parametrize("mode", MODES)
def test_fewer_samples_than_one_batch(folder: Path, mode: str) -> None:
    with pytest.raises(UserError, match=r"--global_batch 108: .* has 107 samples"):
        training_source(open_dataset(folder).records("train"), mode=mode, global_batch=108, seed=0)


def _source(folder: Path, mode: str, seed: int = 0, share: Share = WHOLE) -> TrainingSource:
    data = open_dataset(folder)
    batch = min(BATCH, sum(shard.records for shard in data.card.split("train").shards))
    return training_source(data.records("train"), mode=mode, global_batch=batch, seed=seed, share=share)


def _batches(source: TrainingSource, first: int, last: int, replicas: int = 1) -> list[Batch]:
    """The parts of all steps, one after the other."""
    return [
        (images.numpy(), labels.numpy()) for parts in source.batches(first, last, replicas) for images, labels in parts
    ]


def _assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for (images, labels), (other_images, other_labels) in zip(first, second, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def _write_card(folder: Path, card: Card) -> None:
    (folder / CARD).write_text(card.to_json(), "utf-8")
