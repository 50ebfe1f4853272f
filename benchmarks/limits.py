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
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import apache_beam as beam
import numpy as np
from apache_beam import pvalue
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from process_tree import measure

from pipeline.convert.options import Settings
from pipeline.shards import publish
from pipeline.shards.chunk import convert_records
from pipeline.shards.config import ConvertConfig
from pipeline.shards.shard import ShardReceipt
from pipeline.shards.slices import Bins, Edges, StagedPart, _read_edges, read_slices, write_parts
from pipeline.shards.staging import ChunkReceipt
from pipeline.source.archives import Input, list_members
from pipeline.source.chunks import CHUNK_BYTES, count_windows, plan_chunks, probe
from pipeline.source.members import Member
from schemas.dataset import Card, ShardFile
from schemas.manifest import KEPT

SHARDS = (16, 64, 256, 1024, 4096, 16384)
SIZES = (1_200_000, 3_900_000, 30_000_000, 100_000_000, 1_000_000_000)
_RECORD_BYTES = 5_000  # of CASIA's, on average
_FRAME_BYTES = 4_200  # of a raw image of 64 x 64
_REPEATS = 3
_COPIES = 200  # chunks that a shard has a slice in


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
    """Of the processor: others may be at work."""
    seconds = []
    for _ in range(_REPEATS):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def _listing(work: Path) -> dict[str, float]:
    """Members a second, of a local folder of 20,000 files."""
    (work / "many").mkdir()
    for number in range(20_000):
        (work / "many" / f"{number + 10_000}-c.gnt").write_bytes(b"\0" * 16)
    seconds = _median_seconds(lambda: list_members([Input("train", str(work / "many"))], 0))
    return {"members_per_second": round(20_000 / seconds)}


