"""What the command does beside bytes: splits, fractions, bad input, interrupted runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import gnt_files
import pyarrow.parquet as pq
import pytest

from pipeline import storage, verify
from pipeline.shards import chunk as convert_chunk
from pipeline.source.chunks import Chunk
from schemas.dataset import LOCK, STAGING_FOLDER, read_card

Run = Callable[..., tuple[int, str, str]]


def rows(folder: Path) -> list[dict[str, object]]:
    return [row for part in sorted(folder.glob("manifest/*.parquet")) for row in pq.read_table(part).to_pylist()]


def test_a_good_run_prints_its_table_and_nothing_else(archives: Path, tmp_path: Path, convert: Run) -> None:
    status, out, err = convert(f"--input={archives}/train", f"--input=test={archives}/test", f"--output={tmp_path}/o")
    assert (status, err) == (0, "")
    table = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert table["train"] == ["test"]
    assert table["kept"] == ["114", "38"]
    assert table["dropped"] == ["6", "2"]
    assert re.search(r"^  outside_class_set +6 +2$", out, flags=re.MULTILINE)
    assert "outside_class_set: its character isn't in the class list" in out
    assert table["writers"] == ["3", "1"]
    assert not (tmp_path / "o" / STAGING_FOLDER).exists()


def test_validation_takes_whole_writers_and_always_the_same(tmp_path: Path, convert: Run) -> None:
    for writer in range(1001, 1041):
        path = tmp_path / "in" / f"{writer}-c.gnt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gnt_files.member(gnt_files.records_of("啊阿", seed=writer)))
        symbols = tmp_path / "in" / f"{writer}-f.gnt"
        symbols.write_bytes(gnt_files.member(gnt_files.records_of("A", seed=writer)))
    chosen = []
    for out, fraction in (("a", 0.25), ("b", 0.25), ("c", 0.5)):
        status, _, _ = convert(
            f"--input={tmp_path}/in", f"--output={tmp_path}/{out}", f"--validation_fraction={fraction}"
        )
        assert status == 0
        by_split = {(row["writer"], row["split"]) for row in rows(tmp_path / out)}
        assert len(by_split) == 40
        chosen.append({writer for writer, split in by_split if split == "validation"})
    assert chosen[0] == chosen[1] < chosen[2]
    assert 4 <= len(chosen[0]) <= 16


def test_a_fraction_that_chooses_nobody_is_refused(archives: Path, tmp_path: Path, convert: Run) -> None:
    status, _, err = convert(f"--input={archives}/train", f"--output={tmp_path}/o", "--validation_fraction=0.0001")
    assert status == 2
    assert "chose none; name a larger fraction" in err


def test_sample_fraction_drops_by_hash_evenly_over_shards(tmp_path: Path, convert: Run) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(gnt_files.member(gnt_files.records_of("啊阿埃挨" * 150)))
    flags = ("--sample_fraction=0.5", "--num_shards=train=4")
    status, _, _ = convert(f"--input={tmp_path}/1001-c.gnt", f"--output={tmp_path}/o", *flags)
    assert status == 0
    reasons = Counter(row["reason"] for row in rows(tmp_path / "o"))
    assert reasons.keys() == {None, "not_sampled"}
    assert 240 <= reasons["not_sampled"] <= 360
    assert all(40 <= shard.records <= 120 for shard in read_card(tmp_path / "o").split("train").shards)


def test_a_shard_that_nothing_falls_into_is_a_file_too(tmp_path: Path, convert: Run) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(gnt_files.member(gnt_files.records_of("啊阿埃")))
    status, _, _ = convert(f"--input={tmp_path}/1001-c.gnt", f"--output={tmp_path}/o", "--num_shards=train=9")
    assert status == 0
    keys = [hashlib.blake2b(f"train/1001-c.gnt/{i}".encode(), digest_size=8).digest() for i in range(3)]
    expected = Counter(int.from_bytes(key, "big") * 9 >> 64 for key in keys)
    shards = read_card(tmp_path / "o").split("train").shards
    assert [shard.records for shard in shards] == [expected[number] for number in range(9)]
    assert all((tmp_path / "o" / shard.path).stat().st_size == shard.bytes for shard in shards)
    assert verify.main([str(tmp_path / "o")]) == 0


def test_another_class_list_gives_other_labels(archives: Path, tmp_path: Path, convert: Run) -> None:
    (tmp_path / "classes.txt").write_text("硷\nA\n啊\n")
    convert(f"--input={archives}/train", f"--output={tmp_path}/o", f"--classes={tmp_path}/classes.txt")
    labels = {row["char"]: row["label"] for row in rows(tmp_path / "o") if row["status"] == "kept"}
    assert labels == {"硷": 0, "A": 1, "啊": 2}
    assert (tmp_path / "o/classes.txt").read_text() == "硷\nA\n啊\n"


def test_broken_records_are_rejected_one_by_one(tmp_path: Path, convert: Run) -> None:
    records = gnt_files.records_of("啊阿埃挨哎唉哀皑癌蔼" * 30)
    parts = [gnt_files.record(*record) for record in records]
    parts[5] = (7).to_bytes(4, "little") + parts[5][4:]
    parts[50] = parts[50][:6] + b"\0\0" + parts[50][8:]
    parts[70] = (10).to_bytes(4, "little") + parts[70][4:6] + b"\0\0\0\0"
    parts[90] = gnt_files.record(gnt_files.tag("啊"), gnt_files.strokes(1) | 255)
    parts[-1] = parts[-1][:-100]
    (tmp_path / "1001-c.gnt").write_bytes(b"".join(parts))
    flags = (f"--input={tmp_path}/1001-c.gnt", f"--output={tmp_path}/o")
    status, _, err = convert(*flags)
    assert status == 2
    assert "expected at most 1.00% of the records rejected, found 5 of 300" in err
    assert "1001-c.gnt" in err
    assert not (tmp_path / "o/dataset.json").exists()
    status, out, err = convert(*flags, "--max_reject_fraction=0.02")
    assert (status, err) == (0, "")
    found = rows(tmp_path / "o")
    assert {row["record_index"]: row["reason"] for row in found if row["status"] == "rejected"} == {
        5: "header_mismatch",
        50: "header_mismatch",
        70: "empty_bitmap",
        90: "blank",
        299: "truncated",
    }
    assert sum(row["source_bytes"] for row in found) == (tmp_path / "1001-c.gnt").stat().st_size  # type: ignore[misc]
    assert "header_mismatch: size, width and height in its header disagree" in out


def _alz_zip(folder: Path) -> Path:
    return gnt_files.write_zip(folder / "HWDB1.1trn_gnt.zip", {"HWDB1.1trn_gnt.alz": b"ALZ\x01"})


def _no_gnt(folder: Path) -> Path:
    return gnt_files.write_zip(folder / "other.zip", {"readme.txt": b"hello"})


def _cut_zip(folder: Path) -> Path:
    path = gnt_files.write_zip(folder / "cut.zip", {"1001-c.gnt": gnt_files.member(gnt_files.records_of("啊阿埃"))})
    path.write_bytes(path.read_bytes()[:-30])
    return path


def _flipped_zip(folder: Path) -> Path:
    member = gnt_files.member(gnt_files.records_of("啊阿埃" * 20))
    path = gnt_files.write_zip(folder / "flipped.zip", {"1001-c.gnt": member}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    return path


def _twice(folder: Path) -> Path:
    for name in ("a", "b"):
        (folder / "twice" / name).mkdir(parents=True)
        (folder / "twice" / name / "1001-c.gnt").write_bytes(gnt_files.member(gnt_files.records_of("啊")))
    return folder / "twice"


def _empty(folder: Path) -> Path:
    (folder / "1001-c.gnt").write_bytes(b"")
    return folder / "1001-c.gnt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nowhere", "expected a .gnt, a .zip, or a folder or glob of them, found nothing"),
        (lambda folder: folder / "*.gnt", "found nothing; check the path"),
        (_alz_zip, "found an .alz archive, as some copies of HWDB1.1 hold; unpack it with unalz"),
        (_no_gnt, "expected .gnt files in the zip, found 1 others"),
        (_cut_zip, "expected an intact zip, found it damaged"),
        (_flipped_zip, "expected CRC-32 .* found .*; the zip is damaged, download it again"),
        (_twice, "expected every member's name once, found 1001-c.gnt in .*/a/1001-c.gnt and in .*/b/1001-c.gnt"),
        (_empty, "train: expected records to keep, found none among 0"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, convert: Run, make: Callable[[Path], Path], message: str) -> None:
    path = make(tmp_path)
    assert_refused(convert(f"--input=train={path}", f"--output={tmp_path}/o"), message)
    assert not (tmp_path / "o/dataset.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--input=trian={}",), "expected one of the splits train, validation, test, found 'trian'"),
        (("--input={}", "--image_size=0"), "--image_size: expected 8 to 1,024 pixels, found 0"),
        (("--input={}", "--image_size=big"), "argument --image_size: invalid int value: 'big'"),
        (("--input={}", "--num_shards=dev=3"), "expected one of the splits"),
        (("--input={}", "--num_shards=train=0"), "expected 1 to 99,999 shards"),
        (("--input={}", "--num_shards=3"), "expected SPLIT=N"),
        (("--input={}", "--sample_fraction=0"), "--sample_fraction: expected more than 0, at most 1, found 0"),
        (("--input={}", "--validation_fraction=1"), "--validation_fraction 1: expected"),
        (("--input={}", "--classes=/nowhere.txt"), "can't read --classes /nowhere.txt: No such file"),
        (("--input={}", "--imagesize=32"), "neither this command nor Beam knows this flag; did you mean --image_size"),
        (("--input={}", "--direct_num_workers=many"), "invalid int value: 'many'"),
        (("--input={}", "--runner=DaskRunner"), "records would be lost"),
        (("--input={}", "--runner=NoSuchRunner"), "expected one of Beam's runners"),
        ((), "required: --input"),
        (("--input={}", "stray"), "stray: expected a flag; name every input after --input"),
        (("--output=", "--input={}"), "--output: expected a folder, found an empty name"),
        (("--input={}", "--num_shards=test=3"), "expected a split that has input, found none for test"),
        (("--input={}", "--num_shards=train=3", "--num_shards=train=4"), "expected each split once, found train=3"),
        (("--input=test={}", "--validation_fraction=0.5"), "expected --input for train to take writers from"),
        (("--input={}", "--direct_num_workers=-1"), "expected 0 (all cores) or more"),
        (("--input={}", "--runner=FlinkRunner", "--imagesize=32"), "did you mean --image_size?"),
        (("--input=file://{}",), "expected a path, or a URL that Beam can open"),
        (("--input=gs://bucket/x.gnt",), "for gs:// install apache-beam[gcp]"),
    ],
)
def test_bad_flags_are_one_line(
    archives: Path, tmp_path: Path, convert: Run, flags: tuple[str, ...], message: str
) -> None:
    given = [flag.format(archives / "train") for flag in flags]
    assert_refused(convert(f"--output={tmp_path}/o", *given), message)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("啊\n啊\n", "line 2: '啊' stands on line 1 already"),
        ("啊\n\n阿\n", "line 2: expected one character, found an empty line"),
        ("啊\n".encode("gbk"), "expected UTF-8, found something else at byte 0"),
    ],
)
def test_a_bad_class_list_is_one_line(
    archives: Path, tmp_path: Path, convert: Run, content: str | bytes, message: str
) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(convert(f"--input={archives}/train", f"--output={tmp_path}/o", f"--classes={path}"), message)


def test_a_finished_data_set_is_not_touched(archives: Path, tmp_path: Path, convert: Run) -> None:
    flags = (f"--input={archives}/train", f"--output={tmp_path}/o")
    assert convert(*flags)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "o").rglob("*")}
    assert_refused(convert(*flags), "expected a new folder, found a finished data set")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "o").rglob("*")} == before


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    archives: Path, tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (f"--input={archives}/train", f"--output={tmp_path}/o", "--num_shards=train=3")
    whole = storage.atomic_write
    written = []

    def on_a_small_disk(path: str, **options: bool) -> AbstractContextManager[BinaryIO]:
        written.append(path)
        if len(written) == 6:
            raise OSError(28, os.strerror(28))
        return whole(path, **options)

    monkeypatch.setattr(storage, "atomic_write", on_a_small_disk)
    assert_refused(convert(*flags), "No space left on device; free some space and run the same command again")
    assert not (tmp_path / "o/dataset.json").exists()
    monkeypatch.undo()
    assert convert(*flags)[0] == 0
    assert not list((tmp_path / "o").rglob("*.tmp-*"))


@pytest.mark.engine
@pytest.mark.parametrize("mode", ["in_memory", "multi_threading", "multi_processing"])
def test_a_failing_write_is_one_line_on_every_engine(archives: Path, tmp_path: Path, mode: str) -> None:
    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    flags = [f"--input={archives}/train", f"--output={tmp_path}/o", f"--direct_running_mode={mode}"]
    command = [sys.executable, "-m", "pipeline.convert", *flags, "--direct_num_workers=2"]
    done = subprocess.run(command, preexec_fn=limit_file_size, capture_output=True, text=True, check=False)
    assert_refused((done.returncode, done.stdout, done.stderr), "can't write .*: File too large; mend that")


HOLD = """
import fcntl, json, os, socket, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid()}))
file.flush()
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_conversion_into_the_folder_is_refused(archives: Path, tmp_path: Path, convert: Run) -> None:
    lock = tmp_path / "o" / LOCK
    lock.parent.mkdir(parents=True)
    flags = (f"--input={archives}/train", f"--output={tmp_path}/o")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert_refused(convert(*flags), f"found one on {socket.gethostname()}, process {other.pid}")
        assert_refused(convert(*flags, f"--staging={tmp_path}/elsewhere"), f"found one on .*, process {other.pid}")
        other.kill()
    status, _, err = convert(*flags)  # the process is gone: its lock is no obstacle
    assert (status, err) == (0, "")
    assert not lock.exists()


