"""Nothing is replaced or removed that this very output's mark doesn't vouch for; staging may be shared."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from commands import Run, assert_refused, digests

import pipeline
from pipeline.shards import chunk, publish, unfinished
from schemas.dataset import CARD, LOCK, STAGING_FOLDER, UNFINISHED, read_card
from schemas.errors import UserError
from schemas.machine import without_temporary_mark

Tree = dict[str, bytes]


def tree(folder: Path) -> Tree:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def interrupted(convert: Run, *flags: str) -> None:
    """A conversion that ends when all is written but the card."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(publish, "write_card", _stopped)
        assert convert(*flags)[0] == 2


def _stopped(*_: object) -> None:
    raise UserError("as if it were interrupted")


def test_shards_of_another_data_set_are_not_taken_for_its_own(archives: Path, tmp_path: Path, convert: Run) -> None:
    out = tmp_path / "o"
    assert convert(f"--input=train={archives}/train", f"--output={out}", "--num_shards=train=3")[0] == 0
    (out / CARD).unlink()
    before = tree(out)
    for flags in ([], ["--num_shards=train=3"], [f"--staging={tmp_path}/elsewhere"]):
        message = f"expected a new folder, or that of an interrupted conversion, found .* in it and no {UNFINISHED}"
        assert_refused(convert(f"--input={archives}/test", f"--output={out}", *flags), message)
        assert tree(out) == before


@pytest.mark.parametrize(
    "name",
    [
        "train-00000-of-00001.tfrecord",
        "train-00000-of-00001.tmp-12345678.tfrecord",
        "manifest/train-00000-of-00001.parquet",
        "classes.txt",
        "features.json",
        "dataset.tmp-12345678.json",
        "photos/1.jpg",
        "manifest/deep/notes.txt",
        "train-00000-of-00001.tfrecord/x",
    ],
)
def test_an_own_name_is_no_proof(archives: Path, tmp_path: Path, convert: Run, name: str) -> None:
    path = tmp_path / "o" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert_refused(convert(f"--input={archives}/train", f"--output={tmp_path}/o"), "expected a new folder, .* found")
    assert tree(tmp_path / "o") == {name: b"mine"}


def test_a_mark_vouches_for_what_it_names_alone(archives: Path, tmp_path: Path, convert: Run) -> None:
    out = tmp_path / "o"
    flags = (f"--input={archives}/train", f"--output={out}")
    interrupted(convert, *flags, "--num_shards=train=2")
    (out / "train-00001-of-00003.tfrecord").write_text("another set's")
    before = tree(out)
    assert_refused(convert(*flags, "--num_shards=train=2"), r"found train-00001-of-00003.tfrecord in it; name another")
    assert tree(out) == before
    (out / "train-00001-of-00003.tfrecord").unlink()
    (out / "test-00000-of-00001.tfrecord").write_text("another split's")
    assert_refused(convert(*flags, "--num_shards=train=2"), r"found test-00000-of-00001.tfrecord in it")


def test_an_interrupted_conversion_goes_on_with_other_shards_and_leaves_none(
    archives: Path, tmp_path: Path, convert: Run
) -> None:
    out = tmp_path / "o"
    flags = (f"--input={archives}/train", f"--output={out}")
    interrupted(convert, *flags, "--num_shards=train=5")
    interrupted(convert, *flags, "--num_shards=train=3")
    assert json.loads((out / UNFINISHED).read_text())["num_shards"] == {"train": [3, 5]}
    (out / "train-00000-of-00005.tmp-12345678.tfrecord").write_text("half")
    (out / "_unfinished.tmp-12345678.json").write_text("")
    (out / ".DS_Store").write_text("macOS")
    assert convert(*flags, "--num_shards=train=2")[0] == 0
    shards = {path.name for path in out.rglob("*-of-*")}
    assert shards == {f"train-0000{i}-of-00002.{end}" for i in range(2) for end in ("tfrecord", "parquet")}
    assert {path.name for path in out.iterdir() if path.name.startswith(("_", "."))} == {".DS_Store"}
    assert not [path for path in out.rglob("*") if without_temporary_mark(path.name) != path.name]


@pytest.mark.parametrize("content", ["", "mine", "{}", '{"conversion": "../..", "num_shards": {"train": [1]}}'])
def test_a_mark_that_is_none_is_someones_file(archives: Path, tmp_path: Path, convert: Run, content: str) -> None:
    path = tmp_path / "o" / UNFINISHED
    path.parent.mkdir()
    path.write_text(content)
    assert_refused(convert(f"--input={archives}/train", f"--output={tmp_path}/o"), f"found {UNFINISHED} in it")
    assert path.read_text() == content


