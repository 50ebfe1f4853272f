"""Which split a member belongs to: whole writers for validation, and inputs whose folders are named for another."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from pipeline.source.names import person
from schemas.dataset import SPLITS
from schemas.errors import UserError

_WORDS = {
    "train": ("train", "trn", "training", "trainset", "traindata"),
    "validation": ("validation", "valid", "val", "dev", "validationset", "valset", "devset"),
    "test": ("test", "tst", "testing", "testset", "testdata"),
}
_DATA = {"hwdb", "casia", "gnt", "data", "set", "part", "p", "images", "offline", "files", "all"}
_SHOWN, _LONGEST = 4, 100
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}


def validation_writers(writers: Collection[str], fraction: float) -> set[str]:
    """Those of train's writers who go to validation: the ⌈fraction · n⌉ whose names have the smallest hashes.

    So the same inputs give the same ones on every machine. Raises UserError where none would be left to train on.
    """
    by_person: dict[str, set[str]] = {}
    for writer in writers:
        by_person.setdefault(person(writer), set()).add(writer)
    flag, n = f"--validation_fraction {fraction:g}", len(by_person)
    if not n:
        raise UserError(f"{flag}: expected --input for train to take writers from, found none")
    if n == 1:
        raise UserError(
            f"{flag}: expected writers to choose from, found one, {next(iter(writers))!r}, and a writer isn't divided; "
            "leave the flag out, and name other archives with --input validation=PATH"
        )
    count = math.ceil(Fraction(str(fraction)) * n)  # as it was typed: 0.07 · 100 is 7
    if count >= n:
        digits = 10 ** len(str(n))
        raise UserError(
            f"{flag}: expected it to leave some of train's {n} writers, it takes all; "
            f"name {(n - 1) * digits // n / digits:g} or less"
        )
    return {writer for one in sorted(by_person, key=_hash)[:count] for writer in by_person[one]}


def _hash(one: str) -> bytes:
    return hashlib.blake2b(one.encode("utf-8", "surrogateescape"), digest_size=8, person=b"validation").digest()


@dataclass(frozen=True)
class Named:
    """The part of a member's path that is named for a split: HWDB1.1tst_gnt for test."""

    split: str
    part: str
    path: str | None
    """What an input of its own would name; None inside a zip."""


def named_split(folders: Sequence[str], inner: Sequence[str], root: str) -> Named | None:
    """The part nearest to the file; `folders` is its path from `root` on, `inner` the rest of it, inside a zip.

    The folder that is the root itself says so only if its name says little else: somebody's test_run isn't meant.
    """
    parts = [*folders, *inner]
    for i in reversed(range(len(parts))):
        if split := _split_of(parts[i]):
            path = "/".join([*([root.rstrip("/")] if root else []), *folders[: i + 1]])
            return Named(split, parts[i], path if i < len(folders) else None)
    base = root.rstrip("/").rpartition("/")[2]
    if (split := _split_of(base)) and all(word in _SPLIT_OF or word in _DATA for word in _words(base)):
        return Named(split, base, root.rstrip("/"))
    return None


@lru_cache(1024)
def _split_of(part: str) -> str | None:
    splits = {_SPLIT_OF[word] for word in _words(part) if word in _SPLIT_OF}
    return splits.pop() if len(splits) == 1 else None


def _words(part: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", part[:_LONGEST])]


def misplaced_line(path: str, split: str, found: Sequence[Named]) -> str | None:
    """What to say of an input whose members lie in folders or archives that are named for other splits."""
    counted = Counter(one for one in found if one.split != split)
    if not counted:
        return None
    shown = [
        f"{one.part[:_LONGEST]} ({n:,} {'member' if n == 1 else 'members'})" for one, n in counted.most_common(_SHOWN)
    ]
    more = f" and {len(counted) - _SHOWN:,} more" if len(counted) > _SHOWN else ""
    others = " and ".join(name for name in SPLITS if name in {one.split for one in counted})
    inputs = [f"--input {one.split}={one.path}" for one, _ in Counter(found).most_common(_SHOWN) if one.path]
    advice = f"name each for its own split: {' '.join(inputs)}" if inputs else "unpack it, and name each for its own"
    return (
        f"--input {split}={path}: {', '.join(shown)}{more} goes into {split}, though named for {others}; "
        f"if that isn't meant, {advice}"
    )
