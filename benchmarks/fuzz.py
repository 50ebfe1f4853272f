"""Damaged input: 10,000 mutated files, loose and in zips, through listing, chunking and converting.

    python benchmarks/fuzz.py
    python benchmarks/fuzz.py --files 2000 --gnt ../shared/real/one-writer/9001-c.gnt --json out.json

Of each: does it crash or hang, is every byte accounted for, is every record outside the damage kept? All four figures
must be 0. And how many records does one flipped bit in a header cost?
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import gnt_files
from mutations import KINDS, Damaged, flip_header_bit, is_undecidable, mutate

from pipeline.shards.chunk import convert_records
from pipeline.shards.config import ConvertConfig
from pipeline.shards.rows import OUTCOMES
from pipeline.source import gnt
from pipeline.source.archives import Input, list_members
from pipeline.source.chunks import plan_chunks, read_chunk
from schemas.errors import UserError

RECORDS = 24
HANG_SECONDS = 20
LIMITS = {"MAX_RECORD_BYTES": 70_000, "MAX_DAMAGE_BYTES": 80_000}
"""Of files this small: with the real limits, one window would show the whole file to the planner."""
CHUNK_BYTES = 30_000
PACKINGS = ("gnt", "zip stored", "zip deflated", "damaged zip")
MUST_BE_0 = ("crashes", "hangs", "unaccounted bytes", "lost records")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="mutated files (default: 10,000)")
    parser.add_argument("--gnt", type=Path, help=f"take the first {RECORDS} records of this file (default: drawn here)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    original = _original(arguments.gnt)
    started = time.monotonic()
    tasks = range(arguments.seed, arguments.seed + arguments.files)
    total: Counter[str] = Counter()
    with ProcessPoolExecutor(initializer=_small_limits) as pool:
        for counted in pool.map(partial(_one, original), tasks, chunksize=100):
            total.update(counted)
    figures = {
        "files": arguments.files,
        **{f"of them {packing}": total[packing] for packing in PACKINGS},
        **{name: total[name] for name in MUST_BE_0},
        "records outside the damage": total["whole"],
        "undecidable": total["undecidable"],
        "damaged zips refused in one line": total["refused"],
        "records lost by one flipped header bit, on average": _header_bit_cost(original),
        "seconds": round(time.monotonic() - started, 1),
        "cores": os.cpu_count(),
    }
    for name, value in figures.items():
        print(f"{name:52} {value:>12,}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(any(total[name] for name in MUST_BE_0))


def _original(path: Path | None) -> bytes:
    if path is None:
        return gnt_files.member(gnt_files.records_of("啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按暗岸胺案"[:RECORDS]))
    return gnt_files.member([(tag, bitmap) for _, tag, bitmap in gnt_files.parse(path.read_bytes())[:RECORDS]])


def _small_limits() -> None:
    for name, value in LIMITS.items():
        setattr(gnt, name, value)
    gnt.LOOKAHEAD_BYTES = gnt.MAX_DAMAGE_BYTES + gnt.CHAIN_LENGTH * gnt.MAX_RECORD_BYTES + gnt.HEADER_BYTES

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, give_up)


def _one(original: bytes, seed: int) -> Counter[str]:
    """One mutated file, from the listing to the rows."""
    rng = random.Random(seed)
    kind, packing = KINDS[seed % len(KINDS)], PACKINGS[seed // len(KINDS) % len(PACKINGS)]
    counted: Counter[str] = Counter({packing: 1})
    signal.alarm(HANG_SECONDS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            if packing == "damaged zip":
                counted.update(_damaged_zip(original, rng, Path(folder)))
            else:
                damaged = mutate(original, kind, rng, most_bytes=30_000)
                counted.update(_lost(damaged, _rows(_write(Path(folder), damaged.data, packing), folder)))
    except TimeoutError:
        counted["hangs"] += 1
        print(f"seed {seed}: {kind}, {packing}: hangs")
    except Exception as error:  # whatever it is, it is a crash
        counted["crashes"] += 1
        print(f"seed {seed}: {kind}, {packing}: {type(error).__name__}: {error}")
    finally:
        signal.alarm(0)
    if counted["lost records"] or counted["unaccounted bytes"]:
        print(f"seed {seed}: {kind}, {packing}: loses something")
    return counted


def _write(folder: Path, data: bytes, packing: str) -> Path:
    if packing == "gnt":
        path = folder / "1001-c.gnt"
        path.write_bytes(data)
        return path
    method = zipfile.ZIP_STORED if packing == "zip stored" else zipfile.ZIP_DEFLATED
    return gnt_files.write_zip(folder / "a.zip", {"1001-c.gnt": data}, method)


def _rows(path: Path, folder: str) -> list[tuple[int, int, str]]:
    """(offset, size, status) of every row that the conversion makes of the only member."""
    config = ConvertConfig(num_shards={"train": 1})
    (member,) = list_members([Input("train", str(path))], 0)
    rows: list[tuple[int, int, str]] = []
    for chunk in plan_chunks(member, folder, CHUNK_BYTES):
        for part in convert_records(read_chunk(chunk), chunk, config):
            status = [OUTCOMES[outcome][0] for outcome in part.rows["outcome"].tolist()]
            place = [part.rows[name].tolist() for name in ("source_offset", "source_bytes")]
            rows += zip(*place, status, strict=True)
    return rows


def _lost(damaged: Damaged, rows: list[tuple[int, int, str]]) -> Counter[str]:
    counted: Counter[str] = Counter(whole=len(damaged.whole))
    at = 0
    for offset, size, _ in rows:
        counted["unaccounted bytes"] += abs(offset - at)
        at = offset + size
    counted["unaccounted bytes"] += abs(len(damaged.data) - at)
    kept = [(offset, size) for offset, size, status in rows if status == "kept"]
    for offset, record in damaged.whole.items():
        if (offset, len(record)) not in kept:
            counted["undecidable" if is_undecidable(kept, damaged, offset) else "lost records"] += 1
    return counted


def _damaged_zip(original: bytes, rng: random.Random, folder: Path) -> Counter[str]:
    """A zip with bits flipped, bytes inserted or deleted: refused in one line, or read as if nothing had happened."""
    method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    path = gnt_files.write_zip(folder / "a.zip", {"1001-c.gnt": original}, method)
    content = bytearray(path.read_bytes())
    at = rng.randrange(rng.choice([0, len(content) - 120]), len(content))
    action = rng.randrange(4)
    if action == 0:
        content[at] ^= 1 << rng.randrange(8)
    elif action == 1:
        del content[at:]
    elif action == 2:
        del content[at : at + rng.randint(1, 100)]
    else:
        content[at:at] = rng.randbytes(rng.randint(1, 100))
    path.write_bytes(content)
    try:
        rows = _rows(path, str(folder))
    except UserError:
        return Counter(refused=1)
    whole = {offset: original[offset : offset + 10 + bitmap.size] for offset, _, bitmap in gnt_files.parse(original)}
    return _lost(Damaged("zip", original, whole), rows)


def _header_bit_cost(original: bytes) -> float:
    """Records that are gone, of all bits of all headers flipped one at a time."""
    whole = _sound(gnt.walk(original))
    costs = [
        len(whole - _sound(gnt.walk(flip_header_bit(original, record, bit))))
        for record in range(len(whole))
        for bit in range(8 * gnt.HEADER_BYTES)
    ]
    return round(sum(costs) / len(costs), 3)


def _sound(records: gnt.Records) -> set[tuple[int, int, int]]:
    """(offset, width, height): a flipped bit in the tag costs no record, but its label."""
    columns = (records.offset.tolist(), records.width.tolist(), records.height.tolist(), records.fault)
    return {(offset, width, height) for offset, width, height, fault in zip(*columns, strict=True) if not fault}


if __name__ == "__main__":
    main()
