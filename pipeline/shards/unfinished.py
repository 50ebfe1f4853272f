"""The mark of an unfinished conversion in its output folder: it vouches for the files that may be replaced or removed.

It is written before any other file, where there is nothing or such a mark already, and goes when the card stands.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline import storage
from pipeline.shards.staging import private_folder
from schemas.dataset import (
    CARD,
    LOCK,
    MANIFEST_FOLDER,
    MAX_SHARDS,
    SIDE_FILES,
    SPLITS,
    STAGING_FOLDER,
    UNFINISHED,
    place_of,
)
from schemas.errors import UserError, explained, printable
from schemas.machine import without_temporary_mark

_PASSED_OVER = (LOCK, f"{MANIFEST_FOLDER}/", f"{STAGING_FOLDER}/", "lost+found/")
"""Neither replaced nor removed unseen: the lock's holder and the pieces' conversion stand in them."""


@dataclass(frozen=True)
class Unfinished:
    """A conversion into a folder that has no card yet."""

    conversion: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Whose staged pieces are whose."""
    num_shards: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By split, every number that this command was given until now."""

    def vouches_for(self, name: str) -> bool:
        """Whether this conversion writes a file of that name, relative to its folder; or was about to."""
        name = without_temporary_mark(name)
        if name in (CARD, UNFINISHED, *SIDE_FILES):
            return True
        place = place_of(name)
        return place is not None and place[2] in self.num_shards.get(place[0], ()) and place[1] < place[2]

    def added(self, num_shards: Mapping[str, int]) -> Unfinished:
        """The same conversion with other numbers of shards beside those it had."""
        both = {split: tuple({*self.num_shards.get(split, ()), count}) for split, count in num_shards.items()}
        return Unfinished(self.conversion, {**self.num_shards, **both})


def read(output: str) -> Unfinished | None:
    """The mark in a folder; None where there is none."""
    return _parse(_content(output, UNFINISHED))


_WITHOUT = f" and no {UNFINISHED}"


def check_output(output: str, staging: str) -> Unfinished | None:
    """The mark in the output folder. Raises UserError for a data set there, or anything no mark vouches for.

    The folder `staging` may lie in it.
    """
    with explained(f"read {output}"):
        if storage.exists(storage.join(output, CARD)):
            raise UserError(
                f"{output}: expected a new folder, found a finished data set; name another --output, or delete it first"
            )
        mark = read(output)
        foreign = _foreign(output, mark, staging)
    if foreign:
        raise UserError(
            f"{output}: expected a new folder, or that of an interrupted conversion, found {printable(foreign[0])} "
            f"in it{_WITHOUT if mark is None and foreign[0] != UNFINISHED else ''}; name another --output"
        )
    return mark


def begin(output: str, mark: Unfinished) -> None:
    """Writes the mark; what it vouches for may be replaced from here on."""
    path = storage.join(output, UNFINISHED)
    counts = {split: sorted(counts) for split, counts in mark.num_shards.items()}
    fields = {"conversion": mark.conversion, "num_shards": counts}
    with explained(f"write {path}"):
        storage.write_bytes(path, json.dumps(fields).encode(), durable=True)


def end(output: str) -> None:
    """Removes the mark of a conversion whose card stands."""
    with contextlib.suppress(OSError, UserError):  # it says nothing any more
        storage.delete([storage.join(output, UNFINISHED)])


def remove_leftovers(output: str, paths: Iterable[str]) -> None:
    """Removes what the mark vouches for and isn't among the paths: of other numbers of shards, or half-written."""
    with explained(f"clear {output}"):
        mark = read(output)
        if mark is not None:
            mine = {UNFINISHED, CARD, *paths}
            left = [name for name in _names(output) if name not in mine and mark.vouches_for(name)]
            storage.delete([storage.join(output, name) for name in left])


def _foreign(output: str, mark: Unfinished | None, staging: str) -> list[str]:
    private = private_folder(staging, mark.conversion) if mark else staging
    own = f"{storage.below(private, output) or ''}/"
    found = []
    for name in _names(output):
        is_known = name in _PASSED_OVER or (name.endswith("/") and own.startswith(name))
        if is_known or (mark is not None and mark.vouches_for(name)):
            continue
        # A mark that was being written when its conversion was killed.
        content = _content(output, name) if without_temporary_mark(name) == UNFINISHED != name else b"not one"
        if content and _parse(content) is None:
            found.append(name)
    return found


def _content(output: str, name: str) -> bytes:
    """Empty where there is no such file, or something else of that name, reading which could wait forever."""
    path = storage.join(output, name)
    return storage.read_bytes(path) if storage.exists(path) else b""


def _names(output: str) -> list[str]:
    """Everything in the folder and in that of the manifest, but for what is hidden: .DS_Store is no obstacle."""
    found = storage.names(output)
    if f"{MANIFEST_FOLDER}/" in found:
        parts = storage.names(storage.join(output, MANIFEST_FOLDER))
        found += [f"{MANIFEST_FOLDER}/{name}" for name in parts]
    return [name for name in found if not name.removeprefix(f"{MANIFEST_FOLDER}/").startswith(".")]


def _parse(content: bytes) -> Unfinished | None:
    try:
        fields = json.loads(content)
        counts = {str(split): tuple(map(int, counts)) for split, counts in fields["num_shards"].items()}
        conversion = str(fields["conversion"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    known = all(split in SPLITS and all(1 <= n <= MAX_SHARDS for n in counts[split]) for split in counts)
    return Unfinished(conversion, counts) if known and re.fullmatch(r"[0-9a-f]{32}", conversion) else None
