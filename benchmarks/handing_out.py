"""How idle many workers are, by how work is given to them: a simulation from measured times of chunks and shards.

    python benchmarks/handing_out.py --workers 96 --chunks 300 --shards 73        HWDB1.1

Processor time of `convert_chunk` and `write_shard` on what pipeline.sample draws, writer by writer; then as many pieces
as asked for take times drawn from those. Beam deals them beforehand; we hand them out as workers come free.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from process_tree import measure

from pipeline.shards.chunk import convert_chunk
from pipeline.shards.config import ConvertConfig
from pipeline.shards.shard import write_shard
from pipeline.source.archives import Input, list_members
from pipeline.source.chunks import plan_chunks

_ROUNDS = 200
Made = TypeVar("Made")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=96)
    parser.add_argument("--chunks", type=int, default=300)
    parser.add_argument("--shards", type=int, default=73)
    parser.add_argument("--sample", type=Path, help="what pipeline.sample drew (default: drawn)")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="handing-out-benchmark-") as work:
        sample = flags.sample or Path(work) / "sample"
        if not flags.sample:
            measure(
                [sys.executable, "-m", "pipeline.sample", f"--output={sample}", "--writers=12", "--characters=3755"]
            )
        chunk_seconds, shard_seconds = _measured(sample, work)
    for name, seconds, count in (("chunks", chunk_seconds, flags.chunks), ("shards", shard_seconds, flags.shards)):
        mean, spread = statistics.mean(seconds), statistics.stdev(seconds)
        print(f"{count} {name}, measured {mean:.3f} s ± {spread / mean:.0%}, {flags.workers} workers:")
        for how, share in _simulated(seconds, count, flags.workers).items():
            print(f"  {how:<32} {share:.1%} idle")


def _measured(sample: Path, work: str) -> tuple[list[float], list[float]]:
    shards = 16
    config = ConvertConfig(num_shards={"train": shards})
    members = list_members([Input("train", str(sample))], 0)
    chunks = [chunk for member in members for chunk in plan_chunks(member, work)]
    convert_chunk(chunks[0], config, f"{work}/warm")  # compiles
    timed = [_timed(lambda chunk=chunk: convert_chunk(chunk, config, work)) for chunk in chunks]
    staged = [receipt for receipt, _ in timed]
    write_shard("train", 0, staged, config, f"{work}/warm", f"{work}/warm")
    written = [
        _timed(lambda shard=shard: write_shard("train", shard, staged, config, work, work)) for shard in range(shards)
    ]
    return [seconds for _, seconds in timed], [seconds for _, seconds in written]


def _timed(call: Callable[[], Made]) -> tuple[Made, float]:
    began = time.process_time()
    made = call()
    return made, time.process_time() - began


def _simulated(seconds: Sequence[float], count: int, workers: int) -> dict[str, float]:
    """The share of the workers' time until the last one ends in which they have nothing to do; means."""
    random.seed(1)
    idle: dict[str, list[float]] = {}
    for _ in range(_ROUNDS):
        pieces = random.choices(seconds, k=count)
        ends = {
            "dealt beforehand": max(sum(pieces[worker::workers]) for worker in range(workers)),
            "as they come free": _greedy(pieces, workers),
            "as they come free, largest first": _greedy(sorted(pieces, reverse=True), workers),
        }
        for how, end in ends.items():
            idle.setdefault(how, []).append(1 - sum(pieces) / (workers * end))
    return {how: statistics.mean(shares) for how, shares in idle.items()}


def _greedy(pieces: Sequence[float], workers: int) -> float:
    free = [0.0] * workers
    for piece in pieces:
        heapq.heapreplace(free, free[0] + piece)
    return max(free)


if __name__ == "__main__":
    main()
