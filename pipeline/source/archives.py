"""What the inputs hold: every .gnt member, its writer and split, and whatever else lies there, by its name."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from pipeline import storage
from pipeline.source import kinds, zips
from pipeline.source.collisions import named, short
from pipeline.source.kinds import Kind
from pipeline.source.members import Member, explained_zip
from pipeline.source.names import file_names
from pipeline.source.splits import Named, misplaced_line, named_split, validation_writers
from schemas.dataset import MOST_PASSED, SPLITS, PassedFile, PassedOver
from schemas.errors import UserError, explained, printable

_MOST_HEADS = 64  # files of an input that are looked into to tell what they are; a store is asked for each
_MOST_SHOWN = 8


@dataclass(frozen=True)
class Input:
    """One --input: a path, and the split its members belong to."""

    split: str
    path: str
    flag: str = "--input"
    """Where the path was given, for what is said of it."""


def parse_input(argument: str, flag: str = "--input") -> Input:
    """`train=PATH`, or PATH alone for train."""
    split, equals, path = argument.partition("=")
    if not equals or not re.fullmatch(r"\w+", split):
        return Input("train", argument, flag)
    if split not in SPLITS:
        raise UserError(
            f"{flag} {argument}: expected one of the splits {', '.join(SPLITS)}, found {split!r}; "
            f"for a path with a = in it write {flag} train={argument}"
        )
    if not path:
        raise UserError(f"{flag} {argument}: expected a path after {split}=, found none")
    return Input(split, path, flag)


@dataclass(frozen=True)
class Listing:
    """What the inputs hold."""

    members: Sequence[Member]
    """Sorted by split and name."""
    passed_over: PassedOver
    warnings: Sequence[str]
    """Lines that aren't errors."""


def list_members(inputs: Iterable[Input], validation_fraction: float) -> list[Member]:
    return list(list_inputs(inputs, validation_fraction).members)


def list_inputs(inputs: Iterable[Input], validation_fraction: float, without: Sequence[str] = ()) -> Listing:
    """Every member of every input, writers moved to validation by `validation_fraction`, and what is passed over.

    What lies in the folders `without` is no input: a conversion may write into the folder that it reads. Raises
    UserError for whatever can't be read, and where two members of a split share a name.
    """
    found = [_look_through(one, without) for one in inputs]
    members = [member for one in found for member in one.members]
    warnings = [line for one in found for line in one.warnings]
    warnings += _in_two_splits(members)
    if validation_fraction:
        moved = validation_writers({one.writer for one in members if one.split == "train"}, validation_fraction)
        members = [
            replace(one, split="validation") if one.split == "train" and one.writer in moved else one for one in members
        ]
    by_name: dict[tuple[str, str], Member] = {}
    for member in members:
        other = by_name.setdefault((member.split, member.name), member)
        if other is member:
            continue
        if (other.location, other.zip_entry) == (member.location, member.zip_entry):
            raise UserError(f"{member}: expected it once for {member.split}, found it in two --input; leave one out")
        raise UserError(
            f"{member.split}: expected every member's name once, found {member.name} in {other.location} and in "
            f"{member.location}; leave one of them out, or unpack and rename it"
        )
    passed = [one for of_input in found for one in of_input.passed]
    loud = [(file, kind) for file, kind in passed if not kind.is_harmless]
    if loud:
        warnings.append(f"passed over {_many(len(loud), 'file')} that aren't .gnt or .zip: {_named(loud)}")
    return Listing([by_name[key] for key in sorted(by_name)], _summed(passed), list(map(printable, warnings)))


@dataclass
class _Found:
    """What one input holds."""

    members: list[Member] = field(default_factory=list)
    passed: list[tuple[PassedFile, Kind]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)
    """Of each member that has one, the part of its path that is named for a split."""
    heads: int = 0
    """Files looked into."""

    def add(self, members: Sequence[Member], warnings: Sequence[str]) -> None:
        self.members += members
        self.warnings += warnings

    def pass_over(self, file: PassedFile, path: str, read_head: Callable[[], bytes | None]) -> None:
        def head() -> bytes | None:
            self.heads += 1
            with contextlib.suppress(OSError, UserError):
                return read_head() if self.heads <= _MOST_HEADS else None
            return None

        kind = kinds.of_file(path, head)
        self.passed.append((replace(file, what=kind.what), kind))


