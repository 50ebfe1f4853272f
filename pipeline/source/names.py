"""What names say: in which letters a zip's are written, who wrote a member, and how members of one name differ."""

from __future__ import annotations

import re
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence

SUFFIX = ".gnt"
_UTF_8 = 0x800
_UNICODE_PATH = 0x7075
_MOST_FOLDERS = 16  # of which a member's name may tell; a hostile zip can have thousands


def writer_of(name: str) -> str:
    """1001 of 1001-c.gnt, 1001-f.gnt and 1001-C.GNT: the person, not the file."""
    base = name.rpartition("/")[2]
    return unicodedata.normalize("NFC", re.sub(r"-[A-Za-z]$", "", base[: -len(SUFFIX)]))


def person(writer: str) -> str:
    """Equal for two writers who are one person: names made by hand differ in case and in spaces."""
    return writer.casefold().strip()


def decode(raw: Sequence[bytes]) -> list[str]:
    """Names of one zip that don't say in what they are written, all in the same letters.

    UTF-8 if all of them are that, as macOS writes it; else GBK, as Windows does in China; else what the format says
    they are in, IBM's code page 437.
    """
    for codec in ("utf-8", "gb18030", "cp437"):
        try:
            return [name.decode(codec) for name in raw]
        except UnicodeDecodeError:
            continue
    raise AssertionError("every byte is a character in cp437")


def raw_name(info: zipfile.ZipInfo) -> bytes:
    """The name's bytes, as they lie in the directory."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF_8 else "cp437")


def entry_names(infos: Sequence[zipfile.ZipInfo]) -> list[str]:
    """The names of a zip's entries, with their folders: each as its flag or its own field says, else as all others."""
    said = {i: name for i, info in enumerate(infos) if (name := _said(info)) is not None}
    others = [i for i in range(len(infos)) if i not in said]
    said.update(zip(others, decode([raw_name(infos[i]) for i in others]), strict=True))
    return [said[i].partition("\0")[0] for i in range(len(infos))]


def _said(info: zipfile.ZipInfo) -> str | None:
    """What the flag or Info-ZIP's field of a Unicode path says; None where neither is there."""
    if info.flag_bits & _UTF_8:
        return info.orig_filename
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        # It is true of the name that it was written for: who renames an entry may not know of it.
        if kind == _UNICODE_PATH and field[:5] == struct.pack("<BI", 1, zlib.crc32(raw_name(info))):
            try:
                return field[5:].decode("utf-8")
            except UnicodeDecodeError:
                return None
    return None


def file_names(names: Sequence[str]) -> Mapping[str, str]:
    """Name -> what it reads: those that are no text on this machine are GBK, if all of them can be."""
    no_text = [name for name in names if not _is_text(name)]
    try:
        read = [name.encode("utf-8", "surrogateescape").decode("gb18030") for name in no_text]
    except UnicodeError:
        return {}
    return dict(zip(no_text, read, strict=True))


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def told_apart(paths: Iterable[str]) -> list[str]:
    """A name for each member of a folder or zip: its base name, or where another has the same, as much of the path
    before it as tells them apart. Equal paths have equal names."""
    parts = [path.split("/") for path in paths]
    alike: dict[str, list[int]] = {}
    for i, own in enumerate(parts):
        alike.setdefault(own[-1], []).append(i)
    names = [own[-1] for own in parts]
    for group in alike.values():
        longest = max(len(parts[i]) for i in group) if len(group) > 1 else 0
        for depth in range(2, min(longest, _MOST_FOLDERS) + 1):
            tails = {i: "/".join(parts[i][-depth:]) for i in group}
            if len(set(tails.values())) == len(group):
                for i, tail in tails.items():
                    names[i] = tail
                break
    return names
