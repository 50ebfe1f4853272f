"""Whether a copy of CASIA's archives is whole: told from the card's counts, and from MD5 where it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.inspect import official
from pipeline.inspect.official import Publication, checksum_lines, official_lines
from schemas.dataset import Card, Counts, MemberInput


def card(*inputs: MemberInput) -> Card:
    return Card("1.0.0", {}, 1, "", {}, {}, inputs)


def members(writers: Sequence[int], records: int, archive: str = "", split: str = "train") -> list[MemberInput]:
    """Members of those writers with so many records in all, the last one with what doesn't divide."""
    each, rest = divmod(records, len(writers))
    counts = [each] * (len(writers) - 1) + [each + rest]
    return [
        MemberInput(split, f"/in/{archive}", archive or f"{w}-c.gnt", f"{w}-c.gnt", str(w), 9, Counts(n, n, {}, {}))
        for w, n in zip(writers, counts, strict=True)
    ]


TRAIN, TEST = range(1001, 1241), range(1241, 1301)
NOT_1115 = [writer for writer in TRAIN if writer != 1115]
PARTS = ("Gnt1.1TrainPart1.zip", "Gnt1.1TrainPart2.zip")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (members(TRAIN, 897_758), "HWDB1.1, old edition, training set: whole, 897,758 records in 240 files"),
        (members(TEST, 223_991), "HWDB1.1, old edition, test set: whole, 223,991 records in 60 files"),
        (members(TRAIN, 938_679), "HWDB1.1, 2020 edition, training set: whole"),
        (members(TEST, 234_228), "HWDB1.1, 2020 edition, test set: whole"),
        (members(TEST, 234_228, "Gnt1.1Test.zip"), "HWDB1.1, 2020 edition, test set: whole"),
        (
            members(NOT_1115, 894_053),
            "old edition, training set: 1115-c.gnt is missing, as from some copies; 894,053 of 897,758 records",
        ),
        (members(NOT_1115, 894_052), "not whole, expected 897,758 records, found 894,052; missing writers: 1115;"),
        (members(range(1003, 1240), 886_000), "missing writers: 1001-1002, 1240"),
        (members(TRAIN[:120], 470_000, PARTS[0]), "Gnt1.1TrainPart2.zip isn't among the inputs"),
        (
            members(TRAIN[:120], 470_000, PARTS[0]) + members(TRAIN[120:], 468_679, PARTS[1], "validation"),
            "2020 edition, training set: whole, 938,679 records",
        ),
        (members(TRAIN, 897_000), "not whole, expected 897,758 records, found 897,000; download it again"),
        (members(range(1, 61), 224_419), "ICDAR-2013 competition set: whole"),
        (members(TRAIN[:10], 37_770), "not recognised as one of CASIA's archives"),
        (members(range(1, 60), 224_419), "not recognised as one of CASIA's archives"),
    ],
)
def test_a_copy_is_whole_or_not(inputs: list[MemberInput], said: str) -> None:
    (line,) = official_lines(card(*inputs))
    assert said in line


def test_one_large_file_and_several_sets_at_once() -> None:
    single = MemberInput(
        "train", "/x", "x", "1.0train-gb1.gnt", "1.0train-gb1", 9, Counts(1_246_991, 9, {}, {"blank": 7})
    )
    lines = official_lines(card(single, *members(TRAIN, 897_758), *members(TEST, 223_991, split="test")))
    assert [line.split(": ")[0] for line in lines] == [
        "HWDB1.0, training set",
        "HWDB1.1, old edition, training set",
        "HWDB1.1, old edition, test set",
    ]
    assert lines[0].endswith("whole, 1,246,991 records in 1 file, as published, 7 of them rejected")


def test_checksums_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad, gone = (tmp_path / name for name in (*PARTS, "Gnt1.1Test.zip"))
    good.write_bytes(b"good")
    bad.write_bytes(b"bad")
    expected = {PARTS[0]: hashlib.md5(b"good").hexdigest(), PARTS[1]: "0" * 32, gone.name: "1" * 32}
    one = Publication("x", 1, archives=expected)
    monkeypatch.setattr(official, "_BY_ARCHIVE", dict.fromkeys(expected, one))
    entries = [
        MemberInput("train", str(path), path.name, "1-c.gnt", "1", 9, Counts(1, 1, {}, {}))
        for path in (good, bad, gone)
    ]
    lines = checksum_lines(card(*entries))
    assert lines[1] == f"{PARTS[0]}: MD5 as published"
    assert (
        lines[2] == f"{PARTS[1]}: MD5 expected {'0' * 32}, found {hashlib.md5(b'bad').hexdigest()}; download it again"
    )
    assert lines[0].startswith("Gnt1.1Test.zip: MD5 not checked, it isn't at")
    moved = tmp_path / "elsewhere" / gone.name
    moved.parent.mkdir()
    moved.write_bytes(b"x")
    assert "expected 1111" in checksum_lines(card(entries[2]), [str(moved)])[0]
    assert checksum_lines(card(*members([1], 1))) == ["no MD5 is known of these archives"]
