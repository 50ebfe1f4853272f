"""The parts of a conversion that more workers don't shorten, or that grow faster than the input, each by itself.

    python benchmarks/limits.py                   a few minutes
    python benchmarks/limits.py --json out.json

From these figures benchmarks/scaling.md says what a hundred workers or a billion records would do.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from process_tree import measure

from pipeline.convert.options import Settings
from pipeline.shards import publish
from pipeline.shards.chunk import GROUP_RECORDS, convert_records
from pipeline.shards.config import ConvertConfig
from pipeline.shards.shard import ShardReceipt
from pipeline.shards.staging import ChunkReceipt, StagedBatch, read_batches, write_staged_chunk
from pipeline.source.archives import Input, list_members
from pipeline.source.chunks import CHUNK_BYTES, plan_chunks
from pipeline.source.members import Member
from schemas.dataset import ShardFile
from schemas.manifest import KEPT

SHARDS = (16, 64, 256, 1024, 4096, 16384)
SIZES = (1_200_000, 3_900_000, 30_000_000, 100_000_000, 1_000_000_000)
_RECORD_BYTES = 5_000  # of CASIA's, on average
_FRAME_BYTES = 4_200  # of a raw image of 64 x 64
_REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--sample", type=Path, help="what pipeline.sample drew for benchmarks/convert.py (default: drawn)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="limits-benchmark-") as folder:
        work = Path(folder)
        sample = arguments.sample or work / "sample"
        if not arguments.sample:
            measure([sys.executable, "-m", "pipeline.sample", f"--output={sample}", "--writers=2", "--characters=3755"])
        files = sorted(sample.rglob("*.gnt"))[:2]
        found = {"listing": _listing(work), "planning": _planning(files, work), "staging": _staging(files[0], work)}
        found |= {"references": _references(), "publish": _publish(), "matrix": [_matrix(size) for size in SIZES]}
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def _median_seconds(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _listing(work: Path) -> dict[str, float]:
    """Members a second, of a local folder of 20,000 files."""
    (work / "many").mkdir()
    for number in range(20_000):
        (work / "many" / f"{number + 10_000}-c.gnt").write_bytes(b"\0" * 16)
    seconds = _median_seconds(lambda: list_members([Input("train", str(work / "many"))], 0))
    return {"members_per_second": round(20_000 / seconds)}


def _planning(files: list[Path], work: Path) -> dict[str, float]:
    """The walk over one large member, in one process: a 400 MB file of real headers."""
    data = b"".join(path.read_bytes() for path in files)
    copies = max(1, 400_000_000 // len(data))
    large = work / "large.gnt"
    large.write_bytes(data * copies)
    (member,) = list_members([Input("train", str(large))], 0)
    seconds = _median_seconds(lambda: list(plan_chunks(member, str(work))))
    megabytes = large.stat().st_size / 1e6
    return {"mb_per_second": round(megabytes / seconds), "records_per_second": round(2 * 3_777 * copies / seconds)}


def _staging(path: Path, work: Path) -> list[dict[str, float]]:
    """One chunk, staged for ever more shards: its size, the time to write it, the time to read a shard's rows."""
    (member,) = list_members([Input("train", str(path))], 0)
    data = path.read_bytes()
    rows = []
    for shards in SHARDS:
        config = ConvertConfig(num_shards={"train": shards})
        (chunk,) = plan_chunks(member, str(work))
        tables = list(convert_records(data, chunk, config))
        file = str(work / f"chunk-{shards}.arrow")
        written = _median_seconds(partial(write_staged_chunk, file, tables, shards))
        records, batches = write_staged_chunk(file, tables, shards)
        step = max(1, len(batches) // 50)
        some = [
            StagedBatch(("1001-c.gnt", 0, number), file, number, begin, size, crc)
            for number, (_, _, begin, size, crc) in list(enumerate(batches))[::step]
        ]
        read = _median_seconds(partial(read_batches, some)) / len(some)
        rows.append(
            {
                "shards": shards,
                "records": records,
                "batches": len(batches),
                "file_bytes": os.path.getsize(file),
                "write_seconds": round(written, 4),
                "read_ms_per_batch": round(read * 1e3, 3),
            }
        )
    return rows


def _matrix(records: int) -> dict[str, float]:
    """By arithmetic: how many batches the chunks of so many records are cut into, and how many rows each has."""
    shards = max(1, round(records * _FRAME_BYTES / Settings.target_shard_bytes))
    chunk_records = CHUNK_BYTES // _RECORD_BYTES
    chunks = math.ceil(records / chunk_records)
    groups = [GROUP_RECORDS, chunk_records - GROUP_RECORDS]
    # Keys are uniform: the expected number of shards that a group of rows falls into.
    batches = chunks * sum(shards * (1 - (1 - 1 / shards) ** rows) for rows in groups)
    return {
        "records": records,
        "chunks": chunks,
        "shards": shards,
        "batches": round(batches),
        "rows_per_batch": round(records / batches, 1),
    }


def _references() -> dict[str, float]:
    """References through DirectRunner's GroupByKey in this process, and the bytes of one."""

    def run(count: int) -> float:
        began = time.perf_counter()
        with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as root:
            _ = (
                root
                | beam.Create(range(count // 1000))
                | beam.FlatMap(_thousand_references)
                | beam.GroupByKey()
                | beam.Map(lambda keyed: sum(1 for _ in keyed[1]))
            )
        return time.perf_counter() - began

    small, large = run(1000), statistics.median(run(301_000) for _ in range(_REPEATS))
    one = len(pickle.dumps(_thousand_references(0)[0]))
    return {"microseconds_each": round((large - small) / 300_000 * 1e6, 1), "bytes_each": one}


def _thousand_references(number: int) -> list[tuple[tuple[str, int], tuple[Any, ...]]]:
    path = f"/staging/chunk-{number:032x}.arrow"
    return [
        (
            ("train", shard),
            astuple(StagedBatch(("1001-c.gnt", number, shard), path, shard, 10**7 + shard, 10**6, 4 * 10**9)),
        )
        for shard in range(1000)
    ]


def _publish() -> list[dict[str, float]]:
    """What the one key of Publish gets and does: the card of 500 members, each with records in every shard."""
    members = [Member("train", f"/in/{number}-c.gnt", f"{number}-c.gnt", 20_000_000, "1") for number in range(500)]
    labels = np.packbits(np.ones(3754, bool)).tobytes().hex()
    rows = []
    for shards in (100, 400):
        config = ConvertConfig(num_shards={"train": shards})
        chunks = [
            ChunkReceipt("train", member.name, 0, member.size_bytes, 10 * shards, f"/s/{'0' * 32}", "0" * 32, [])
            for member in members
        ]
        counts = {member.name: {KEPT: 10} for member in members}
        written = [
            ShardReceipt(
                "train", shard, "0" * 32, ShardFile("x" * 32, 1, 1, "0" * 64, "x" * 32, 1, 1, "0" * 64), counts, labels
            )
            for shard in range(shards)
        ]
        build = partial(publish.build_card, members, chunks, written, config)
        rows.append(
            {
                "members": len(members),
                "shards": shards,
                "seconds": round(_median_seconds(build), 3),
                "chunk_receipt_bytes": len(pickle.dumps(chunks[0])),
                "shard_receipt_bytes": len(pickle.dumps(written[0])),
                "card_bytes": len(build().to_json()),
            }
        )
    return rows


if __name__ == "__main__":
    main()