def test_a_mark_that_is_no_file_is_not_waited_for(archives: Path, tmp_path: Path, convert: Run) -> None:
    (tmp_path / "o").mkdir()
    os.mkfifo(tmp_path / "o" / UNFINISHED)
    assert_refused(convert(f"--input={archives}/train", f"--output={tmp_path}/o"), f"found {UNFINISHED} in it")


def test_a_conversion_killed_as_it_began_leaves_no_obstacle(archives: Path, tmp_path: Path, convert: Run) -> None:
    out = tmp_path / "o"
    out.mkdir()
    (out / LOCK).write_text("")
    (out / "_unfinished.tmp-12345678.json").write_text("")
    (out / "lost+found").mkdir()
    assert convert(f"--input={archives}/train", f"--output={out}")[0] == 0
    assert not (out / "_unfinished.tmp-12345678.json").exists()


def test_one_that_began_and_stopped_meanwhile_is_left_alone(
    archives: Path, tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.storage import lock

    really = lock.locked

    def after_another(output: str) -> object:
        Path(output).mkdir()
        unfinished.begin(output, unfinished.Unfinished().added({"train": 1}))
        return really(output)

    monkeypatch.setattr(lock, "locked", after_another)
    message = "found that of a conversion which has begun and ended meanwhile; run the same command again"
    assert_refused(convert(f"--input={archives}/train", f"--output={tmp_path}/o"), message)
    monkeypatch.undo()
    assert convert(f"--input={archives}/train", f"--output={tmp_path}/o")[0] == 0


@pytest.mark.parametrize("where", [".", "..", "link", "data/out", "/"])
def test_wherever_the_output_is(
    archives: Path, tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Where somebody's files lie it is refused; inside an input folder, or through a link to an empty one, it goes."""
    shutil.copytree(archives / "train", tmp_path / "data")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    monkeypatch.chdir(tmp_path / "data" if where in (".", "..") else tmp_path)
    before = tree(tmp_path)
    outcome = convert(f"--input={tmp_path}/data", f"--output={where}")
    if where in (".", "..", "/"):
        assert_refused(outcome, "expected a new folder, or that of an interrupted conversion, found")
        assert tree(tmp_path) == before
    else:
        assert outcome[0] == 0
        assert before.items() <= tree(tmp_path).items()
        assert (tmp_path / where / CARD).exists()


@pytest.mark.parametrize("staging", ["data/out/_staging", "data", "data/pieces"])
def test_what_a_conversion_wrote_is_no_input_when_it_goes_on(
    archives: Path, tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch, staging: str
) -> None:
    shutil.copytree(archives / "train", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    flags = ("--input=data", "--output=data/out", f"--staging={staging}")

    def stopped(*_: object) -> None:
        raise UserError("stopped")

    monkeypatch.setattr(publish, "build_card", stopped)
    assert_refused(convert(*flags), "stopped")
    assert list((tmp_path / "data" / "out").glob("*.tfrecord"))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert convert(*flags)[0] == 0
    passed = read_card(tmp_path / "data" / "out").passed_over
    assert passed is not None
    assert passed.count == 0


def test_a_file_in_the_outputs_place_is_one_line(archives: Path, tmp_path: Path, convert: Run) -> None:
    (tmp_path / "o").write_text("mine")
    for output in (tmp_path / "o", tmp_path / "o" / "deeper"):
        assert_refused(convert(f"--input={archives}/train", f"--output={output}"), "a file stands where a folder is")
    assert (tmp_path / "o").read_text() == "mine"


def test_in_somebodys_own_pipeline_the_mark_stands_first(archives: Path, tmp_path: Path) -> None:
    import apache_beam as beam

    made = pipeline.ConvertArchives(pipeline.Settings([f"{archives}/train"], f"{tmp_path}/o"))
    _ = beam.Pipeline() | made
    assert [path.name for path in (tmp_path / "o").iterdir()] == [UNFINISHED]


# Staging


def keeping(staging: Path, name: str, *flags: str) -> tuple[str, ...]:
    return (f"--staging={staging}", f"--output={staging.parent}/{name}", "--num_shards=train=2", *flags)


def test_kept_pieces_survive_whoever_else_uses_the_folder(
    archives: Path, tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging, train = tmp_path / "pieces", f"--input={archives}/train"
    assert convert(train, *keeping(staging, "kept", "--keep_staging"))[0] == 0
    kept = tree(staging)
    assert len(kept) == 2 * 3
    assert convert(train, *keeping(staging, "other", "--image_size=32"))[0] == 0
    assert tree(staging) == kept
    staged: list[object] = []
    really = chunk._stage
    monkeypatch.setattr(chunk, "_stage", lambda *given: staged.append(given) or really(*given))
    assert convert(train, *keeping(staging, "same"))[0] == 0
    assert (staged, tree(staging)) == ([], kept)
    assert digests(tmp_path / "same") == digests(tmp_path / "kept")
    interrupted(convert, train, *keeping(staging, "stopped", "--image_size=16"))
    assert convert(train, *keeping(staging, "stopped", "--image_size=16"))[0] == 0
    assert tree(staging) == kept
    assert [path for path in staging.iterdir() if path.is_dir()] == []


def test_two_conversions_share_staging_at_the_same_time(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One ends, and clears up, while the other is between its chunks and its shards."""
    from pipeline.convert import transforms

    settings = [
        pipeline.Settings([f"{archives}/train"], f"{tmp_path}/{name}", staging=f"{tmp_path}/pieces") for name in "ab"
    ]
    staged, ended = threading.Event(), threading.Event()
    really = transforms.write_shard

    def write(split: str, shard: int, batches: list[object], config: object, output: str, *rest: str) -> object:
        if output.endswith("/a"):
            staged.set()
            assert ended.wait(60)
        return really(split, shard, batches, config, output, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(transforms, "write_shard", write)
    first = threading.Thread(target=pipeline.run_conversion, args=[settings[0]])
    first.start()
    assert staged.wait(60)
    pipeline.run_conversion(settings[1])
    ended.set()
    first.join()
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert tree(tmp_path / "pieces") == {}


@pytest.mark.parametrize("place", ["o", ".", "o/pieces/deep", "o/manifest", "in/train"])
def test_wherever_staging_is(archives: Path, tmp_path: Path, convert: Run, place: str) -> None:
    """The output itself, above it, inside it, among its parts, an input."""
    shutil.copytree(archives / "train", tmp_path / "in" / "train")
    (tmp_path / "thesis.txt").write_text("mine")
    before = tree(tmp_path)
    out = tmp_path / "o"
    flags = (f"--input={tmp_path}/in/train", f"--output={out}", f"--staging={tmp_path}/{place}")
    interrupted(convert, *flags)
    assert convert(*flags)[0] == 0
    after = tree(tmp_path)
    assert before.items() <= after.items()
    assert not [name for name in after if "chunk-" in name or "conversion-" in name]


@pytest.mark.parametrize("name", ["o", "o/manifest", "o/."])
def test_pieces_are_not_kept_among_the_shards(archives: Path, tmp_path: Path, convert: Run, name: str) -> None:
    flags = (f"--input={archives}/train", f"--output={tmp_path}/o", f"--staging={tmp_path}/{name}", "--keep_staging")
    assert_refused(
        convert(*flags), "--keep_staging: expected another --staging than .*, where the kept pieces would lie"
    )
    assert not (tmp_path / "o").exists()


def test_a_piece_of_an_archive_that_kept_size_and_time_is_made_again(
    archives: Path, tmp_path: Path, convert: Run
) -> None:
    path, other = tmp_path / "1001-c.gnt", archives / "train/1001-c.gnt"
    shutil.copy2(other, path)
    staging = tmp_path / "pieces"
    assert convert(f"--input={path}", *keeping(staging, "before", "--keep_staging"))[0] == 0
    content = bytearray(path.read_bytes())
    content[500] ^= 255
    was = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (was.st_mtime_ns, was.st_size)
    assert convert(f"--input={path}", *keeping(staging, "after", "--keep_staging"))[0] == 0
    assert convert(f"--input={path}", f"--output={tmp_path}/alone", "--num_shards=train=2")[0] == 0
    assert digests(tmp_path / "after") == digests(tmp_path / "alone") != digests(tmp_path / "before")


@pytest.mark.parametrize("content", ['{"records": 3}', "[]", '{"content": null, "batches": 3, "more": 1}'])
def test_a_receipt_of_another_release_is_passed_over(
    archives: Path, tmp_path: Path, convert: Run, content: str
) -> None:
    staging, train = tmp_path / "pieces", f"--input={archives}/train"
    assert convert(train, *keeping(staging, "a", "--keep_staging"))[0] == 0
    for path in staging.glob("*.json"):
        given = {**json.loads(path.read_text()), "more": 1} if "more" in content else json.loads(content)
        path.write_text(json.dumps(given))
    assert convert(train, *keeping(staging, "b", "--keep_staging"))[0] == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_the_default_staging_goes_away(archives: Path, tmp_path: Path, convert: Run) -> None:
    assert convert(f"--input={archives}/train", f"--output={tmp_path}/o")[0] == 0
    assert not (tmp_path / "o" / STAGING_FOLDER).exists()
