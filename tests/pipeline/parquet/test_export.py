"""An export's bytes, its place, what is said of an origin, and what verify finds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import s3_server
from commands import assert_refused, called, converted, digests, rows_of
from exports import exported

from pipeline import parquet, verify
from pipeline.parquet import write
from schemas.dataset import read_card


@pytest.fixture
def copy(exports: dict[str, Path], tmp_path: Path) -> Path:
    """An export that a test may damage."""
    return Path(shutil.copytree(exports["raw"], tmp_path / "out"))


def test_the_bytes_depend_neither_on_the_encoding_nor_on_processes(
    shards: dict[str, Path], exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "SMALL_BYTES", 0)
    again = exported(shards["png"], tmp_path / "again", "--processes=2")
    assert digests(again) == digests(exports["raw"]) == digests(exports["png"])


def test_verify_finds_what_is_wrong_and_in_which_file(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = called(verify.main, capsys)
    status, out, _ = run(copy)
    assert (status, out.startswith(f"{copy}: intact; an export of 34 files, ")) == (0, True)
    files = [path for path in sorted(copy.rglob("*")) if path.is_file()]
    for path in (*files[::6], copy / "SHA256SUMS"):
        content = path.read_bytes()
        path.write_bytes(content[:70] + bytes([content[70] ^ 1]) + content[71:])
        status, out, _ = run(copy)
        assert status == 1
        assert path.name in out or path.name == "SHA256SUMS"
        path.write_bytes(content)
    (copy / "data/train-00001-of-00002.parquet").rename(copy / "data/other.parquet")
    status, out, _ = run(copy)
    assert status == 1
    assert "train-00001-of-00002.parquet: expected the file" in out
    assert "data/other.parquet: expected only what SHA256SUMS lists" in out
    assert_refused(run(copy, "--against", copy), "expected a data set for --against, found its export")
    (copy / "SHA256SUMS").unlink()  # what a killed export leaves
    assert_refused(run(copy), "expected dataset.json, found none")


def test_only_an_export_as_it_was_makes_room(
    shards: dict[str, Path], copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = called(parquet.main, capsys)
    before = digests(copy)
    assert run(shards["raw"], f"--output={copy}")[0] == 0
    assert digests(copy) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    (copy / "data/notes.txt").write_text("mine")
    assert_refused(run(shards["raw"], f"--output={copy}"), "stays as it is")
    (copy / "data/notes.txt").unlink()
    (copy / "README.md").write_text("edited")
    assert_refused(run(shards["raw"], f"--output={copy}"), "stays as it is")
    sums = "".join(f"{digest}  {name}\n" for name, digest in digests(copy).items() if name != "SHA256SUMS")
    (copy / "SHA256SUMS").write_text(sums)  # somebody's own, of somebody's own files
    assert_refused(run(shards["raw"], f"--output={copy}"), "stays as it is")
    assert_refused(run(shards["raw"], f"--output={shards['raw']}"), "stays as it is")


def test_nothing_is_left_of_one_that_was_interrupted_and_an_earlier_one_stays(
    shards: dict[str, Path],
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    before = digests(copy)
    monkeypatch.setattr(write, "croissant_of", interrupted)
    for place in (copy, tmp_path / "new"):
        assert called(parquet.main, capsys)(shards["raw"], f"--output={place}")[0] == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert digests(copy) == before


@pytest.mark.parametrize("what", ["shard", "manifest"])
def test_a_damaged_data_set_is_refused(
    what: str, shards: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(shards["raw"], tmp_path / "set"))
    file = read_card(folder).splits["train"].shards[1]
    path = folder / (file.path if what == "shard" else file.manifest_path)
    content = path.read_bytes()
    path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:] if what == "shard" else content[:99])
    assert_refused(called(parquet.main, capsys)(folder, f"--output={tmp_path}/out"), f"{path}.*pipeline.verify")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "licence", "said"),
    [((), "license: unknown", "whose handwriting"), (("--origin=drawn",), "license: unknown", "drawn by hwdb sample")],
)
def test_no_terms_are_claimed_that_nobody_stated(
    flags: tuple[str, ...],
    licence: str,
    said: str,
    archives: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = converted(tmp_path / "set", f"--input=test={archives}/test")
    card = (exported(folder, tmp_path / "out", *flags) / "README.md").read_text()
    assert ("--origin casia" in capsys.readouterr().out) == (not flags)
    for text in (card, (tmp_path / "out/croissant.json").read_text()):
        assert said in text
        assert "CASIA" not in text
    assert licence in card


def test_what_contradicts_the_card_is_refused(
    shards: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = called(parquet.main, capsys)(shards["raw"], f"--output={tmp_path}/out", "--origin=drawn")
    assert_refused(outcome, "--origin drawn: the card says CASIA-HWDB")


def test_a_part_of_the_records(
    shards: dict[str, Path], exports: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = images_of(exports["raw"])
    writer = next(row["writer"] for row in whole.values())
    where = f"--where=writer = '{writer}' AND ink_fraction > 0.1"
    wanted = {row["sample_id"] for row in rows_of(shards["raw"]) if row["status"] == "kept"}
    wanted &= {row["sample_id"] for row in rows_of(shards["raw"]) if row["writer"] == writer}
    wanted &= {row["sample_id"] for row in rows_of(shards["raw"]) if (row["ink_fraction"] or 0) > 0.1}
    part = exported(shards["png"], tmp_path / "part", where)
    found = images_of(part)
    assert 0 < len(found) < len(whole)
    assert found == {name: row for name, row in whole.items() if name in wanted}
    splits = {name.partition("/")[0] for name in found}
    assert {path.name.partition("-")[0] for path in part.glob("data/*")} == splits
    card = (part / "README.md").read_text()
    assert f"writer = '{writer}' AND ink_fraction > 0.1. {len(whole) - len(found):,} others were left out" in card
    assert f"{len(found):,} images of single handwritten characters by 1 writers" in card
    assert "by 1 writers" in (part / "croissant.json").read_text()
    run = called(parquet.main, capsys)
    assert run(shards["raw"], f"--output={part}", where)[0] == 0  # an earlier export makes room
    assert images_of(part) == found
    assert called(verify.main, capsys)(part)[0] == 0
    assert_refused(run(shards["raw"], f"--output={tmp_path}/x", "--where=ink > 1"), "where ink > 1: expected a column")
    none = run(shards["raw"], f"--output={tmp_path}/x", "--where=writer = 'x'")
    assert_refused(none, "where writer = 'x': expected some of the records of .*, found none")
    assert not (tmp_path / "x").exists()


def test_out_of_a_bucket(
    shards: dict[str, Path],
    exports: dict[str, Path],
    server: s3_server.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The bytes are those of a local export, by several processes, led there by a flag, whatever fails for a moment."""
    url = server.put_folder(shards["raw"], "set")
    failures = [503, 503]
    server.fault = lambda kind, _: failures.pop() if kind == "GET" and failures else None
    assert digests(exported(url, tmp_path / "one")) == digests(exports["raw"])
    monkeypatch.setattr(write, "SMALL_BYTES", 0)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    again = exported(url, tmp_path / "two", "--processes=2", f"--s3_endpoint_url={server.url}")
    assert digests(again) == digests(exports["raw"])
    flags = (f"--output={tmp_path}/three", f"--s3_endpoint_url={server.url}")
    shard = server.objects("set/train-00000-of-00002.tfrecord")[""]
    server.put("set/train-00000-of-00002.tfrecord", shard[:3000] + bytes([shard[3000] ^ 1]) + shard[3001:])
    assert_refused(called(parquet.main, capsys)(url, *flags), r"train-00000-of-00002\.tfrecord, byte .*pipeline.verify")
    assert not (tmp_path / "three").exists()


def images_of(export: Path) -> dict[str, dict[str, object]]:
    """sample_id -> row of every image."""
    return {row["sample_id"]: row for path in export.glob("data/*") for row in pq.read_table(path).to_pylist()}
