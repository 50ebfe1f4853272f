"""What a record costs on one core, from the member's bytes to its framed Example, beside the path that tutorials write.

    python benchmarks/record.py --json record.json

All read the same member, of pipeline.sample, in turn; the medians are shown, in seconds of the processor, so that other
work on it isn't counted. Ours makes the manifest's columns too. Naive is what tutorials write: struct for each header,
medianBlur, normalize, Otsu's threshold, Canny, boundingRect, resize with INTER_AREA, always a PNG, tf.train.Example, a
masked CRC-32C. "Naive, same encoding" is that with the row's own encoding, so raw pixels beside ours raw. Ratios are
ours over naive. Then each part of ours alone, warm, in a loop, and what its steps are without the compiler: a call of
pipeline.steps.plain for each record. All else of raw is the ids, the keys, the manifest's columns, new memory and the
loop around it all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import google_crc32c
import numpy as np
import pyarrow as pa
import tensorflow as tf
import xxhash
from process_tree import measure

from pipeline.shards.chunk import convert_records
from pipeline.shards.config import ConvertConfig
from pipeline.shards.packing import pack, unpack
from pipeline.shards.rows import IS_KEPT, Source, columns
from pipeline.shards.tfrecord import framed
from pipeline.shards.tfrecord.frames import encode_png
from pipeline.shards.tfrecord.layout import Layout
from pipeline.source import gnt
from pipeline.source.chunks import Chunk
from pipeline.source.members import Member
from pipeline.steps.plain import Unusable, pin_opencv, preprocess
from pipeline.steps.records import count_ink, preprocess_records
from pipeline.steps.settings import PreprocessConfig

_BLOCK_RECORDS = 64
_SETTINGS = {
    "six steps": PreprocessConfig(denoise="median", binarize="otsu"),
    "default": PreprocessConfig(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--member", type=Path, help="a .gnt (default: one of pipeline.sample's)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    flags = parser.parse_args()
    data = flags.member.read_bytes() if flags.member else _sample()
    pin_opencv()
    records = len(gnt.walk(data))
    rows = _whole_paths(data, records, flags.rounds)
    parts = {name: _parts(data, settings, flags.rounds) for name, settings in _SETTINGS.items()}
    for row in rows:
        if row["encoding"] == "raw":
            parts[row["settings"]]["all else of raw"] = row["ours"] - _sum_of_raw(parts[row["settings"]])
    print(f"{records:,} records")
    print(f"{'µs a record':<28} {'ours':>8} {'naive':>8} {'ratio':>7} {'naive, same encoding':>22} {'ratio':>7}")
    for row in rows:
        ours, naive, same = (row[path] for path in ("ours", "naive", "naive_same_encoding"))
        print(
            f"{row['settings'] + ', ' + row['encoding']:<28} {ours:>8.1f} {naive:>8.1f} {ours / naive:>7.2f} "
            f"{same:>22.1f} {ours / same:>7.2f}"
        )
    print(f"\n{'each part of ours alone, µs':<28} " + " ".join(f"{name:>10}" for name in parts))
    for part in next(iter(parts.values())):
        print(f"{part:<28} " + " ".join(f"{found[part]:>10.2f}" for found in parts.values()))
    if flags.json:
        flags.json.write_text(json.dumps({"records": records, "paths": rows, "parts": parts}, indent=1) + "\n", "utf-8")


def _sample() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        measure([sys.executable, "-m", "pipeline.sample", f"--output={folder}/s", "--writers=2", "--characters=3755"])
        return sorted(Path(folder).rglob("*.gnt"))[0].read_bytes()


def _whole_paths(data: bytes, records: int, rounds: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, settings in _SETTINGS.items():
        for encoding in ("raw", "png"):
            config = ConvertConfig(preprocess=settings, image_encoding=encoding, num_shards={"train": 1})
            calls = {"ours": partial(_ours, data, config), "naive": partial(_naive, data, png=True)}
            if encoding == "raw":
                calls["naive_same_encoding"] = partial(_naive, data, png=False)
            seconds = _in_turn([partial(_exhaust, call) for call in calls.values()], rounds)
            costs = {path: 1e6 * found / records for path, found in zip(calls, seconds, strict=True)}
            same = {"naive_same_encoding": costs["naive"]}  # of png; raw has timed its own
            rows.append({"settings": name, "encoding": encoding, **same, **costs})
    return rows


def _ours(data: bytes, config: ConvertConfig) -> Iterator[object]:
    member = Member("train", "member.gnt", "1001-c.gnt", len(data), "")
    source = Source(member.split, member.name, member.writer, member.archive)
    for part in convert_records(data, Chunk(member, 0, len(data), 0), config):
        kept = part.chosen(part.rows["outcome"] == IS_KEPT)
        yield from framed(kept, columns(kept.rows, [source])["sample_id"], config)


def _exhaust(call: Callable[[], Iterator[object]]) -> None:
    for _ in call():
        pass


def _in_turn(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each, of the processor."""
    seconds: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(rounds):
        for call, found in zip(calls, seconds, strict=True):
            began = time.process_time()
            call()
            found.append(time.process_time() - began)
    return [statistics.median(found) for found in seconds]


