"""An export's bytes, its place, what is said of an origin, and what verify finds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import assert_refused, called, converted, digests
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
