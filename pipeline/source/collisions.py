"""Members of one folder or zip that share a base name: told apart by their folders, or refused."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pipeline import storage
from pipeline.source import zips
from pipeline.source.members import Member, open_member
from pipeline.source.names import told_apart
from schemas.errors import UserError, printable


def named(where: str, members: Sequence[Member], paths: Sequence[str]) -> tuple[list[Member], list[str]]:
    """The members by their base names, those that share one by their folders too; and a line where some do.

    `paths` are theirs in `where`, a folder or a zip. Raises UserError for two that are the same,
    or can't be told apart.
    """
    by_name = [replace(member, name=printable(name)) for member, name in zip(members, told_apart(paths), strict=True)]
    alike: dict[str, list[int]] = {}
    for i, path in enumerate(paths):
        alike.setdefault(path.rpartition("/")[2], []).append(i)
    shared = [group for group in alike.values() if len(group) > 1]
    for group in shared:
        _refuse_the_same(where, [by_name[i] for i in group], [paths[i] for i in group])
    if not shared:
        return by_name, []
    some = ", ".join(by_name[i].name for i in shared[0][:2])
    more = f" and {len(shared) - 1:,} more names" if len(shared) > 1 else ""
    return by_name, [f"{where}: the same name in several folders; they are told apart by these: {some}{more}"]


def short(name: str) -> str:
    """A name in a zip can fill a page."""
    most = zips.MAX_NAME_CHARACTERS
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _refuse_the_same(where: str, members: Sequence[Member], paths: Sequence[str]) -> None:
    """Raises UserError if two members of one name are the same one, or can't be told apart."""
    sizes, names = Counter(member.size_bytes for member in members), Counter(member.name for member in members)
    seen: dict[object, int] = {}
    for i, member in enumerate(members):
        if len(member.name) > zips.MAX_NAME_CHARACTERS or names[member.name] > 1:
            raise UserError(
                f"{where}: expected every member's name once, found {short(paths[i])} more than once; "
                "unpack it, rename one of them, and name the folder"
            )
        content: object = i
        if member.size_bytes and sizes[member.size_bytes] > 1:
            content = member.size_bytes, member.version if member.zip_entry is not None else _crc(member)
        first = seen.setdefault(content, i)
        if first != i:
            a, b = (short(paths[k]) if member.zip_entry is not None else members[k].location for k in (first, i))
            raise UserError(
                f"{where}: expected every member's name once, found {storage.base_name(paths[i])} in {a} and in {b}, "
                "the same bytes twice; leave one of them out"
            )


def _crc(member: Member) -> int:
    crc = 0
    with open_member(member) as stream:
        while block := stream.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc
