"""What a conversion refuses: one line, status 2, and no data set."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import gnt_files
import pytest
from commands import Run, assert_refused

from pipeline.shards import chunk as convert_chunk
from pipeline.source.chunks import Chunk
from pipeline.storage import lock
from schemas.errors import UserError


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
        (_no_gnt, "expected .gnt files in the zip, found 1 other file: readme.txt"),
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
        (("--input={}", "--runner=FlinkRuner"), "none of that name; did you mean FlinkRunner?"),
        (("--input={}", "--runner=no.such.Runner"), "it can't be loaded here (No module named 'no')"),
        (("--input=https://host/a.zip",), "found https://; download it, and name the file here"),
        ((), "required: --input"),
        (("--input={}", "stray"), "stray: expected a flag; name every input after --input"),
        (("--output=", "--input={}"), "--output: expected a folder, found an empty name"),
        (("--input={}", "--num_shards=test=3"), "expected a split that has input, found none for test"),
        (("--input={}", "--num_shards=train=3", "--num_shards=train=4"), "expected each split once, found train=3"),
        (("--input=test={}", "--validation_fraction=0.5"), "expected --input for train to take writers from"),
        (("--input={}", "--direct_num_workers=-1"), "expected 0 (all cores) or more"),
        (("--input={}", "--runner=FlinkRunner", "--imagesize=32"), "did you mean --image_size?"),
        (("--input=file://{}",), "found file://; name a local file by its path"),
        (("--input=foo://bucket/x.gnt",), "found another; pyarrow says: Unrecognized filesystem"),
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


@pytest.mark.engine
@pytest.mark.parametrize("mode", ["in_memory", "multi_threading", "multi_processing"])
def test_a_failing_write_is_one_line_on_every_engine(archives: Path, tmp_path: Path, mode: str) -> None:
    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    flags = [f"--input={archives}/train", f"--output={tmp_path}/o", f"--direct_running_mode={mode}"]
    command = [sys.executable, "-m", "pipeline.convert", *flags, "--direct_num_workers=2"]
    done = subprocess.run(command, preexec_fn=limit_file_size, capture_output=True, text=True, check=False)
    assert_refused((done.returncode, done.stdout, done.stderr), "can't write .*: File too large; mend that")


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


def test_no_archive_is_blamed_for_the_flags(archives: Path, tmp_path: Path, convert: Run) -> None:
    flags = ("--resize=none", "--crop=none", "--image_size=32")
    outcome = convert(f"--input={archives}/train", f"--output={tmp_path}/o", *flags)
    assert_refused(outcome, r"\(larger_than_image .*; name a larger --image_size, or leave --resize at fit, or")
    assert "damaged" not in outcome[2]


def test_a_flag_for_beam_that_is_no_text(archives: Path, tmp_path: Path, convert: Run) -> None:
    """As a shell gives a byte that isn't UTF-8."""
    outcome = convert(f"--input={archives}/train", f"--output={tmp_path}/o", "--s3_verify=\udcff")
    assert_refused(outcome, r"--s3_verify=\xdcff: expected a flag for Beam in UTF-8")


def test_a_refusal_at_the_lock_leaves_no_temporary_folder(
    archives: Path, tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def refused(_output: str) -> None:
        raise UserError("somebody has it")

    monkeypatch.setattr(lock, "locked", refused)
    assert_refused(convert(f"--input={archives}/train", f"--output={tmp_path}/o"), "somebody has it")
    assert not list((tmp_path / "temporary").iterdir())
