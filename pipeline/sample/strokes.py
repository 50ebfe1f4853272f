"""The strokes of a character in the order and direction of writing: from a folder of medians, or traced from a font.

A font has outlines, not strokes. What is traced from its centre lines runs on straight through crossings, downwards and
to the right, in the order in which hanzi are mostly written; medians are strokes as they are taught.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.sample.glyphs import RENDER_EM, centre_lines, has_glyph, load_font
from pipeline.sample.tracing import traced
from schemas.errors import UserError

STEP = 1 / 24
"""How far apart the points of a stroke are, in parts of the em square."""
LIGATURE_POINTS = 3
"""Points between a stroke's end and the next one's beginning, where the pen may stay on the paper."""
_MEDIAN_EM = 1024
_MEDIAN_TOP = 900
# A turn of more than 60 degrees within the last _HOOK of a stroke begins a hook.
_HOOK = 0.16
_HOOK_COSINE = 0.5
# Parts are as likely as can be where this much paper lies between them, and four times less where they overlap by more
# than a tenth of the em square.
_APART, _OVERLAP = 0.02, 8.0
# What the character 国 measures from top to bottom in every source, so that all write one size.
_MEASURED, _MEASURE = "国", 0.86

Line = NDArray[np.float64]
"""float64 [n, 2]: x to the right and y down, in parts of the em square around its middle."""


@dataclass(frozen=True)
class Strokes:
    """A character as one line of the pen, which leaves the paper between its strokes."""

    points: Line
    """float64 [n, 2]: every stroke's points, and LIGATURE_POINTS between two strokes."""
    stroke: NDArray[np.int64]
    """int64 [n]: the stroke a point belongs to; a ligature's point to the stroke before it."""
    along: NDArray[np.float64]
    """float64 [n]: how far along its stroke a point is, 0 ... 1."""
    in_ligature: NDArray[np.bool_]
    """bool [n]: whether a point lies between two strokes."""
    in_hook: NDArray[np.bool_]
    """bool [n]: whether a point belongs to the hook that ends its stroke."""
    before_hook: NDArray[np.int64]
    """int64 [n]: the last point before the hook, for a point of a hook; for any other that point itself."""
    ends: NDArray[np.int64]
    """int64 [m, 2]: each stroke's first and last point."""
    cuts: NDArray[np.float64]
    """float64 [m - 1]: the chance that a part of the character ends with one of the first strokes, summed up: hanzi are
    written part by part, and parts lie beside or below each other."""
    is_taught: bool
    """Whether order and direction are those of writing, not guessed from a font."""


@dataclass(frozen=True)
class Source:
    """Where strokes come from: a folder of medians (`CHARACTER.json`), or a font file."""

    path: Path

    @property
    def is_taught(self) -> bool:
        return self.path.is_dir()

    def check(self) -> None:
        """Raises UserError where it can't be read."""
        if not self.is_taught:
            load_font(self.path)

    def has(self, character: str) -> bool:
        return (self.path / f"{character}.json").is_file() if self.is_taught else has_glyph(self.path, character)


def strokes_from(sources: Sequence[Source], share: float, character: str) -> Strokes:
    """The character as a writer knows it who learned from the source at `share` (0 ... 1) of the list; what that one
    lacks comes from the next that has it."""
    first = int(share * len(sources))
    for source in (*sources[first:], *sources[:first]):
        if source.has(character):
            return strokes_of(source, character)
    where = ", ".join(sorted({str(source.path) for source in sources}))
    raise UserError(f"{where}: expected a glyph or strokes for {character!r}, found none; leave that character out")


# All of level 1 from one source are 30 MB; a process draws many writers with them.
@lru_cache(maxsize=32_768)
def strokes_of(source: Source, character: str) -> Strokes:
    """The strokes of `character`, kept for the next writer."""
    scale = _scale(source)
    return joined([line * scale for line in _lines(source, character)], source.is_taught)


@lru_cache(maxsize=64)
def _scale(source: Source) -> float:
    if not source.has(_MEASURED):
        return 1.0
    points = np.concatenate(_lines(source, _MEASURED))
    return float(_MEASURE / max(0.1, np.ptp(points[:, 1])))


def _lines(source: Source, character: str) -> list[Line]:
    if source.is_taught:
        return _medians(source.path / f"{character}.json")
    return [(line - line_middle) / RENDER_EM for line, line_middle in traced(centre_lines(source.path, character))]