def test_another_hosts_lock_is_respected(archives: Path, tmp_path: Path, convert: Run) -> None:
    lock = tmp_path / "o" / LOCK
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"host": "elsewhere", "process": 1}))
    assert_refused(convert(f"--input={archives}/train", f"--output={tmp_path}/o"), "found one on elsewhere, process 1")
    assert lock.exists()


@pytest.mark.parametrize("content", ["", "torn", "[]", '{"host": "x"}'])
def test_a_torn_lock_is_no_obstacle(archives: Path, tmp_path: Path, convert: Run, content: str) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / LOCK).write_text(content)
    assert convert(f"--input={archives}/test", f"--output={tmp_path}/o")[0] == 0


def test_a_data_set_finished_meanwhile_is_not_touched(
    archives: Path, tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.storage import lock

    flags = (f"--input={archives}/train", f"--output={tmp_path}/o")
    really = lock.locked

    def after_another_has_finished(output: str) -> AbstractContextManager[None]:
        (tmp_path / "o").mkdir()
        (tmp_path / "o" / "dataset.json").write_text("theirs")
        return really(output)

    monkeypatch.setattr(lock, "locked", after_another_has_finished)
    assert_refused(convert(*flags), "expected a new folder, found a finished data set")
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["dataset.json"]


def test_leftovers_of_an_interrupted_conversion_go_away(archives: Path, tmp_path: Path, convert: Run) -> None:
    out = tmp_path / "o"
    (out / "manifest").mkdir(parents=True)
    stale = [out / "train-00000-of-00009.tfrecord", out / "manifest/train-00000-of-00009.parquet"]
    stale.append(out / "train-00000-of-00001.tmp-12345678.tfrecord")
    for path in stale:
        path.write_text("x")
    assert convert(f"--input={archives}/train", f"--output={out}")[0] == 0
    assert not any(path.exists() for path in stale)


@pytest.mark.parametrize("name", ["notes.txt", "training.tfrecord", "test.tfrecord", "manifest/train_old.parquet"])
def test_a_folder_with_someones_files_is_refused(archives: Path, tmp_path: Path, convert: Run, name: str) -> None:
    path = tmp_path / "o" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    message = f"expected a new folder, or that of an interrupted conversion, found {name} in it"
    assert_refused(convert(f"--input={archives}/train", f"--output={tmp_path}/o"), message)
    assert path.read_text() == "mine"


def test_only_staged_pieces_are_deleted_from_the_staging_folder(archives: Path, tmp_path: Path, convert: Run) -> None:
    staging = tmp_path / "scratch"
    staging.mkdir()
    (staging / "thesis.txt").write_text("mine")
    assert convert(f"--input={archives}/train", f"--output={tmp_path}/o", f"--staging={staging}")[0] == 0
    assert [path.name for path in staging.iterdir()] == ["thesis.txt"]


def test_staging_may_be_the_output_itself(archives: Path, tmp_path: Path, convert: Run) -> None:
    assert convert(f"--input={archives}/train", f"--output={tmp_path}/o", f"--staging={tmp_path}/o")[0] == 0
    assert {path.suffix for path in (tmp_path / "o").iterdir()} <= {".json", ".txt", ".tfrecord", ""}
    assert not list((tmp_path / "o").glob("chunk-*"))


def test_pieces_of_other_settings_are_never_mixed_in(archives: Path, tmp_path: Path, convert: Run) -> None:
    (tmp_path / "a.txt").write_text("啊\n阿\n")
    (tmp_path / "b.txt").write_text("阿\n啊\n")
    flags = (f"--input={archives}/train", "--keep_staging", f"--staging={tmp_path}/staging", "--num_shards=train=2")

    def shards(name: str, classes: str) -> list[bytes]:
        status, _, err = convert(*flags, f"--output={tmp_path}/{name}", f"--classes={tmp_path}/{classes}.txt")
        assert (status, err) == (0, "")
        return [path.read_bytes() for path in sorted((tmp_path / name).glob("*.tfrecord"))]

    first = shards("first", "a")
    assert shards("second", "b") != first
    (tmp_path / "second/dataset.json").unlink()
    assert shards("second", "a") == first


def test_kept_pieces_serve_when_archives_are_added(archives: Path, tmp_path: Path, convert: Run) -> None:
    keep = ("--keep_staging", f"--staging={tmp_path}/staging", "--num_shards=train=2")
    convert(f"--input={archives}/train/1001-c.gnt", f"--output={tmp_path}/a", *keep)
    pieces = {path: path.stat().st_mtime_ns for path in (tmp_path / "staging").glob("chunk-*")}
    assert len(pieces) == 2
    status, _, _ = convert(
        f"--input={archives}/train", f"--input=test={archives}/test", f"--output={tmp_path}/b", *keep
    )
    assert status == 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "staging").glob("chunk-*")}
    assert len(after) == 2 * 4
    assert pieces.items() <= after.items()


