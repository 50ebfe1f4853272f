"""verify: nothing to say of an intact data set, and something, with the file's name, of any other."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import gnt_files
import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import convert, verify
from pipeline.shards.publish import side_files
from pipeline.shards.shard import _write_parquet
from pipeline.verify.card import check_card
from pipeline.verify.check import check_dataset
from pipeline.verify.crc import find_changed_byte
from pipeline.verify.ledger import tally_rows
from schemas.classes import default_classes
from schemas.dataset import CARD, Card, DamagedCard, parse_card, read_card
from schemas.example import FORMAT_VERSION
from schemas.manifest import MANIFEST_SCHEMA

CHARACTERS = "啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按硷"
Edit = Callable[[dict[str, list[object]]], None]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two writers for training, one of them with a broken header, and one for testing."""
    folder = tmp_path_factory.mktemp("sources")
    for split, writers in (("train", (1001, 1002)), ("test", (1241,))):
        (folder / split).mkdir()
        for writer in writers:
            data = bytearray(gnt_files.member(gnt_files.records_of(CHARACTERS, seed=writer)))
            if writer == 1002:
                data[gnt_files.parse(bytes(data))[7][0]] ^= 1
            (folder / split / f"{writer}-c.gnt").write_bytes(data)
    return folder


def converted(sources: Path, output: Path, *flags: str) -> Path:
    inputs = [f"--input=train={sources}/train", f"--input=test={sources}/test"]
    allowed = ["--num_shards=train=2", "--max_reject_fraction=0.1"]
    assert convert.main(["--runner=DirectRunner", *inputs, f"--output={output}", *allowed, *flags]) == 0
    return output


