"""What CASIA published, and whether a data set holds all of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline import storage
from schemas.dataset import Card, MemberInput
from schemas.errors import explained


@dataclass(frozen=True, eq=False)
class Publication:
    """A set of members that belong together, as CASIA gives them out."""

    name: str
    records: int
    members: int | None = None
    """How many; None where nobody wrote it down."""
    archives: Mapping[str, str] = field(default_factory=dict)
    """Base name -> MD5, empty where it isn't known."""
    writers: range = range(0)
    """The writers' numbers."""
    known_gaps: Mapping[str, int] = field(default_factory=dict)
    """Writer whom some copies lack -> records of that writer."""


_TRAIN, _TEST = range(1001, 1241), range(1241, 1301)
OLD_TRAIN = Publication(
    "HWDB1.1, old edition, training set",
    897_758,
    240,
    {"HWDB1.1trn_gnt.zip": "", "HWDB1.1trn_gnt_P1.zip": "", "HWDB1.1trn_gnt_P2.zip": ""},
    _TRAIN,
    {"1115": 897_758 - 894_053},
)
OLD_TEST = Publication("HWDB1.1, old edition, test set", 223_991, 60, {"HWDB1.1tst_gnt.zip": ""}, _TEST)
NEW_TRAIN = Publication(
    "HWDB1.1, 2020 edition, training set",
    938_679,
    240,
    {
        "Gnt1.1TrainPart1.zip": "72bac7b6a5ce37f184f277421adfacfd",
        "Gnt1.1TrainPart2.zip": "a8b76e4eccfb1fd8d56c448f6a096c27",
    },
    _TRAIN,
)
NEW_TEST = Publication(
    "HWDB1.1, 2020 edition, test set",
    234_228,
    60,
    {"Gnt1.1Test.zip": "e74f9a4863e73d8b80ed402452c97448"},
    _TEST,
)
HWDB10_TRAIN = Publication("HWDB1.0, training set", 1_246_991, 1)
ICDAR_2013 = Publication("ICDAR-2013 competition set", 224_419, 60)

_SINGLE_MEMBERS = {"1.0train-gb1.gnt": HWDB10_TRAIN}
_BY_ARCHIVE = {archive: one for one in (OLD_TRAIN, OLD_TEST, NEW_TRAIN, NEW_TEST) for archive in one.archives}
_EDITIONS = ((_TRAIN, OLD_TRAIN, NEW_TRAIN), (_TEST, OLD_TEST, NEW_TEST))


def official_lines(card: Card) -> list[str]:
    """For each publication among the inputs a line that says whether it is whole; one line if there is none."""
    found = _recognise(card.inputs)
    if not found:
        return ["not recognised as one of CASIA's archives: there are no published counts to compare with"]
    return [_line(one, members) for one, members in found]


def checksum_lines(card: Card, replaced: Sequence[str] = ()) -> list[str]:
    """The MD5 of every archive for which CASIA's is known; `replaced` says where archives lie now."""
    now = {storage.base_name(path): path for path in replaced}
    lines = []
    for archive, location in sorted({(entry.archive, entry.location) for entry in card.inputs}):
        expected = _BY_ARCHIVE[archive].archives[archive] if archive in _BY_ARCHIVE else ""
        path = now.get(archive, location)
        if not expected:
            continue
        if not storage.exists(path):
            lines.append(f"{archive}: MD5 not checked, it isn't at {path} any more; name it with --against")
            continue
        digest = _md5(path)
        whole = "as published" if digest == expected else f"expected {expected}, found {digest}; download it again"
        lines.append(f"{archive}: MD5 {whole}")
    return lines or ["no MD5 is known of these archives"]


def _recognise(inputs: Sequence[MemberInput]) -> list[tuple[Publication, list[MemberInput]]]:
    by_name: dict[Publication | None, list[MemberInput]] = {}
    for entry in inputs:
        by_name.setdefault(_SINGLE_MEMBERS.get(entry.member) or _BY_ARCHIVE.get(entry.archive), []).append(entry)
    rest = by_name.pop(None, [])
    found = [(one, own) for one, own in by_name.items() if one]
    for writers, old, new in _EDITIONS:
        own = [entry for entry in rest if entry.writer.isdecimal() and int(entry.writer) in writers]
        # Synthetic samples are named like this too, but have a few writers.
        if len({entry.writer for entry in own}) * 2 >= len(writers):
            found.append((_nearest(own, old, new), own))
    if len(rest) == ICDAR_2013.members and (
        _read(rest) == ICDAR_2013.records or all(re.match(r"C\d{3}\b", entry.writer) for entry in rest)
    ):
        found.append((ICDAR_2013, rest))
    return found


def _nearest(members: Sequence[MemberInput], *editions: Publication) -> Publication:
    """The edition with the nearest number of records a writer."""
    each = _read(members) / len({entry.writer for entry in members})
    return min(editions, key=lambda one: abs(one.records / len(one.writers) - each))


def _line(one: Publication, members: Sequence[MemberInput]) -> str:
    read = _read(members)
    rejected = sum(entry.counts.by_status["rejected"] for entry in members)
    broken = f", {rejected:,} of them rejected" if rejected else ""
    if read == one.records:
        of = f" in {one.members:,} {'file' if one.members == 1 else 'files'}" if one.members else ""
        return f"{one.name}: whole, {read:,} records{of}, as published{broken}"
    missing = sorted({str(number) for number in one.writers} - {entry.writer for entry in members})
    if missing and read == one.records - sum(one.known_gaps.get(writer, one.records) for writer in missing):
        names = ", ".join(f"{writer}-c.gnt" for writer in missing)
        return f"{one.name}: {names} is missing, as from some copies; {read:,} of {one.records:,} records{broken}"
    parts = [f"not whole, expected {one.records:,} records, found {read:,}{broken}"]
    absent = [archive for archive in one.archives if archive not in {entry.archive for entry in members}]
    if len(absent) < len(one.archives) and absent and one is NEW_TRAIN:
        parts.append(f"{', '.join(absent)} isn't among the inputs")
    elif missing:
        parts.append(f"missing writers: {_ranges(missing)}")
    return f"{one.name}: {'; '.join(parts)}; download it again, or leave it so if that is meant"


def _ranges(writers: Sequence[str]) -> str:
    """1001-1003, 1115 of 1001, 1002, 1003, 1115."""
    runs: list[list[int]] = []
    for number in map(int, writers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _read(members: Sequence[MemberInput]) -> int:
    return sum(entry.counts.read for entry in members)


def _md5(path: str) -> str:
    with explained(f"read {path}"), storage.open_read(path) as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()  # type: ignore[arg-type]
