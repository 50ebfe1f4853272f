"""The conversion as a plain multiprocessing script: the same per-chunk and per-shard functions, no Beam.

It is the yardstick for what Beam costs; it has no retry, no resume, no cluster and no card.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from dataclasses import replace
from functools import partial

from pipeline.shards import packing
from pipeline.shards.chunk import convert_chunk
from pipeline.shards.config import ConvertConfig
from pipeline.shards.shard import write_shard
from pipeline.shards.staging import clear
from pipeline.shards.tfrecord import layout
from pipeline.source.archives import Input, list_members
from pipeline.source.chunks import plan_chunks
from pipeline.steps import kernels


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--num_shards", type=int, required=True)
    arguments = parser.parse_args()
    staging = os.path.join(arguments.output, "_staging")
    config = replace(ConvertConfig(), num_shards={"train": arguments.num_shards})
    members = list_members([Input("train", arguments.input)], 0)
    chunks = [chunk for member in members for chunk in plan_chunks(member, staging)]
    assert not kernels.KERNELS.failure()  # loaded before the processes are forked, as in the pipeline
    assert not packing.KERNELS.failure()
    assert not layout.KERNELS.failure()
    with multiprocessing.Pool() as pool:
        convert = partial(convert_chunk, config=config, staging_folder=staging)
        staged = list(pool.imap_unordered(convert, chunks))
        jobs = [("train", shard, staged, config, arguments.output, staging) for shard in range(arguments.num_shards)]
        kept = sum(shard.file.records for shard in pool.starmap(write_shard, jobs, chunksize=1))
    clear(staging)
    print(f"{sum(receipt.records for receipt in staged):,} records")
    print(f"{kept:,} records kept")


if __name__ == "__main__":
    main()