def _medians(path: Path) -> list[Line]:
    try:
        medians = json.loads(path.read_text("utf-8"))["medians"]
        lines = [np.array(line, np.float64).reshape(-1, 2) for line in medians]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: expected the medians of a character's strokes, found {error!r}; "
            "--strokes wants the folder of hanzi-writer-data"
        ) from error
    if not lines or min(map(len, lines)) < 1:
        raise UserError(f"{path}: expected strokes of a point or more, found none; --strokes wants hanzi-writer-data")
    flipped = [(line - (_MEDIAN_EM / 2, 0)) * (1, -1) + (0, _MEDIAN_TOP - _MEDIAN_EM / 2) for line in lines]
    return [line / _MEDIAN_EM for line in flipped]


def joined(lines: Sequence[Line], is_taught: bool) -> Strokes:
    """The pen's way over all `lines`, in points STEP apart."""
    lines = [resampled(line, STEP) for line in lines]
    parts: list[Line] = []
    along: list[NDArray[np.float64]] = []
    stroke: list[NDArray[np.int64]] = []
    before_hook: list[NDArray[np.int64]] = []
    in_ligature: list[NDArray[np.bool_]] = []
    in_hook: list[NDArray[np.bool_]] = []
    ends: list[tuple[int, int]] = []
    place = 0
    for number, line in enumerate(lines):
        numbers, hook = np.arange(len(line)), _hook_begin(line)
        parts.append(line)
        along.append(numbers / (len(line) - 1))
        in_ligature.append(np.zeros(len(line), bool))
        in_hook.append(numbers > hook)
        before_hook.append(place + np.minimum(numbers, hook))
        ends.append((place, place + len(line) - 1))
        place += len(line)
        if number + 1 < len(lines):
            numbers = np.arange(LIGATURE_POINTS)
            way = (numbers + 1) / (LIGATURE_POINTS + 1)
            parts.append(line[-1] * (1 - way[:, None]) + lines[number + 1][0] * way[:, None])
            along.append(way)
            in_ligature.append(np.ones(LIGATURE_POINTS, bool))
            in_hook.append(np.zeros(LIGATURE_POINTS, bool))
            before_hook.append(place + numbers)
            place += LIGATURE_POINTS
        stroke.append(np.full(place - ends[-1][0], number))
    return Strokes(
        points=np.concatenate(parts),
        stroke=np.concatenate(stroke),
        along=np.concatenate(along),
        in_ligature=np.concatenate(in_ligature),
        in_hook=np.concatenate(in_hook),
        before_hook=np.concatenate(before_hook),
        ends=np.array(ends, np.int64),
        cuts=_cuts(lines),
        is_taught=is_taught,
    )


def _cuts(lines: Sequence[Line]) -> NDArray[np.float64]:
    low, high = (np.stack([of(line, axis=0) for line in lines]) for of in (np.min, np.max))
    before_low, before_high = np.minimum.accumulate(low)[:-1], np.maximum.accumulate(high)[:-1]
    after_low, after_high = np.minimum.accumulate(low[::-1])[::-1][1:], np.maximum.accumulate(high[::-1])[::-1][1:]
    gap = np.maximum(after_low - before_high, before_low - after_high).max(axis=1)
    weights = 1 / (1 + np.maximum(0, _APART - gap) * _OVERLAP) ** 2
    return np.cumsum(weights) / max(1e-9, weights.sum())


def resampled(line: Line, step: float) -> Line:
    """Points at most `step` apart on `line`, evenly, its ends among them; at least four."""
    if len(line) < 2:
        line = np.concatenate([line, line + step / 2])
    lengths = np.sqrt((np.diff(line, axis=0) ** 2).sum(axis=1))
    way = np.concatenate([[0], np.cumsum(lengths)])
    at = np.linspace(0, way[-1], max(4, int(np.ceil(way[-1] / step)) + 1))
    return np.stack([np.interp(at, way, line[:, axis]) for axis in (0, 1)], axis=1)


def _hook_begin(line: Line) -> int:
    """The point after which a hook begins; the last one where there is none."""
    steps = np.diff(line, axis=0)
    lengths = np.sqrt((steps**2).sum(axis=1)) + 1e-9
    way = lengths[::-1].cumsum()[::-1]  # from each step's beginning to the end
    if way[0] < 2 * _HOOK:
        return len(line)
    directions = steps / lengths[:, None]
    cosines = (directions[1:] * directions[:-1]).sum(axis=1)
    # A turn may be spread over two steps.
    wide = np.minimum(cosines, np.append((directions[2:] * directions[:-2]).sum(axis=1), 1))
    late = np.nonzero((wide < _HOOK_COSINE) & (way[1:] < _HOOK))[0]
    return int(late[cosines[late].argmin()]) + 1 if len(late) else len(line)
