"""One way to write the samples of GNT members with somebody else's tool. benchmarks/convert.py runs it, once for each.

    python benchmarks/converters.py NAME --input DIR --output DIR --num_shards N

Each walks, labels and preprocesses with the project's own functions, drops the same records, and stores the same three
fields of the rest, the image raw; none makes a digest, a manifest or a card.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.shards.tfrecord.frames import image_encoder
from pipeline.source import gnt
from pipeline.steps.records import preprocess_records
from pipeline.steps.settings import PreprocessConfig
from schemas.classes import OUTSIDE, default_classes
from schemas.example import sample_id_prefix

_PROCESSES = os.cpu_count() or 1
_TAR_SAMPLES = 15_000  # four members, as in the shards of the others
_LABELS = default_classes().labels_by_tag_code
_BLOCK_RECORDS = 64
_SIZE = PreprocessConfig().image_size


def samples(path: str) -> Iterator[tuple[str, int, np.ndarray]]:
    """(sample_id, label, uint8 [size, size]) of every record of a member that a conversion keeps."""
    octets = np.fromfile(path, np.uint8)
    records = gnt.walk(octets.data)
    labels = np.where(records.tag_code < 0, OUTSIDE, _LABELS[records.tag_code])
    prefix = sample_id_prefix("train", os.path.basename(path))
    sound = np.array([not fault for fault in records.fault])
    rows = np.flatnonzero(sound & (labels != OUTSIDE))
    for begin in range(0, len(rows), _BLOCK_RECORDS):
        block = rows[begin : begin + _BLOCK_RECORDS]
        first_pixel = records.offset[block] + gnt.HEADER_BYTES
        made = preprocess_records(octets, first_pixel, records.width[block], records.height[block], PreprocessConfig())
        for index, label, image, outcome in zip(
            block.tolist(), labels[block].tolist(), made.image, made.outcome.tolist(), strict=True
        ):
            if not outcome:
                yield f"{prefix}{index}", label, image


def tfds(paths: list[str], output: Path, num_shards: int) -> int:
    """A builder whose examples are a Beam pipeline, as its guide has it for large data; TFDS shuffles."""
    import apache_beam as beam
    import tensorflow_datasets
    from apache_beam.options.pipeline_options import PipelineOptions

    features = tensorflow_datasets.features

    class Handwriting(tensorflow_datasets.core.GeneratorBasedBuilder):
        VERSION = tensorflow_datasets.core.Version("1.0.0")

        def _info(self) -> Any:
            # What is stored for a Tensor in bytes are the bytes; for an Image it would be a PNG.
            image = features.Tensor(shape=(_SIZE, _SIZE, 1), dtype=np.uint8, encoding="bytes")
            label = features.ClassLabel(num_classes=len(default_classes()))
            stored = features.FeaturesDict({"image": image, "label": label, "sample_id": features.Text()})
            return tensorflow_datasets.core.DatasetInfo(builder=self, features=stored)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            del dl_manager
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            return beam.Create(paths) | beam.FlatMap(_keyed_examples)

    options = PipelineOptions(direct_running_mode="multi_processing", direct_num_workers=_PROCESSES)
    config = tensorflow_datasets.download.DownloadConfig(
        beam_runner="DirectRunner", beam_options=options, num_shards=num_shards, try_download_gcs=False
    )
    builder = Handwriting(data_dir=output, file_format="tfrecord")
    builder.download_and_prepare(download_config=config)
    return builder.info.splits["train"].num_examples


def _keyed_examples(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for sample_id, label, image in samples(path):
        yield sample_id, {"image": image[:, :, np.newaxis], "label": label, "sample_id": sample_id}


def hugging_face(paths: list[str], output: Path, num_shards: int) -> int:
    """map(num_proc) from one row a member to one a sample, then a Parquet file a shard, as many at once."""
    from datasets import ClassLabel, Dataset, Features, Value, disable_progress_bars

    disable_progress_bars()
    label = ClassLabel(num_classes=len(default_classes()))
    data = Dataset.from_dict({"path": paths}).map(
        _columns,
        batched=True,
        batch_size=1,
        num_proc=_PROCESSES,
        remove_columns=["path"],
        features=Features({"image": Value("binary"), "label": label, "sample_id": Value("string")}),
    )
    names = [f"train-{shard:05}-of-{num_shards:05}.parquet" for shard in range(num_shards)]
    jobs = [(data.shard(num_shards, shard, contiguous=True), output / name) for shard, name in enumerate(names)]
    with multiprocessing.Pool(_PROCESSES) as pool:
        pool.starmap(_write_parquet, jobs, chunksize=1)
    return len(data)


def _columns(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
    encode = image_encoder("raw")
    rows = [(encode(image), label, sample_id) for path in batch["path"] for sample_id, label, image in samples(path)]
    return dict(zip(("image", "label", "sample_id"), map(list, zip(*rows, strict=True)), strict=True))


def _write_parquet(data: Any, path: Path) -> None:
    data.to_parquet(path)


def webdataset(paths: list[str], output: Path, num_shards: int) -> int:
    """A ShardWriter in each process, which takes its part of the members; the key is the sample_id."""
    del num_shards  # the writers end a shard by its samples
    jobs = [(paths[part::_PROCESSES], f"{output}/train-{part}-%05d.tar") for part in range(_PROCESSES)]
    with multiprocessing.Pool(_PROCESSES) as pool:
        return sum(pool.starmap(_write_tars, jobs))


def _write_tars(paths: list[str], pattern: str) -> int:
    from webdataset import ShardWriter

    encode = image_encoder("raw")
    with ShardWriter(pattern, maxcount=_TAR_SAMPLES, verbose=0) as writer:
        for path in paths:
            for sample_id, label, image in samples(path):
                # A key ends at the first dot of its last part; here the dot stands in the member's, a folder.
                writer.write({"__key__": sample_id, "bin": encode(image), "cls": label})
        return writer.total


CONVERTERS: dict[str, Callable[[list[str], Path, int], int]] = {
    "tfds": tfds,
    "hugging_face": hugging_face,
    "webdataset": webdataset,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=CONVERTERS)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--num_shards", type=int, required=True)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.output, ignore_errors=True)
    arguments.output.mkdir(parents=True)
    paths = sorted(str(path) for path in arguments.input.glob("*.gnt"))
    kept = CONVERTERS[arguments.name](paths, arguments.output, arguments.num_shards)
    print(f"{kept:,} records kept")


if __name__ == "__main__":
    main()
