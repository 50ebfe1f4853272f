"""Whole conversions of hostile input, every process of them within what docs/convert.md promises."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from places import ROOT

from schemas.dataset import Card, read_card

pytestmark = [pytest.mark.slow, pytest.mark.engine]

MOST_BYTES = 512 << 20
POLL_SECONDS = 0.02
TWO_WORKERS = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


def record(width: int, height: int, pixels: bytes) -> bytes:
    return struct.pack("<I2sHH", 10 + width * height, b"\xb0\xa1", width, height) + pixels


GOOD = record(40, 40, bytes([255] * 800 + [0] * 800))
TINY = record(1, 1, b"\0")
TINY_RECORDS = 2_000_000
"""Which would hold a gigabyte, were a shard sorted in memory."""


def stored(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def tiny_records(folder: Path) -> None:
    stored(folder / "a.zip", {"1001-c.gnt": GOOD * 100 + TINY * TINY_RECORDS})


def several_zips_of_them(folder: Path) -> None:
    for number in range(3):
        content = GOOD * 100 + TINY * (TINY_RECORDS // 4)
        stored(folder / f"{number}.zip", {f"{1001 + number}-c.gnt": content})


def empty_records(folder: Path) -> None:
    stored(folder / "a.zip", {"1001-c.gnt": GOOD * 100 + record(0, 0, b"") * TINY_RECORDS})


def long_names(folder: Path) -> None:
    content = GOOD * 100 + TINY * 100_000
    stored(folder / "a.zip", {f"{number}{'x' * 240}-c.gnt": content for number in range(4)})


def many_samples_of_two_pixels(folder: Path) -> None:
    stored(folder / "a.zip", {"1001-c.gnt": record(2, 1, b"\0\xff") * 60_000})


def largest_claims(folder: Path) -> None:
    largest = record(2047, 2047, bytes(2047 * 1024) + b"\xff" * (2047 * 1023))
    claims = struct.pack("<I2sHH", 0xFFFE000B, b"\xb0\xa1", 0xFFFF, 0xFFFF) + b"\xff" * 1_000
    stored(folder / "a.zip", {"1001-c.gnt": GOOD * 100 + largest * 20 + claims + GOOD * 100})


def many_members(folder: Path) -> None:
    stored(folder / "a.zip", {f"{number}-c.gnt": GOOD for number in range(1_000)})


def deep_zip(folder: Path) -> None:
    # Nearly two hundred times its size, which is as deep as a zip may be.
    noise = os.urandom(2 << 20)
    content = GOOD * 100 + record(2000, 2000, b"\xff" * 2_000_000 + bytes(2_000_000)) * 60 + noise
    stored(folder / "a.zip", {"1001-c.gnt": content}, zipfile.ZIP_DEFLATED)


def converted(folder: Path, *flags: str) -> tuple[Card, int]:
    """The card, and the peak of resident memory of the process that held most."""
    command = [sys.executable, "-m", "pipeline.convert", f"--input={folder}/in", f"--output={folder}/out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command += ["--max_reject_fraction=1", *flags]
    with (
        open(folder / "log", "w+") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        root, peak = psutil.Process(process.pid), 0
        while process.poll() is None:
            try:
                sizes = [one.memory_info().rss for one in (root, *root.children(recursive=True))]
            except psutil.Error:  # one has just ended
                continue
            peak = max(peak, *sizes)
            try:
                process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        log.seek(0)
        assert process.returncode == 0, log.read()
    return read_card(folder / "out"), peak


@pytest.mark.parametrize(
    ("make", "flags", "records"),
    [
        (tiny_records, TWO_WORKERS, TINY_RECORDS + 100),
        (several_zips_of_them, ("--direct_running_mode=in_memory",), 3 * (TINY_RECORDS // 4 + 100)),
        (empty_records, TWO_WORKERS, None),
        (long_names, TWO_WORKERS, 4 * 100_100),
        (many_samples_of_two_pixels, (*TWO_WORKERS, "--image_size=16"), 60_000),
        (largest_claims, (*TWO_WORKERS, "--image_size=1024"), None),
        (many_members, TWO_WORKERS, 1_000),
        (deep_zip, TWO_WORKERS, None),
    ],
)
def test_a_process_stays_within_its_bound(
    tmp_path: Path, make: Callable[[Path], None], flags: tuple[str, ...], records: int | None
) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    card, peak = converted(tmp_path, "--num_shards=train=1", *flags)
    counts = card.splits["train"].counts
    print(f"{make.__name__} {' '.join(flags)}: {counts.read:,} records, {peak / 2**20:.0f} MiB")
    assert records in (None, counts.read)
    assert peak < MOST_BYTES