@pytest.fixture(scope="module")
def intact(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(sources, tmp_path_factory.mktemp("intact") / "out")


@pytest.fixture(scope="module")
def intact_png(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(sources, tmp_path_factory.mktemp("intact-png") / "out", "--image_encoding=png")


@pytest.fixture
def dataset(intact: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(intact, tmp_path / "out"))


def findings(folder: Path) -> list[str]:
    return [str(finding) for finding in check_dataset(str(folder), 1).findings]


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def reseal(folder: Path, edit: Callable[[Card], Card] = lambda card: card) -> None:
    """The card again, with the sizes and digests that the files have now: what remains are the deeper checks."""
    import hashlib

    def described(path: str) -> tuple[int, str]:
        content = (folder / path).read_bytes()
        return len(content), hashlib.sha256(content).hexdigest()

    card = read_card(folder)
    splits = {}
    for name, split in card.splits.items():
        shards = []
        for shard in split.shards:
            (size, digest), (rows_size, rows_digest) = described(shard.path), described(shard.manifest_path)
            shards.append(
                replace(shard, bytes=size, sha256=digest, manifest_bytes=rows_size, manifest_sha256=rows_digest)
            )
        splits[name] = replace(split, shards=shards)
    (folder / CARD).write_text(edit(replace(card, splits=splits)).to_json())


def part(folder: Path) -> Path:
    return folder / "manifest" / "train-00000-of-00002.parquet"


def shard(folder: Path) -> Path:
    return folder / "train-00000-of-00002.tfrecord"


def kept_rows(folder: Path) -> list[dict[str, object]]:
    return [row for row in pq.read_table(part(folder)).to_pylist() if row["status"] == "kept"]


def edit_rows(folder: Path, edit: Edit) -> None:
    columns = pq.read_table(part(folder)).to_pydict()
    edit(columns)
    _write_parquet(str(part(folder)), pa.table(columns, MANIFEST_SCHEMA))


def first(columns: dict[str, list[object]], status: str) -> int:
    return columns["status"].index(status)


def change_picture(folder: Path) -> None:
    """Resealed, every digest and CRC fits: only the archive knows better."""
    row, content = kept_rows(folder)[0], bytearray(shard(folder).read_bytes())
    begin = int(row["shard_offset"]) + 12
    end = begin - 16 + int(row["shard_bytes"])
    content[begin + 1000] ^= 0xFF
    crc = google_crc32c.value(bytes(content[begin:end]))
    struct.pack_into("<I", content, end, ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
    shard(folder).write_bytes(content)
    edit_rows(folder, set_at("shard_crc32c", crc))


def test_an_intact_set_has_no_findings(intact: Path, intact_png: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (intact, intact_png):
        capsys.readouterr()
        assert verify.main([str(folder)]) == 0
        out, err = capsys.readouterr()
        assert re.fullmatch(rf"{folder}: intact; 63 records in 3 shards, [\d,]+ bytes, .*\n", out)
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
    crc = google_crc32c.value(bytes(content[begin:end]))
    struct.pack_into("<I", content, end, ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
    shard(dataset).write_bytes(content)

    def edit(columns: dict[str, list[object]]) -> None:
        columns["shard_crc32c"][first(columns, "kept")] = crc

    edit_rows(dataset, edit)
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
    assert findings(converted(sources, tmp_path / "out", "--keep_staging")) == []


def duplicate(columns: dict[str, list[object]]) -> None:
    at = first(columns, "dropped")
    for values in columns.values():
        values.insert(at, values[at])


def lose(columns: dict[str, list[object]]) -> None:
    at = first(columns, "dropped")
    for values in columns.values():
        del values[at]


def set_at(name: str, value: object, status: str = "kept") -> Edit:
    def edit(columns: dict[str, list[object]]) -> None:
        columns[name][first(columns, status)] = value

    return edit


def point_elsewhere(columns: dict[str, list[object]]) -> None:
    kept = [i for i, status in enumerate(columns["status"]) if status == "kept"]
    for name in ("shard_index", "shard_offset", "shard_bytes", "shard_crc32c"):
        values = columns[name]
        values[kept[0]], values[kept[1]] = values[kept[1]], values[kept[0]]


def turn_around(columns: dict[str, list[object]]) -> None:
    for values in columns.values():
        values.reverse()


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (duplicate, "expected every sample_id once"),
        (lose, "expected {'"),
        (point_elsewhere, "expected shard_index 0, found 1"),
        (turn_around, "expected rows in the order of their keys"),
        (set_at("label", 3753), "expected label "),
        (set_at("char", "硷"), "expected char "),
        (set_at("tag", "B0A1"), "expected a tag in hex, found 'B0A1'"),
        (set_at("writer", "somebody"), "expected writer '100"),
        (set_at("archive", "other.zip"), "expected archive '100"),
        (set_at("member", "other.gnt"), "expected a member that is on the card"),
        (set_at("split", "test"), "expected split 'train', found 'test'"),
        (set_at("sample_id", "train/1001-c.gnt/999"), "expected sample_id "),
        (set_at("record_index", 4_000_000_000), "expected sample_id "),
        (set_at("status", "lost"), "expected a status with one of its reasons"),
        (set_at("reason", "because", "dropped"), "expected a status with one of its reasons"),
        (set_at("width", 7), "by its width and height"),
        (set_at("height", None), "expected height given"),
        (set_at("crop_width", 60_000), "expected a crop in the bitmap"),
        (set_at("crop_x", None), "expected crop_x given"),
        (set_at("ink_fraction", 1.5), "expected an ink_fraction"),
        (set_at("bitmap_digest", None), "bitmap_digest of a kept record"),
        (set_at("shard", "test-00000-of-00001.tfrecord"), "expected shard train-00000-of-00002.tfrecord"),
        (set_at("shard_crc32c", 5, "dropped"), "expected shard_crc32c empty, found 5"),
        (set_at("source_offset", 1), "belong to no row"),
    ],
)
def test_a_wrong_row_is_found_however_good_the_digests_are(dataset: Path, edit: Edit, says: str) -> None:
    edit_rows(dataset, edit)
    reseal(dataset)
    found = findings(dataset)
    assert any(says in line for line in found), found
    assert all(len(line.splitlines()) == 1 for line in found)


def recount(**counts: int) -> Callable[[Card], Card]:
    def edit(card: Card) -> Card:
        entry = card.inputs[0]
        return replace(card, inputs=[replace(entry, counts=replace(entry.counts, **counts)), *card.inputs[1:]])

    return edit


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (recount(kept=3), "expected read = kept + dropped + rejected"),
        (recount(kept=19, read=20), "expected the counts to be the sum"),
        (
            lambda card: replace(card, inputs=[replace(card.inputs[0], bytes=1), *card.inputs[1:]]),
            "the member at byte 1",
        ),
        (lambda card: replace(card, class_count=3755), "expected class_count 3,754"),
        (lambda card: replace(card, class_digest="0" * 64), "classes.txt: expected SHA-256 0000"),
        (lambda card: replace(card, libraries={}), "expected the version of numpy"),
        (
            lambda card: replace(card, splits={**card.splits, "train": replace(card.splits["train"], writers=3)}),
            "expected 3 writers, found 2",
        ),
        (
            lambda card: replace(card, splits={**card.splits, "train": replace(card.splits["train"], characters=3)}),
            "expected 3 characters, found 20",
        ),
    ],
)
def test_a_wrong_card_is_found_however_good_its_digest_is(
    dataset: Path, edit: Callable[[Card], Card], says: str
) -> None:
    reseal(dataset, edit)
    found = findings(dataset)
    assert any(says in line for line in found), found


def test_a_card_that_leads_out_of_its_folder_is_refused(dataset: Path) -> None:
    def edit(card: Card) -> Card:
        split = card.splits["test"]
        shards = [replace(split.shards[0], path="../../etc/passwd")]
        return replace(card, splits={**card.splits, "test": replace(split, shards=shards)})

    (dataset / CARD).write_text(edit(read_card(dataset)).to_json())
    found = findings(dataset)
    assert any("found ../../etc/passwd" in line for line in found)
    assert not any(line.startswith("../../etc/passwd") for line in found)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda folder: shutil.rmtree(folder), "expected the folder of a data set, found none"),
        (lambda folder: (folder / CARD).unlink(), "the conversion isn't finished, run its command again"),
        (
            lambda folder: (folder / CARD).write_text(replace(read_card(folder), format_version="2.0.0").to_json()),
            "expected format version 1.x, found 2.0.0; read it with the release that wrote it",
        ),
    ],
)
def test_what_is_no_data_set_is_one_line(
    dataset: Path, prepare: Callable[[Path], None], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(dataset)
    assert verify.main([str(dataset)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert says in err


@pytest.mark.parametrize("flags", [["--all"], ["--processes=0"], ["--against"], ["--sample=0"], ["--smaple=3"]])
def test_bad_flags_are_one_line(intact: Path, flags: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(intact), *flags]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def against(folder: Path, sources: Path, *flags: str) -> list[str]:
    return [str(folder), "--against", f"train={sources}/train", f"test={sources}/test", *flags]


def test_the_archives_agree(intact: Path, intact_png: Path, sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (intact, intact_png):
        for flags, made in (([], 63), (["--sample=5"], 15), (["--all"], 63)):
            assert verify.main(against(folder, sources, *flags)) == 0
            assert f"{made} records made again from the archives" in capsys.readouterr().out


def make_format_1_0(folder: Path) -> None:
    """The card and the files beside it as format 1.0.0 had them; the shards stay."""
    card = read_card(folder)
    libraries = {name: version for name, version in card.libraries.items() if name != "deflate"}
    for name, text in side_files(replace(card, format_version="1.0.0"), default_classes()).items():
        (folder / name).write_text(text)
    reseal(folder, lambda card: replace(card, format_version="1.0.0", libraries=libraries))


def test_a_png_set_of_format_1_0_needs_its_release(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as release:
        for user in ("pipeline.shards.frames", "pipeline.shards.chunk"):
            release.setattr(f"{user}.encode_png", lambda image: cv2.imencode(".png", image)[1].tobytes())
        folder = converted(sources, tmp_path / "out", "--image_encoding=png")
    make_format_1_0(folder)
    assert verify.main([str(folder)]) == 0
    capsys.readouterr()
    assert verify.main(against(folder, sources, "--sample=1")) == 1
    assert "install the card's release (format 1.0.0) and verify again" in capsys.readouterr().out


def test_a_raw_set_of_format_1_0_does_not(dataset: Path, sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_format_1_0(dataset)
    assert verify.main(against(dataset, sources, "--all")) == 0
    change_picture(dataset)
    reseal(dataset)
    assert verify.main([str(dataset)]) == 0
    capsys.readouterr()
    assert verify.main(against(dataset, sources, "--all")) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "the archive gives" in line]
    assert line.endswith(" in the shard; convert again")


@pytest.mark.parametrize(
    ("version", "libraries", "advice"),
    [
        (FORMAT_VERSION, {"numpy": "0.9"}, "install the card's numpy 0.9 and verify again, then convert again"),
        (FORMAT_VERSION, {"abacus": "1.0"}, "convert again"),  # unknown here: nothing is made by it
        ("1.9.0", {"abacus": "1.0"}, "install the card's release (format 1.9.0) and verify again, then convert again"),
    ],
)
def test_the_advice_names_what_may_make_other_bytes(
    dataset: Path,
    sources: Path,
    version: str,
    libraries: dict[str, str],
    advice: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change_picture(dataset)
    reseal(dataset, lambda card: replace(card, format_version=version, libraries={**card.libraries, **libraries}))
    assert verify.main(against(dataset, sources, "--all")) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "the archive gives" in line]
    assert line.endswith(f" in the shard; {advice}")


def test_packed_archives_agree_too(sources: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "in" / split).mkdir(parents=True)
        members = {path.name: path.read_bytes() for path in sorted((sources / split).iterdir())}
        method = zipfile.ZIP_DEFLATED if split == "train" else zipfile.ZIP_STORED
        gnt_files.write_zip(tmp_path / "in" / split / "a.zip", members, method)
    folder = converted(tmp_path / "in", tmp_path / "out")
    for flags in (["--all"], ["--sample=3", "--seed=4"]):
        assert verify.main(against(folder, tmp_path / "in", *flags)) == 0


def test_a_writer_that_moved_to_validation_is_found_in_train(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for writer in range(1001, 1009):
        data = gnt_files.member(gnt_files.records_of("啊阿", seed=writer))
        (tmp_path / "train" / f"{writer}-c.gnt").write_bytes(data)
    flags = [f"--input={tmp_path}/train", f"--output={tmp_path}/out", "--validation_fraction=0.6"]
    assert convert.main(["--runner=DirectRunner", *flags]) == 0
    assert "validation" in read_card(tmp_path / "out").splits
    assert verify.main([str(tmp_path / "out"), "--against", str(tmp_path / "train"), "--all"]) == 0


def test_batches_and_slices_make_no_difference(
    intact: Path, sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.verify.sources.BATCH_ROWS", 10)
    monkeypatch.setattr("pipeline.verify.sources.SLICE_ROWS", 4)
    monkeypatch.setattr("pipeline.verify.sources.SMALL_ROWS", 0)
    assert verify.main(against(intact, sources, "--all", "--processes=2")) == 0
    assert "63 records made again" in capsys.readouterr().out


def test_another_archive_disagrees(
    intact: Path, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(sources, tmp_path / "in"))
    member = copy / "train" / "1001-c.gnt"
    data = bytearray(member.read_bytes())
    offset, _, bitmap = gnt_files.parse(bytes(data))[4]
    data[offset + 10 + int(np.argmin(bitmap))] ^= 0x80
    member.write_bytes(data)
    assert verify.main(against(intact, copy, "--all")) == 1
    out = capsys.readouterr().out
    assert f"1001-c.gnt of 1001-c.gnt: record 4 at byte {offset:,}: the archive gives bitmap_digest" in out
    assert "record 5" not in out


def test_another_picture_in_the_shard_disagrees(
    dataset: Path, sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_picture(dataset)
    reseal(dataset)
    assert verify.main([str(dataset)]) == 0
    assert verify.main(against(dataset, sources, "--all")) == 1
    assert (
        "the archive gives another Example than train-00000-of-00002.tfrecord holds: byte " in capsys.readouterr().out
    )


@pytest.mark.parametrize("name", ["label", "width", "tag", "ink_fraction", "crop_x", "bitmap_digest"])
def test_a_row_that_the_archive_contradicts(
    dataset: Path, sources: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def edit(columns: dict[str, list[object]]) -> None:
        at = first(columns, "kept")
        value = columns[name][at]
        columns[name][at] = "b0a2" if isinstance(value, str) else value / 2 if name == "ink_fraction" else value ^ 1

    edit_rows(dataset, edit)
    reseal(dataset)
    assert verify.main(against(dataset, sources, "--all")) == 1
    assert f"the archive gives {name} " in capsys.readouterr().out


def test_members_that_are_missing_or_unknown(
    intact: Path, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(sources, tmp_path / "in"))
    os.rename(copy / "train" / "1001-c.gnt", copy / "train" / "1003-c.gnt")
    (copy / "test" / "1241-c.gnt").write_bytes(b"short")
    assert verify.main(against(intact, copy)) == 1
    out = capsys.readouterr().out
    assert "1001-c.gnt of 1001-c.gnt: expected it under --against train=…, found no such member" in out
    assert "1003-c.gnt of 1003-c.gnt: expected every member of --against train=… in the data set" in out
    assert "bytes, as the card says, found 5 in " in out


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


def test_a_tally_tiles_only_what_is_whole() -> None:
    sizes = [10, 20, 5, 100]
    ends = np.cumsum(sizes)
    rows = pa.table(
        {
            "member": ["a"] * 4,
            "record_index": pa.array(range(4), pa.uint32()),
            "source_offset": pa.array(ends - sizes, pa.uint64()),
            "source_bytes": pa.array(sizes, pa.uint64()),
        }
    )
    whole = tally_rows(rows)["a"]
    assert whole.tiles(135)
    assert not whole.tiles(134)
    parts = [tally_rows(rows.take([3, 1]))["a"], tally_rows(rows.take([0, 2]))["a"]]
    assert sum(parts, type(whole)()) == whole
    for lost in range(4):
        assert not tally_rows(rows.take([i for i in range(4) if i != lost]))["a"].tiles(135)
    assert not tally_rows(rows.take([0, 1, 1, 2, 3]))["a"].tiles(135)


def test_the_card_carries_its_own_digest(intact: Path) -> None:
    fields = json.loads((intact / CARD).read_text())
    assert list(fields)[-1] == "digest"
    assert read_card(intact).to_json() == (intact / CARD).read_text()


def test_every_byte_of_the_card_counts(intact: Path) -> None:
    content = (intact / CARD).read_bytes()
    for at in range(0, len(content), 3):
        changed = content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]
        try:
            card = parse_card(changed, CARD)
        except DamagedCard:
            continue
        assert check_card(card, changed), f"byte {at}: {content[at]} -> {changed[at]}"


def test_readers_refuse_a_card_with_another_value(intact: Path) -> None:
    text = (intact / CARD).read_text()
    with pytest.raises(DamagedCard, match="expected the card as it was written, found it changed"):
        parse_card(text.replace('"image_size": 64', '"image_size": 65'), CARD)
    with pytest.raises(DamagedCard):
        parse_card(text.replace('"format_version": "1', '"format_version": "2'), CARD)