def _planning(files: list[Path], work: Path) -> dict[str, float]:
    """The walk over one large member: a 400 MB file of real headers; probing a window of it, and joining them all."""
    data = b"".join(path.read_bytes() for path in files)
    copies = max(1, 400_000_000 // len(data))
    large = work / "large.gnt"
    large.write_bytes(data * copies)
    (member,) = list_members([Input("train", str(large))], 0)
    serial = _median_seconds(lambda: list(plan_chunks(member, str(work))))
    numbers = range(count_windows(member))
    probing = _median_seconds(lambda: [probe(member, number) for number in numbers])
    windows = {number: probe(member, number) for number in numbers}
    joining = _median_seconds(lambda: list(plan_chunks(member, str(work), windows=windows)))
    assert list(plan_chunks(member, str(work), windows=windows)) == list(plan_chunks(member, str(work)))
    return {
        "mb_per_second": round(large.stat().st_size / 1e6 / serial),
        "probing_mb_per_second": round(large.stat().st_size / 1e6 / probing),
        "joining_ms_per_window": round(joining / len(numbers) * 1e3, 3),
    }


def _staging(path: Path, work: Path) -> list[dict[str, float]]:
    """One chunk, staged for ever more shards: its size, the time to write it, the time to read a shard's slice."""
    (member,) = list_members([Input("train", str(path))], 0)
    data = path.read_bytes()
    rows = []
    for shards in SHARDS:
        config = ConvertConfig(num_shards={"train": shards})
        (chunk,) = plan_chunks(member, str(work))
        parts = list(convert_records(data, chunk, config))
        file = str(work / f"chunk-{shards}")
        written = _median_seconds(partial(write_parts, file, parts, Bins(shards, 0, shards)))
        edges, copies = write_parts(file, parts, Bins(shards, 0, shards)), [f"{file}-{i}" for i in range(_COPIES)]
        for copy in copies:
            os.link(file, copy)
        staged = [StagedPart(copy, at, source) for source, copy in enumerate(copies) for at in edges]
        held = Edges()
        _read_some(staged, range(1), shards, held)
        read = _median_seconds(partial(_read_some, staged, range(0, shards, shards // 8), shards, held)) / 8 / _COPIES
        by_twos = _median_seconds(partial(_edges_by_twos, staged, shards)) / _COPIES
        rows.append(
            {
                "shards": shards,
                "records": sum(map(len, parts)),
                "file_bytes": os.path.getsize(file),
                "write_seconds": round(written, 4),
                "read_ms_per_slice": round(read * 1e3, 3),
                "edges_ms_per_slice": round(by_twos * 1e3, 3),
            }
        )
    return rows


def _read_some(staged: list[StagedPart], some: range, shards: int, edges: Edges) -> None:
    for one in some:
        read_slices(edges.slices(staged, one, shards))


def _edges_by_twos(staged: list[StagedPart], shards: int) -> None:
    """Where there is no room for all edges of all chunks."""
    for part in staged:
        _read_edges((part, 16 * (shards // 2), 2))


def _matrix(records: int) -> dict[str, float]:
    """By arithmetic: the slices that the chunks of so many records are cut into, and how many rows each has."""
    shards = max(1, round(records * _FRAME_BYTES / Settings.target_shard_bytes))
    chunks = math.ceil(records / (CHUNK_BYTES // _RECORD_BYTES))
    slices = chunks * shards
    return {
        "records": records,
        "chunks": chunks,
        "shards": shards,
        "slices": slices,
        "rows_per_slice": round(records / slices, 1),
        "edges_gb": round(slices * 16 / 1e9, 2),
    }


def _references() -> dict[str, float]:
    """Receipts of chunks at the side of a stage in DirectRunner, in this process, and the bytes of one."""

    def run(count: int) -> float:
        began = time.process_time()
        with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as root:
            receipts = root | beam.Create(range(count // 1000)) | beam.FlatMap(_thousand_receipts)
            _ = root | "Shards" >> beam.Create([0]) | beam.Map(lambda _, given: len(given), pvalue.AsList(receipts))
        return time.process_time() - began

    small, large = run(1000), statistics.median(run(101_000) for _ in range(_REPEATS))
    one = len(pickle.dumps(_thousand_receipts(0)[0]))
    return {"microseconds_each": round((large - small) / 100_000 * 1e6, 1), "bytes_each": one}


def _thousand_receipts(number: int) -> list[ChunkReceipt]:
    counts = {KEPT: 3_754, "dropped outside_class_set": 23}
    path = f"/staging/conversion-{number:032x}/chunk-{number:032x}-3.rows"
    return [
        ChunkReceipt("train", f"{i}-c.gnt", "a.zip", 0, 10**7, counts, i << 54, path, f"{i:032x}", [10**7], f"{i:032x}")
        for i in range(1000)
    ]


def _publish() -> dict[str, float]:
    """What the one key of Publish gets and does: the card of 10,000 members in as many shards."""
    count = 10_000
    members = [Member("train", f"/in/{i}-c.gnt", f"{i}-c.gnt", 20_000_000, "1") for i in range(count)]
    config = ConvertConfig(num_shards={"train": count})
    labels = np.packbits(np.ones(3754, bool)).tobytes().hex()
    sha256 = "0" * 64

    def chunk(i: int) -> ChunkReceipt:
        return ChunkReceipt("train", f"{i}-c.gnt", "in", 0, 10**7, {KEPT: 10}, i, f"/s/{i:064x}", f"{i:032x}", [i])

    def shard(i: int) -> ShardReceipt:
        file = ShardFile(f"{i:032x}", 10, 10**7, f"{i:064x}", f"{i:032x}", 10, 10**6, sha256)
        return ShardReceipt("train", i, f"{i:032x}", f"{i:032x}", file, {KEPT: 10}, i, labels)

    sent = [[pickle.dumps(one(i)) for i in range(count)] for one in (chunk, shard)]
    tracemalloc.start()
    publish.build_card(members, *([pickle.loads(one) for one in some] for some in sent), config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    def build() -> Card:
        return publish.build_card(members, *([pickle.loads(one) for one in some] for some in sent), config)

    return {
        "members": count,
        "shards": count,
        "seconds": round(_median_seconds(build), 3),
        "peak_bytes_per_member_and_shard": round(peak / count),
        "chunk_receipt_bytes": len(sent[0][0]),
        "shard_receipt_bytes": len(sent[1][0]),
        "card_bytes": len(build().to_json()),
    }


if __name__ == "__main__":
    main()
