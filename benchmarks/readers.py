"""One way to read shuffled batches, timed in this process: a line of JSON. benchmarks/read.py runs it, once for each.

    python benchmarks/readers.py NAME DIR SECONDS

DIR is a data set for the readers of shards, and for the others the folder that `write_NAME` has filled.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

BATCH = 512
REACH = 16_384  # of a shuffle buffer, in records
_WARM_UP_BATCHES, _ROUNDS, _SEED, _MANY_STEPS = 10, 3, 1, 1 << 40
_SHARDS = 8

Batches = Iterator[Any]


def ours(folder: Path, mode: Any) -> Batches:
    from model.data.batches import training_source
    from pipeline.reader.dataset import open_dataset

    source = training_source(open_dataset(folder).records("train"), mode=mode, global_batch=BATCH, seed=_SEED)
    return (part for (part,) in source.batches(0, _MANY_STEPS))


def reader(folder: Path) -> Batches:
    """The reader's random batches, epoch after epoch, every checksum compared, in this one process."""
    from pipeline import open_dataset

    records = open_dataset(folder).records("train")
    order = records.order(BATCH, seed=_SEED)
    for number in range(_MANY_STEPS):
        images, labels = records.read(order[number])
        if len(labels) == BATCH:
            yield images[..., None], labels


def copy(folder: Path) -> Batches:
    """The bound of the reader: the same frames in the same order, copied, and nothing compared or taken apart."""
    from pipeline import open_dataset

    records = open_dataset(folder).records("train")
    order = records.order(BATCH, seed=_SEED)
    room = int((records._end - records._begin).max())
    frames, images = memoryview(bytearray(BATCH * room)), np.empty((BATCH, 64, 64, 1), np.uint8)
    maps = [memoryview(np.memmap(path, np.uint8, "r")) for path in records.paths]
    for number in range(_MANY_STEPS):
        some = order[number]
        places = (column[some].tolist() for column in (records._shard, records._begin, records._end))
        for at, (shard, begin, end) in enumerate(zip(*places, strict=True)):
            frames[at * room : at * room + end - begin] = maps[shard][begin:end]
        if len(some) == BATCH:
            yield images, records.labels[some]


def loader(folder: Path) -> Batches:
    """The same through PyTorch's DataLoader, with two workers."""
    from pipeline import open_dataset
    from pipeline.reader.torch import Loader

    records = open_dataset(folder).records("train")
    batches = Loader(records, records.order(BATCH, seed=_SEED), num_workers=2)
    while True:
        yield from ((images[..., None], labels) for images, labels in batches if len(labels) == BATCH)


def seek(folder: Path) -> Batches:
    """What the guide showed before there was a reader: a torch Dataset that opens the shard for each record."""
    import pyarrow.parquet as pq
    import torch

    kept = pq.read_table(folder / "manifest", filters=[("split", "==", "train"), ("status", "==", "kept")])
    rows = list(
        zip(*(kept[name].to_pylist() for name in ("shard", "shard_offset", "shard_bytes", "label")), strict=True)
    )

    class Characters(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            shard, offset, length, label = rows[index]
            with open(folder / shard, "rb") as file:
                file.seek(offset)
                frame = file.read(length)
            end = frame.rindex(b"\n\x05label") - 2
            return np.frombuffer(frame, np.uint8, 64 * 64, end - 64 * 64).reshape(64, 64, 1), label

    while True:
        yield from torch.utils.data.DataLoader(Characters(), BATCH, shuffle=True, drop_last=True)


def mosaic(folder: Path) -> Batches:
    """MosaicML Streaming's shards on this disk, in its own shuffle, by PyTorch's DataLoader in this one process."""
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    data = StreamingDataset(local=str(folder), shuffle=True, shuffle_seed=_SEED, batch_size=BATCH)
    while True:
        for batch in DataLoader(data, BATCH, drop_last=True):
            yield batch["image"].numpy().reshape(-1, 64, 64, 1), batch["label"]


def write_mosaic(images: Any, labels: Any, folder: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"image": "ndarray:uint8:64,64", "label": "int"}) as writer:
        for image, label in zip(images, labels, strict=True):
            writer.write({"image": image[..., 0], "label": int(label)})


def tfds(folder: Path) -> Batches:
    """As TFDS's own guide has it: shuffled files, interleaved, records parsed one by one."""
    import tensorflow_datasets

    records = tensorflow_datasets.builder_from_directory(folder).as_dataset(
        split="train", shuffle_files=True, as_supervised=True
    )
    return iter(records.repeat().shuffle(REACH).batch(BATCH, drop_remainder=True).prefetch(-1))


def record_by_record(folder: Path) -> Batches:
    """As most tutorials have it: parse_single_example and a decoder for each record."""
    import tensorflow as tf

    from pipeline.reader.dataset import open_dataset

    data = open_dataset(folder)
    card = data.card
    spec = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    size = card.image_size

    def parse(record: Any) -> tuple[Any, Any]:
        example = tf.io.parse_single_example(record, spec)
        if card.image_encoding == "png":
            image = tf.io.decode_png(example["image"], channels=1)
        else:
            image = tf.io.decode_raw(example["image"], tf.uint8)
        return tf.reshape(image, [size, size, 1]), example["label"]

    paths = data.records("train").paths
    files = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths))
    records = files.interleave(tf.data.TFRecordDataset, num_parallel_calls=-1, deterministic=False)
    parsed = records.repeat().shuffle(REACH).map(parse, num_parallel_calls=-1)
    return iter(parsed.batch(BATCH, drop_remainder=True).prefetch(-1))


