"""The class list: which characters a data set keeps, and the label of each.

Labels are keyed on the two raw tag bytes of a GNT record, never on a decoded string: the codecs gb2312 and gbk
disagree about A1A4 and A1AA, and some tags of CASIA's symbols exist in neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib import resources

import numpy as np

from schemas.errors import UserError

TAG_CODES = 1 << 16
OUTSIDE = -1
"""The label of a tag that isn't in the class list."""

_CODECS = ("gb2312", "gbk", "gb18030")


class ClassListError(UserError):
    """A class list that can't be used."""


@dataclass(frozen=True)
class ClassList:
    """Characters in label order: label i belongs to `characters[i]`."""

    characters: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.characters:
            raise ClassListError("the class list is empty; write one character a line, in UTF-8")
        seen: dict[bytes, int] = {}
        for label, character in enumerate(self.characters):
            line = label + 1
            tag = _tag_or_none(character)
            if tag is None:
                raise ClassListError(
                    f"class list, line {line}: expected one character that GNT's two-byte tags can name, "
                    f"found {character!r}"
                )
            if tag in seen:
                raise ClassListError(
                    f"class list, line {line}: {character!r} stands on line {seen[tag]} already; "
                    "each character is one class, remove one of the two"
                )
            seen[tag] = line

    def __len__(self) -> int:
        return len(self.characters)

    @cached_property
    def labels_by_tag_code(self) -> np.ndarray:
        """int16 [65536]: the label of every tag code (the tag bytes read big-endian), OUTSIDE where there is none."""
        return _labels_by_tag_code(self.characters)

    @cached_property
    def text(self) -> str:
        """The list as classes.txt holds it: one character a line, each line ended by a newline."""
        return "".join(f"{character}\n" for character in self.characters)

    @property
    def digest(self) -> str:
        """SHA-256 of classes.txt, in hex: two data sets with the same digest have the same labels."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@lru_cache(maxsize=1)  # a worker unpickles the same list with each piece of work
def _labels_by_tag_code(characters: tuple[str, ...]) -> np.ndarray:
    table = np.full(TAG_CODES, OUTSIDE, np.int16)
    for label, character in enumerate(characters):
        table[int.from_bytes(tag_of(character), "big")] = label
    table.setflags(write=False)
    return table


def parse_classes(text: str) -> ClassList:
    """The class list in `text` (one character a line); a byte order mark and Windows line ends are understood."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise ClassListError(f"class list, line {number}: expected one character, found an empty line; remove it")
    return ClassList(tuple(lines))


def default_classes() -> ClassList:
    """The 3,754 characters of GB2312 level 1 without 硷, in code order."""
    return parse_classes(resources.files(__package__).joinpath("classes.txt").read_text("utf-8"))


def tag_of(character: str) -> bytes:
    """The two tag bytes by which a GNT record names `character`; ASCII is padded with a NUL byte."""
    tag = _tag_or_none(character)
    if tag is None:
        raise ClassListError(f"{character!r} has no two-byte tag")
    return tag


@cache  # 65,536 tags at most
def character_of(tag: bytes) -> str | None:
    """The character that two tag bytes name, or None where no codec knows them."""
    if tag[1] == 0:
        return chr(tag[0]) if 0x20 < tag[0] < 0x7F else None
    if tag[0] < 0x81:
        return None
    for codec in _CODECS:
        try:
            decoded = tag.decode(codec)
        except UnicodeDecodeError:
            continue
        return decoded if len(decoded) == 1 else None
    return None


def characters_by_tag_code(tag_codes: Sequence[int] | np.ndarray) -> list[str | None]:
    """The character of each tag code, None where no codec knows it."""
    known = {int(code): character_of(int(code).to_bytes(2, "big")) for code in np.unique(np.asarray(tag_codes))}
    return [known[int(code)] for code in tag_codes]


def _tag_or_none(character: str) -> bytes | None:
    if len(character) != 1:
        return None
    for codec in _CODECS:
        try:
            encoded = character.encode(codec)
        except UnicodeEncodeError:
            continue
        if len(encoded) == 2:
            return encoded
        if len(encoded) == 1 and 0x20 < encoded[0] < 0x7F:
            return encoded + b"\0"
    return None
