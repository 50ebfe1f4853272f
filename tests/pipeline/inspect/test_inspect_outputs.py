"""What `inspect` writes takes the place of nothing but what it wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import Run, assert_refused

SAYS = "stays as it is; choose another path, or move it away"


@pytest.mark.parametrize(
    ("flags", "name"), [(("--html",), "report.html"), (("show", "--char", "啊", "--output"), "啊.png")]
)
def test_a_foreign_file_stays_and_an_own_one_is_written_again(
    flags: tuple[str, ...], name: str, dataset: Path, tmp_path: Path, inspect: Run
) -> None:
    place = tmp_path / name
    place.write_text("a thesis")
    (tmp_path / f"link-{name}").symlink_to(place)
    for path in (place, tmp_path / f"link-{name}"):
        assert_refused(inspect(dataset, *flags, path), SAYS)
        assert place.read_text() == "a thesis"
    place.unlink()
    for _ in range(2):
        assert inspect(dataset, *flags, place)[0] == 0
    assert place.read_bytes() != b"a thesis"


def test_a_report_of_a_run_is_none_of_a_data_set(dataset: Path, tmp_path: Path, inspect: Run) -> None:
    place = tmp_path / "report.html"
    place.write_text('<meta name="generator" content="written by hwdb-shards model.report">')
    assert_refused(inspect(dataset, "--html", place), SAYS)


def test_the_data_sets_own_files_are_no_place(dataset: Path, tmp_path: Path, inspect: Run) -> None:
    copied = Path(shutil.copytree(dataset, tmp_path / "set"))
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    for path in [*before, copied / "train-00008-of-00009.tfrecord"]:
        assert_refused(inspect(copied, "--html", path), f"{SAYS}|is the name of a file of the data set")
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_an_index_replaces_an_index_only(dataset: Path, tmp_path: Path, inspect: Run) -> None:
    copied = Path(shutil.copytree(dataset, tmp_path / "set"))
    assert inspect(copied, "--index")[0] == 0
    index = next(copied.glob("*.idx"))
    lines = index.read_bytes()
    index.write_text("0 1\n1 1\n")  # of the shard that stood here before
    assert inspect(copied, "--index")[0] == 0
    assert index.read_bytes() == lines
    index.write_text("my index of all that was said\n")
    assert_refused(inspect(copied, "--index"), SAYS)
    assert index.read_text() == "my index of all that was said\n"
