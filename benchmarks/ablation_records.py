"""The records that an ablation learns from: scans as the archives hold them, and the same as photos."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ablation_photos import photo_of

from model.answers.picture import BlankPicture, to_bitmap
from pipeline.source.gnt import HEADER_BYTES, walk
from schemas.classes import OUTSIDE, default_classes

PHOTO_STRIDE = 2  # a photo costs as much as some hundred scans


class Member(NamedTuple):
    """One writer's records whose characters are in the class list."""

    name: str
    bitmaps: list[np.ndarray]
    """uint8 [h, w], 255 is paper."""
    tags: np.ndarray
    """int32 [n]."""


@lru_cache(maxsize=64)
def read_member(path: Path) -> Member:
    data = path.read_bytes()
    records = walk(data)
    bitmaps, tags = [], []
    for i in range(len(records)):
        if not records.fault[i] and default_classes().labels_by_tag_code[records.tag_code[i]] != OUTSIDE:
            begin = int(records.offset[i]) + HEADER_BYTES
            pixels = np.frombuffer(data, np.uint8, int(records.size[i]) - HEADER_BYTES, begin)
            bitmaps.append(pixels.reshape(int(records.height[i]), int(records.width[i])))
            tags.append(int(records.tag_code[i]))
    return Member(path.stem, bitmaps, np.array(tags, np.int32))


@lru_cache(maxsize=64)
def photographed(path: Path) -> list[np.ndarray | None]:
    """What prediction makes of a photo of every PHOTO_STRIDE-th bitmap; None where it sees a blank picture."""
    found: list[np.ndarray | None] = []
    for index, bitmap in enumerate(read_member(path).bitmaps[::PHOTO_STRIDE]):
        photo = photo_of(bitmap, np.random.default_rng([index, *path.stem.encode()]))
        try:
            found.append(to_bitmap(photo, path.stem))
        except BlankPicture:
            found.append(None)
    return found


def split_members(paths: Sequence[Path], seed: int) -> tuple[list[Path], list[Path]]:
    """(to train on, to validate on): a quarter of the members, another one for each seed until all had their turn."""
    count = max(1, len(paths) // 4)
    first = seed * count % (len(paths) // count * count)
    return [*paths[:first], *paths[first + count :]], list(paths[first : first + count])