def _look_through(one: Input, without: Sequence[str]) -> _Found:
    with explained(f"read {one.path}"):
        files = storage.find(one.path)
        inside = filter(None, (storage.below(folder, one.path) for folder in without))
        own = tuple(f"{storage.join(one.path, folder)}/" for folder in inside)
        files = [file for file in files if not file.path.startswith(own)]
    found, root, loose = _Found(), _root(one.path, files), []
    for file in files:
        path = file.path[len(root) :]
        name = storage.base_name(file.path)
        suffix = name.lower().rpartition(".")[2]
        if name.startswith("._") or "/__MACOSX/" in file.path or suffix not in ("gnt", "zip", "alz"):
            passed = PassedFile(printable(file.path), printable(name), "")
            if file.special:
                found.passed.append((replace(passed, what=file.special), Kind(file.special, "leave it out", True)))
            else:
                found.pass_over(passed, path, partial(storage.read_range, file.path, 0, kinds.HEAD_BYTES))
            continue
        if suffix == "alz":
            raise zips.alz_error(file.path)
        if file.special:  # reading one could wait forever
            raise UserError(
                f"{file.path}: expected a file, found {file.special}; remove it, or name the files beside it"
            )
        if suffix == "gnt":
            loose.append(file)
        else:
            _look_into_zip(one, file, root, found)
    read = file_names([file.path[len(root) :] for file in loose])
    paths = [read.get(file.path[len(root) :], file.path[len(root) :]) for file in loose]
    members = [Member(one.split, file.path, "", file.size_bytes, file.version) for file in loose]
    found.add(*named(one.path, members, paths))
    found.named += filter(None, (named_split(path.split("/"), (), root) for path in paths))
    if not found.members:
        raise _nothing(one, found)
    line = misplaced_line(one.path, one.split, found.named)
    found.warnings += [line] if line else []
    return found


def _root(path: str, files: Sequence[storage.StoredFile]) -> str:
    """What the path of every file begins with and no name is told by: the folder, or what stands before a glob."""
    folder = path.rstrip("/") + "/"
    if files and all(file.path.startswith(folder) for file in files):
        return folder
    begin = path if [file.path for file in files] == [path] else re.split(r"[\[*?]", path)[0]
    return begin[: begin.rfind("/") + 1]


def _look_into_zip(one: Input, file: storage.StoredFile, root: str, found: _Found) -> None:
    with explained_zip(file.path), storage.open_read(file.path, 0, file.size_bytes, zips.BUFFER_BYTES) as stream:
        entries, others = zips.list_entries(file.path, stream)
        passed = len(found.passed)
        for other in others:
            of_zip = PassedFile(printable(file.path), short(printable(other.path)), "")
            found.pass_over(of_zip, other.path, partial(other.head, stream, kinds.HEAD_BYTES))
    if not entries:
        names = f": {_named(found.passed[passed:])}" if others else ""
        count = f"{len(others)} other file{'s' * (len(others) > 1)}" if others else "none"
        what = f"expected .gnt files in the zip, found {count}{names}"
        raise UserError(f"{file.path}: {what}; is this the right archive?")
    members = [
        Member(
            split=one.split,
            location=file.path,
            name="",
            size_bytes=entry.size_bytes,
            version=f"{entry.crc:08x}",
            zip_entry=entry.index,
            data_offset=entry.data_offset,
            deflated_bytes=entry.data_bytes if entry.is_deflated else None,
        )
        for entry in entries
    ]
    found.add(*named(file.path, members, [entry.path for entry in entries]))
    folders = file.path[len(root) :].split("/")
    found.named += filter(None, (named_split(folders, entry.path.split("/"), root) for entry in entries))


def _in_two_splits(members: Iterable[Member]) -> list[str]:
    """A line where one file is in two splits: what is learnt from it would be tested with it."""
    splits: dict[tuple[str, int | None], set[str]] = {}
    for member in members:
        splits.setdefault((member.location, member.zip_entry), set()).add(member.split)
    shared = [place for place, own in splits.items() if len(own) > 1]
    if not shared:
        return []
    names = " and ".join(name for name in SPLITS if name in splits[shared[0]])
    return [
        f"{_many(len(shared), 'member')} in more than one split, {shared[0][0]} in {names}: what is learnt from it is "
        "tested with it; if that isn't meant, name each input for one split"
    ]


def _nothing(one: Input, found: _Found) -> UserError:
    """The refusal of an input without a member: it says what is there instead."""
    expected = f"{one.flag} {one.split}={one.path}: expected a .gnt, a .zip, or a folder or glob of them, found"
    loud = [(file, kind) for file, kind in found.passed if not kind.is_harmless]
    if not loud:
        some = f"{len(found.passed)} other files: {_named(found.passed)}" if found.passed else "nothing"
        return UserError(f"{expected} {some}; check the path")
    if len(found.passed) == 1:
        return UserError(f"{expected} {loud[0][1].what}; {loud[0][1].advice}")
    return UserError(f"{expected} {len(found.passed)} other files: {_named(loud)}")


def _named(files: Sequence[tuple[PassedFile, Kind]]) -> str:
    """The files by name, what each is, and once for each kind what to do."""
    told: set[str] = set()
    shown = []
    for file, kind in files[:_MOST_SHOWN]:
        advice = "" if kind.what in told or kind.is_harmless else f": {kind.advice}"
        told.add(kind.what)
        name = file.name if file.name == file.name.strip() else repr(file.name)
        shown.append(f"{name} ({kind.what}{advice})")
    more = f" and {len(files) - _MOST_SHOWN:,} more" if len(files) > _MOST_SHOWN else ""
    return ", ".join(shown) + more


def _summed(passed: Sequence[tuple[PassedFile, Kind]]) -> PassedOver:
    in_order = sorted(passed, key=lambda one: (one[1].is_harmless, one[0].location, one[0].name))
    counted = Counter(kind.what for _, kind in passed)
    return PassedOver(len(passed), dict(sorted(counted.items())), [file for file, _ in in_order[:MOST_PASSED]])


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