@pytest.mark.parametrize("kind", ["chunk", "shard"])
@pytest.mark.parametrize("tear", ["receipt", "file"])
def test_a_torn_piece_is_made_again(archives: Path, tmp_path: Path, convert: Run, kind: str, tear: str) -> None:
    flags = (f"--input={archives}/train", f"--output={tmp_path}/o", "--keep_staging", "--num_shards=train=2")
    convert(*flags)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "o").glob("*.tfrecord")}
    (tmp_path / "o/dataset.json").unlink()
    staging = tmp_path / "o" / STAGING_FOLDER
    if kind == "chunk":
        for path in staging.glob("shard-*"):
            path.unlink()
        torn = next(staging.glob("chunk-*.arrow.json" if tear == "receipt" else "chunk-*.arrow"))
    else:
        torn = next(staging.glob("shard-*.json")) if tear == "receipt" else next((tmp_path / "o").glob("*.tfrecord"))
    torn.write_bytes(bytes(len(torn.read_bytes())) if tear == "file" else b"")
    status, _, err = convert(*flags)
    assert (status, err) == (0, "")
    assert {path.name: path.read_bytes() for path in (tmp_path / "o").glob("*.tfrecord")} == whole


def test_an_archive_that_grows_meanwhile_is_noticed(
    tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1001-c.gnt"
    path.write_bytes(gnt_files.member(gnt_files.records_of("啊阿")))
    really = convert_chunk.read_chunk

    def read_while_it_grows(chunk: Chunk) -> bytes:
        data = really(chunk)
        with path.open("ab") as stream:
            stream.write(gnt_files.member(gnt_files.records_of("埃")))
        return data

    monkeypatch.setattr(convert_chunk, "read_chunk", read_while_it_grows)
    message = "expected the file that was listed, found it changed during the conversion"
    assert_refused(convert(f"--input={path}", f"--output={tmp_path}/o"), message)
    assert not (tmp_path / "o/dataset.json").exists()


def test_links_to_folders_are_followed_and_loops_end(archives: Path, tmp_path: Path, convert: Run) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(archives / "train")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert convert(f"--input={tmp_path}/in", f"--output={tmp_path}/o")[0] == 0
    assert read_card(tmp_path / "o").split("train").writers == 3


def test_a_shells_many_paths_are_all_read(archives: Path, tmp_path: Path, convert: Run) -> None:
    paths = sorted(archives.glob("train/*.gnt"))
    assert convert("--input", *paths, "--output", tmp_path / "o")[0] == 0
    assert read_card(tmp_path / "o").split("train").writers == 3


def assert_refused(outcome: tuple[int, str, str], message: str) -> None:
    status, _, err = outcome
    assert status == 2, err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert re.search(message, err) or message in err, err