def hugging_face(folder: Path) -> Batches:
    """A memory-mapped Arrow file, shuffled by an index, batches as NumPy arrays."""
    from datasets import load_from_disk

    data = load_from_disk(str(folder)).with_format("numpy")
    epoch = 0
    while True:
        for batch in data.shuffle(seed=epoch).iter(BATCH, drop_last_batch=True):
            yield batch["image"], batch["label"]
        epoch += 1


def grain(folder: Path) -> Batches:
    """ArrayRecord files, a global shuffle, and the threads that Grain takes by default."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from grain import MapDataset

    source = ArrayRecordDataSource(sorted(str(path) for path in folder.iterdir()))

    def parse(record: bytes) -> tuple[Any, Any]:
        return np.frombuffer(record, np.uint8, len(record) - 4).reshape(64, 64, 1), np.frombuffer(record[-4:], "<i4")[0]

    data = MapDataset.source(source).seed(_SEED).shuffle().repeat().map(parse).batch(BATCH, drop_remainder=True)
    return iter(data.to_iter_dataset())


def webdataset(folder: Path) -> Batches:
    """Tar files through a shuffle buffer, in this one process: its workers are torch's."""
    import webdataset as wds

    urls = sorted(str(path) for path in folder.iterdir())
    data = wds.WebDataset(urls, shardshuffle=len(urls), seed=_SEED, empty_check=False).repeat().shuffle(REACH)
    parsed = data.map(lambda s: (np.frombuffer(s["bin"], np.uint8).reshape(64, 64, 1), int(s["cls"])))
    return iter(parsed.batched(BATCH, partial=False))


def write_hugging_face(images: Any, labels: Any, folder: Path) -> None:
    from datasets import Array3D, Dataset, Features, Value

    features = Features({"image": Array3D(tuple(images.shape[1:]), "uint8"), "label": Value("int32")})

    def rows() -> Iterator[dict[str, Any]]:
        for image, label in zip(images, labels, strict=True):
            yield {"image": image, "label": label}

    Dataset.from_generator(rows, features=features, cache_dir=str(folder) + "-cache").save_to_disk(folder)


def write_grain(images: Any, labels: Any, folder: Path) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    for shard in range(_SHARDS):
        writer = ArrayRecordWriter(str(folder / f"{shard}.array_record"), "group_size:1")
        for image, label in zip(images[shard::_SHARDS], labels[shard::_SHARDS], strict=True):
            writer.write(image.tobytes() + label.tobytes())
        writer.close()


def write_webdataset(images: Any, labels: Any, folder: Path) -> None:
    import webdataset as wds

    for shard in range(_SHARDS):
        with wds.TarWriter(str(folder / f"{shard}.tar")) as writer:
            for number in range(shard, len(images), _SHARDS):
                sample = {"bin": images[number].tobytes(), "cls": str(labels[number]).encode()}
                writer.write({"__key__": f"{number:08}", **sample})


def _import(name: str) -> None:
    """What a training with this reader imports whatever it reads with: the framework itself."""
    if name in ("reader", "copy"):
        import pipeline.reader.records  # noqa: F401
    elif name in TORCH:
        import torch  # noqa: F401
    elif name in READERS_OF_SHARDS:
        from model.network.memory import keep_freed_memory

        keep_freed_memory()  # as in a training run
        import tensorflow  # noqa: F401
    elif name != "webdataset":
        __import__("datasets" if name == "hugging_face" else name)


READERS_OF_SHARDS: dict[str, Callable[[Path], Batches]] = {
    "memory": partial(ours, mode="memory"),
    "stream": partial(ours, mode="stream"),
    "tfds": tfds,
    "record_by_record": record_by_record,
    "reader": reader,
    "copy": copy,
}
TORCH: dict[str, Callable[[Path], Batches]] = {"seek": seek, "loader": loader, "mosaic": mosaic}
PEERS: dict[str, Callable[[Path], Batches]] = {"hugging_face": hugging_face, "grain": grain, "webdataset": webdataset}


def main() -> None:
    name, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    if name.startswith("write_"):
        globals()[name](np.load(folder.parent / "images.npy", "r"), np.load(folder.parent / "labels.npy"), folder)
        return
    began = time.perf_counter()
    _import(name)
    imported = time.perf_counter()
    batches = (READERS_OF_SHARDS | PEERS | TORCH)[name](folder)
    images, _ = next(batches)
    first = time.perf_counter()
    assert tuple(images.shape) == (BATCH, 64, 64, 1), images.shape
    for _ in range(_WARM_UP_BATCHES):
        next(batches)
    rates, processor = [], []
    for _ in range(_ROUNDS):
        count, round_began, processor_began = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - round_began < seconds:
            next(batches)
            count += 1
        rates.append(count * BATCH / (time.perf_counter() - round_began))
        processor.append(1e6 * (time.process_time() - processor_began) / count / BATCH)
    found = {
        "import_seconds": imported - began,
        "first_batch_seconds": first - imported,
        "records_per_second": sorted(rates)[len(rates) // 2],
        "processor_us": sorted(processor)[len(processor) // 2],
        "resident_mb": psutil.Process().memory_info().rss / 1e6,
    }
    print(json.dumps(found), flush=True)
    os._exit(0)  # threads of readers that don't end aren't waited for


if __name__ == "__main__":
    main()
