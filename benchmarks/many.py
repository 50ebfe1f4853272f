"""Many tiny records: rate, and memory of the process that holds most, by number of records.

    python benchmarks/many.py --work FOLDER --records 2000000 --records 20000000
    python benchmarks/many.py --work FOLDER --records 2000000 --tree MAIN     the code of another checkout, in turn

Records of 16 × 16 pixels, as many a member as HWDB's writers wrote characters, half of them outside the class list;
as many shards as records of HWDB's size would have. The samples have 8 × 8 pixels, so that the disk holds them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
from process_tree import measure

from schemas.classes import default_classes

MEMBER_RECORDS = 3_755
_FRAME_BYTES = 4_200  # of HWDB's samples, which the number of shards is that of
_SHARD_BYTES = 64 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for input and output")
    parser.add_argument("--records", type=int, action="append", required=True)
    parser.add_argument("--tree", type=Path, action="append", help="may be repeated (default: this one)")
    parser.add_argument("--verify", action="store_true")
    flags = parser.parse_args()
    for records in flags.records:
        members = round(records / MEMBER_RECORDS)
        source = made(members, flags.work)
        shards = max(1, round(records * _FRAME_BYTES / _SHARD_BYTES))
        for tree in flags.tree or [Path(__file__).resolve().parents[1]]:
            output = flags.work / "out"
            shutil.rmtree(output, ignore_errors=True)
            command = [sys.executable, "-m", "pipeline.convert", f"--input={source}", f"--output={output}"]
            command += [f"--num_shards=train={shards}", "--image_size=8"]
            environment = {**os.environ, "PYTHONPATH": str(tree)}
            done = measure(command, environment)
            counts = json.loads((output / "dataset.json").read_text())["splits"]["train"]["counts"]
            size = f"{counts['read']:,} records, {members:,} members, {shards:,} shards"
            memory = f"largest process {done.largest_bytes / 1e6:,.0f} MB, all {done.tree_bytes / 1e6:,.0f} MB"
            rate = f"{done.seconds:.0f} s, {counts['read'] / done.seconds:,.0f} records/s"
            print(f"{tree.name}: {size}: {rate}, {memory}", flush=True)
            if flags.verify:
                done = measure([sys.executable, "-m", "pipeline.verify", str(output)], environment)
                print(f"  {done.output.strip().splitlines()[-1]} ({done.seconds:.0f} s)", flush=True)
        shutil.rmtree(flags.work / "out")
        shutil.rmtree(source)


def made(members: int, work: Path) -> Path:
    """A folder of so many members, all of them links to one."""
    folder, one = work / f"many-{members}", work / "one.gnt"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    characters = default_classes().characters[: MEMBER_RECORDS // 2]
    tags = [character.encode("gb18030") for character in characters]
    tags += [bytes([0xD8 + number // 94, 0xA1 + number % 94]) for number in range(MEMBER_RECORDS - len(tags))]
    with one.open("wb") as stream:
        for tag in tags:
            pixels = np.where(random.random((16, 16)) < 0.2, 0, 255).astype(np.uint8)
            stream.write(struct.pack("<I2sHH", 10 + 256, tag, 16, 16) + pixels.tobytes())
    for number in range(members):
        os.link(one, folder / f"{number + 10_000}-c.gnt")
    return folder


if __name__ == "__main__":
    main()
