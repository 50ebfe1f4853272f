"""What lies in the output folder already: a data set, someone's files, pieces of an earlier run."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest
from commands import Run, assert_refused

from pipeline import storage
from pipeline.shards import publish
from schemas.dataset import STAGING_FOLDER
from schemas.errors import UserError
from schemas.machine import without_temporary_mark


def test_a_finished_data_set_is_not_touched(archives: Path, tmp_path: Path, convert: Run) -> None:
    flags = (f"--input={archives}/train", f"--output={tmp_path}/o")
    assert convert(*flags)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "o").rglob("*")}
    assert_refused(convert(*flags), "expected a new folder, found a finished data set")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "o").rglob("*")} == before


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


@pytest.mark.parametrize("name", ["notes.txt", "training.tfrecord", "test.tfrecord", "manifest/train_old.parquet"])
def test_a_folder_with_someones_files_is_refused(archives: Path, tmp_path: Path, convert: Run, name: str) -> None:
    path = tmp_path / "o" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    message = f"expected a new folder, or that of an interrupted conversion, found {name} in it"
    assert_refused(convert(f"--input={archives}/train", f"--output={tmp_path}/o"), message)
    assert path.read_text() == "mine"


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
    left = [path.name for path in (tmp_path / "o").rglob("*")]
    assert left == [without_temporary_mark(name) for name in left]


def test_only_staged_pieces_are_deleted_from_the_staging_folder(archives: Path, tmp_path: Path, convert: Run) -> None:
    staging = tmp_path / "scratch"
    staging.mkdir()
    (staging / "thesis.txt").write_text("mine")
    assert convert(f"--input={archives}/train", f"--output={tmp_path}/o", f"--staging={staging}")[0] == 0
    assert [path.name for path in staging.iterdir()] == ["thesis.txt"]


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
    assert shards("third", "a") == first


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
    flags = (f"--input={archives}/train", f"--output={tmp_path}/o", "--num_shards=train=2")
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(publish, "write_card", _interrupted)
        assert convert(*flags)[0] == 2
    whole = {path.name: path.read_bytes() for path in (tmp_path / "o").glob("*.tfrecord")}
    assert len(whole) == 2
    staging = tmp_path / "o" / STAGING_FOLDER
    if kind == "chunk":
        for path in staging.rglob("shard-*"):
            path.unlink()
        torn = next(staging.rglob("chunk-*.rows.json" if tear == "receipt" else "chunk-*.rows"))
    else:
        torn = next(staging.rglob("shard-*.json")) if tear == "receipt" else next((tmp_path / "o").glob("*.tfrecord"))
    torn.write_bytes(bytes(len(torn.read_bytes())) if tear == "file" else b"")
    status, _, err = convert(*flags)
    assert (status, err) == (0, "")
    assert {path.name: path.read_bytes() for path in (tmp_path / "o").glob("*.tfrecord")} == whole
    assert not staging.exists()


def _interrupted(*_: object) -> None:
    raise UserError("as if it were interrupted")