def _naive(data: bytes, *, png: bool) -> Iterator[bytes]:
    """A frame for each record that holds ink."""
    offset, number = 0, 0
    while offset < len(data):
        size, tag, width, height = struct.unpack_from("<I2sHH", data, offset)
        bitmap = np.frombuffer(data, np.uint8, width * height, offset + 10).reshape(height, width)
        offset += size
        smooth = cv2.normalize(cv2.medianBlur(bitmap, 3), None, 0, 255, cv2.NORM_MINMAX)
        _, ink = cv2.threshold(smooth, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
        x, y, w, h = cv2.boundingRect(cv2.Canny(ink, 100, 200))
        if w == 0:
            continue
        image = cv2.resize(ink[y : y + h, x : x + w], (64, 64), interpolation=cv2.INTER_AREA)
        content = cv2.imencode(".png", image)[1].tobytes() if png else image.tobytes()
        features = {
            "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[content])),
            "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[tag[0]])),
            "sample_id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[f"train/{number}".encode()])),
        }
        example = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
        length = struct.pack("<Q", len(example))
        yield b"".join((length, _masked(length), example, _masked(example)))
        number += 1


def _masked(content: bytes) -> bytes:
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _parts(data: bytes, settings: PreprocessConfig, rounds: int) -> dict[str, float]:
    """µs a record of each part of ours, alone and warm."""
    records = gnt.walk(data)
    octets = np.frombuffer(data, np.uint8)
    first, width, height = records.offset + gnt.HEADER_BYTES, records.width, records.height
    pixels = width.astype(np.int64) * height
    images = preprocess_records(octets, first, width, height, settings).image
    rows = zip(first.tolist(), pixels.tolist(), width.tolist(), height.tolist(), strict=True)
    bitmaps = [octets[begin : begin + size].reshape(h, w) for begin, size, w, h in rows]
    blocks = [slice(begin, begin + _BLOCK_RECORDS) for begin in range(0, len(records), _BLOCK_RECORDS)]
    which = np.arange(_BLOCK_RECORDS)
    packed = [pack(images[block], which[: len(images[block])])[0].tobytes() for block in blocks]
    names = pa.array([f"train/1001-c.gnt/{number}" for number in range(len(images))])
    flat = images.reshape(len(images), -1)
    layout = Layout(np.full(len(images), flat.shape[1]), np.full(len(images), 1234), names)
    loops: dict[str, Callable[[], object]] = {
        "walk": lambda: gnt.walk(data),
        "digest": lambda: [xxhash.xxh3_64_intdigest(bitmap) for bitmap in bitmaps],
        "ink fraction": lambda: [count_ink(octets, first[block], pixels[block]) for block in blocks],
        "all steps": lambda: [
            preprocess_records(octets, first[block], width[block], height[block], settings) for block in blocks
        ],
        "  one by one, by OpenCV": lambda: [_image(bitmap, settings) for bitmap in bitmaps],
        "image, png": lambda: [encode_png(image) for image in images],
        "image packed": lambda: [pack(images[block], which[: len(images[block])]) for block in blocks],
        "image unpacked": lambda: [
            unpack(part, len(images[block]), images[0].size) for part, block in zip(packed, blocks, strict=True)
        ],
        "frame and CRC": lambda: [layout.frames(block, flat[block].reshape(-1)) for block in blocks],
    }
    return {name: 1e6 * _in_turn([loop], rounds)[0] / len(bitmaps) for name, loop in loops.items()}


def _sum_of_raw(parts: dict[str, float]) -> float:
    """What a raw record's parts cost together."""
    return sum(cost for name, cost in parts.items() if not name.startswith("  ") and name != "image, png")


def _image(bitmap: np.ndarray, settings: PreprocessConfig) -> np.ndarray | None:
    try:
        return preprocess(bitmap, settings).image
    except Unusable:
        return None


if __name__ == "__main__":
    main()
