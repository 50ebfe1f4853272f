"""verify: nothing to say of an intact data set, and something, with the file's name, of any other."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import pytest
from commands import converted, inputs
from damaged import edit_rows, findings, kept_rows, part, reseal, set_at, shard, write_crc

from pipeline import verify
from pipeline.verify.check import check_dataset
from pipeline.verify.crc import find_changed_byte
from schemas.dataset import CARD


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_an_intact_set_has_no_findings(intact: Path, intact_png: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (intact, intact_png):
        capsys.readouterr()
        assert verify.main([str(folder)]) == 0
        out, err = capsys.readouterr()
        assert re.fullmatch(rf"{folder}: intact; 63 records in 3 shards, [\d,]+ bytes, .*\n  the archives .*\n", out)
        assert err == ""


def test_it_runs_in_processes_and_as_a_command(intact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.verify.check.SMALL_BYTES", 0)
    assert check_dataset(str(intact), 2).findings == []
    ran = subprocess.run([sys.executable, "-m", "pipeline.verify", intact], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_every_single_byte_change_is_found_in_its_file(intact: Path, intact_png: Path, tmp_path: Path) -> None:
    rng = random.Random(7)
    for number, folder in enumerate((intact, intact_png)):
        copy = Path(shutil.copytree(folder, tmp_path / f"{number}"))
        # Small files as often as large ones, and the card most of all.
        paths = [*files_of(copy), *[copy / CARD] * 6]
        for path in [*paths, *rng.choices(paths, k=max(0, 34 - len(paths)))]:
            before = path.read_bytes()
            at = rng.randrange(len(before))
            changed = bytearray(before)
            changed[at] ^= rng.randrange(1, 256)
            path.write_bytes(changed)
            named = {line.partition(":")[0] for line in findings(copy)}
            assert str(path.relative_to(copy)) in named, f"{path.name}, byte {at}: {before[at]} -> {changed[at]}"
            path.write_bytes(before)
        assert findings(copy) == []


def test_the_changed_byte_is_named(dataset: Path) -> None:
    row = kept_rows(dataset)[3]
    at = int(row["shard_offset"]) + 12 + 500
    content = bytearray(shard(dataset).read_bytes())
    belongs = content[at]
    content[at] ^= 0x41
    shard(dataset).write_bytes(content)
    (line,) = [line for line in findings(dataset) if "record 3" in line]
    assert line.startswith(f"{shard(dataset).name}: record 3 at byte {row['shard_offset']:,} ({row['sample_id']}): ")
    assert f"byte {at:,} is {belongs ^ 0x41}, {belongs} belongs there" in line


@pytest.mark.parametrize(
    ("place", "says"),
    [(0, "the frame's length"), (8, "CRC of the length"), (-1, "CRC of the Example")],
)
def test_a_damaged_frame_is_named(dataset: Path, place: int, says: str) -> None:
    row = kept_rows(dataset)[2]
    at = int(row["shard_offset"]) + place % int(row["shard_bytes"])
    content = bytearray(shard(dataset).read_bytes())
    content[at] ^= 1
    shard(dataset).write_bytes(content)
    (line,) = [line for line in findings(dataset) if "record 2" in line]
    assert f"byte {at:,} is wrong, in " in line
    assert says in line


def test_without_rows_the_frames_are_walked_by_themselves(dataset: Path) -> None:
    row = kept_rows(dataset)[5]
    content = bytearray(shard(dataset).read_bytes())
    content[int(row["shard_offset"]) + 300] ^= 1
    shard(dataset).write_bytes(content)
    part(dataset).write_bytes(b"PAR1 is no manifest PAR1")
    found = "\n".join(findings(dataset))
    assert f"{shard(dataset).name}: record 5 at byte {row['shard_offset']:,}: expected an Example that fits" in found
    assert f"manifest/{part(dataset).name}: expected SHA-256" in found


def test_swapped_records(dataset: Path) -> None:
    rows = kept_rows(dataset)
    at = next(i for i in range(len(rows)) if rows[i]["shard_bytes"] == rows[i + 1]["shard_bytes"])
    a, b = rows[at : at + 2]
    content = shard(dataset).read_bytes()

    def frame(row: dict[str, object]) -> bytes:
        return content[int(row["shard_offset"]) : int(row["shard_offset"]) + int(row["shard_bytes"])]

    swapped = content.replace(frame(a) + frame(b), frame(b) + frame(a))
    assert swapped != content
    shard(dataset).write_bytes(swapped)
    reseal(dataset)
    found = findings(dataset)
    assert len(found) == 2
    assert all(re.search(rf"record ({at}|{at + 1}) at byte .*found a sound one", line) for line in found)


def test_an_example_that_fits_its_crc_but_not_its_row(dataset: Path) -> None:
    rows, content = kept_rows(dataset), bytearray(shard(dataset).read_bytes())
    begin, end = int(rows[0]["shard_offset"]) + 12, int(rows[0]["shard_offset"]) + int(rows[0]["shard_bytes"]) - 4
    content[end - 1] ^= 1  # the last digit of the sample_id
    crc = write_crc(content, begin, end)
    shard(dataset).write_bytes(content)
    edit_rows(dataset, set_at("shard_crc32c", crc))
    reseal(dataset)
    (line,) = findings(dataset)
    assert f"expected the Example of {rows[0]['sample_id']} with label {rows[0]['label']}, found other features" in line


def test_a_missing_shard(dataset: Path) -> None:
    shard(dataset).unlink()
    (line,) = findings(dataset)
    assert line.startswith(f"{shard(dataset).name}: expected a file of ")
    assert "found none; restore the file" in line


def test_a_truncated_shard(dataset: Path) -> None:
    content, last = shard(dataset).read_bytes(), kept_rows(dataset)[-1]
    shard(dataset).write_bytes(content[:-100])
    (line,) = [line for line in findings(dataset) if "record " in line]
    assert f"record {last['shard_index']} at byte {last['shard_offset']:,}" in line
    assert "1 records are missing" in line


def test_bytes_behind_the_last_record(dataset: Path) -> None:
    shard(dataset).write_bytes(shard(dataset).read_bytes() + b"\0" * 20)
    line = findings(dataset)[-1]
    assert "found 20 bytes that no row points to" in line


def test_an_unknown_file(dataset: Path) -> None:
    (dataset / "manifest" / "train-00007-of-00009.parquet").write_bytes(b"")
    (line,) = findings(dataset)
    assert line.startswith("manifest/train-00007-of-00009.parquet: expected only what the card lists")


def test_kept_staging_is_no_finding(sources: Path, tmp_path: Path) -> None:
    assert findings(converted(tmp_path / "out", *inputs(sources), "--max_reject_fraction=0.1", "--keep_staging")) == []


@pytest.mark.parametrize("flags", [["--all"], ["--processes=0"], ["--against"], ["--sample=0"], ["--smaple=3"]])
def test_bad_flags_are_one_line(intact: Path, flags: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(intact), *flags]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_changed_byte_follows_from_the_crc() -> None:
    rng = random.Random(3)
    for size in (1, 2, 50, 4000):
        data = rng.randbytes(size)
        at, belongs = rng.randrange(size), 0
        belongs = data[at]
        changed = bytearray(data)
        changed[at] ^= rng.randrange(1, 256)
        assert find_changed_byte(bytes(changed), google_crc32c.value(data)) == (at, belongs)
    assert find_changed_byte(b"", 5) is None
