"""Which split: whole writers for validation, and inputs whose folders are named for another split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import gnt_files
import pytest
from commands import Run, assert_refused
from hypothesis import given
from hypothesis import strategies as st

from pipeline.source.archives import Input, list_inputs
from pipeline.source.splits import named_split, validation_writers
from schemas.errors import UserError

MEMBER = gnt_files.member(gnt_files.records_of("啊阿"))
WRITERS = [str(number) for number in range(1001, 1241)]


def smallest(writers: list[str], count: int) -> set[str]:
    """Those with the smallest hashes, by the rule of docs/convert.md."""
    return set(
        sorted(writers, key=lambda w: hashlib.blake2b(w.encode(), digest_size=8, person=b"validation").digest())[:count]
    )


@pytest.mark.parametrize(
    ("n", "fraction", "count"),
    [
        (10, 0.1, 1),
        (240, 0.2, 48),
        (240, 0.1, 24),
        (100, 0.07, 7),
        (3, 0.0001, 1),
        (2, 0.5, 1),
        (7, 0.5, 4),
        (240, 0.29, 70),
    ],
)
def test_validation_takes_as_many_writers_as_it_says(n: int, fraction: float, count: int) -> None:
    assert validation_writers(WRITERS[:n], fraction) == smallest(WRITERS[:n], count)


def test_the_same_writers_on_every_machine() -> None:
    assert sorted(validation_writers(WRITERS, 0.02)) == GOLDEN
    assert sorted(validation_writers(WRITERS[::-1], 0.02)) == GOLDEN


GOLDEN = ["1116", "1124", "1158", "1169", "1221"]


@given(st.sets(st.text("abc01", min_size=1), min_size=2, max_size=40), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_more_of_them_are_those_and_others(writers: set[str], a: float, b: float) -> None:
    low, high = sorted((a, b))
    if math.ceil(Fraction(str(high)) * len(writers)) < len(writers):
        assert validation_writers(writers, low) <= validation_writers(writers, high)


def test_one_person_is_not_divided() -> None:
    writers = {f"{kind}{number:03}" for kind in "cC" for number in range(40)}
    chosen = validation_writers(writers, 0.25)
    assert len(chosen) == 20
    assert {writer.swapcase() for writer in chosen} == chosen


@pytest.mark.parametrize("n", [2, 3, 7, 10, 240])
def test_all_of_them_is_refused_and_the_advice_helps(n: int) -> None:
    with pytest.raises(
        UserError, match=rf"leave some of train's {n} writers, it takes all; name .* or less"
    ) as refused:
        validation_writers(WRITERS[:n], 0.9999)
    advised = float(str(refused.value).split("; name ")[1].split()[0])
    assert len(validation_writers(WRITERS[:n], advised)) == n - 1


@pytest.mark.parametrize("fraction", ["0.1", "0.5", "0.9"])
def test_one_member_that_holds_everybody(tmp_path: Path, convert: Run, fraction: str) -> None:
    (tmp_path / "1.0train-gb1.gnt").write_bytes(MEMBER)
    flags = (f"--input={tmp_path}", f"--output={tmp_path}/o", f"--validation_fraction={fraction}")
    message = (
        "expected writers to choose from, found one, '1.0train-gb1', and a writer isn't divided; leave the flag out"
    )
    assert_refused(convert(*flags), message)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "1241-c.gnt").write_bytes(MEMBER)
    followed = (f"--input={tmp_path}/1.0train-gb1.gnt", f"--input=validation={tmp_path}/more", f"--output={tmp_path}/o")
    assert convert(*followed)[0] == 0


@pytest.mark.parametrize(
    ("folders", "inner", "split"),
    [
        (["train", "1001-c.gnt"], [], "train"),
        (["HWDB1.1tst_gnt.zip"], ["1241-c.gnt"], "test"),
        (["HWDB1.1trn_gnt_P1.zip"], ["1001-c.gnt"], "train"),
        (["Gnt1.1Test.zip"], ["1241-c.gnt"], "test"),
        (["Gnt1.1TrainPart2.zip"], ["1001-c.gnt"], "train"),
        (["all.zip"], ["HWDB", "test", "1241-c.gnt"], "test"),
        (["train", "val", "1.gnt"], [], "validation"),
        (["1.0test-gb1.gnt"], [], "test"),
        (["train_test", "1001-c.gnt"], [], None),
        (["contest", "latest", "invalid", "1001-c.gnt"], [], None),
    ],
)
def test_a_part_of_a_path_is_named_for_a_split(folders: list[str], inner: list[str], split: str | None) -> None:
    named = named_split(folders, inner, "/in/")
    assert (named and named.split) == split


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A folder with train/ and test/."""
    for split, writers in (("train", (1001, 1002)), ("test", (1241, 1242, 1243))):
        (tmp_path / "hwdb" / split).mkdir(parents=True)
        for writer in writers:
            (tmp_path / "hwdb" / split / f"{writer}-c.gnt").write_bytes(MEMBER)
    return tmp_path / "hwdb"


def lines(*inputs: Input) -> list[str]:
    return list(list_inputs(inputs, 0).warnings)


@pytest.mark.parametrize("pattern", ["", "/", "/*/*.gnt", "/**"])
def test_a_folder_of_both_as_one_input(both: Path, pattern: str) -> None:
    (line,) = lines(Input("train", f"{both}{pattern}"))
    assert f"--input train={both}{pattern}: test (3 members) goes into train, though named for test" in line
    assert line.endswith(f"name each for its own split: --input test={both}/test --input train={both}/train")


def test_each_for_its_own_split_says_nothing(both: Path) -> None:
    assert lines(Input("train", f"{both}/train"), Input("test", f"{both}/test")) == []


def test_archives_of_both_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "zips").mkdir()
    gnt_files.write_zip(tmp_path / "zips" / "HWDB1.1trn_gnt.zip", {"1001-c.gnt": MEMBER})
    gnt_files.write_zip(tmp_path / "zips" / "HWDB1.1tst_gnt.zip", {"1241-c.gnt": MEMBER})
    (line,) = lines(Input("train", str(tmp_path / "zips")))
    assert "HWDB1.1tst_gnt.zip (1 member) goes into train, though named for test" in line
    assert f"--input test={tmp_path}/zips/HWDB1.1tst_gnt.zip" in line
    (line,) = lines(Input("train", str(tmp_path / "zips" / "HWDB1.1tst_gnt.zip")))
    assert "goes into train, though named for test" in line


@pytest.mark.parametrize(("name", "is_told"), [("test", True), ("HWDB1.1tst_gnt", True), ("test_of_mine", False)])
def test_a_folder_named_for_another_split(tmp_path: Path, name: str, is_told: bool) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "1241-c.gnt").write_bytes(MEMBER)
    assert bool(lines(Input("train", str(tmp_path / name)))) == is_told
    assert lines(Input("test", str(tmp_path / name))) == []


def test_folders_of_both_in_one_zip(tmp_path: Path) -> None:
    path = gnt_files.write_zip(tmp_path / "a.zip", {"train/1001-c.gnt": MEMBER, "test/1241-c.gnt": MEMBER})
    (line,) = lines(Input("train", str(path)))
    assert "test (1 member) goes into train" in line
    assert line.endswith("if that isn't meant, unpack it, and name each for its own")


def test_the_line_is_shown(both: Path, tmp_path: Path, convert: Run, refused: Callable[[Path], str]) -> None:
    status, out, err = convert(f"--input={both}", f"--output={tmp_path}/o")
    assert (status, err) == (0, "")
    assert "though named for test" in out.splitlines()[0]
    assert "found nothing" in refused(both / "nowhere")
