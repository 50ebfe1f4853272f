"""Centre lines of a glyph to the lines a pen would draw: straight on through crossings, down and to the right."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.sample.glyphs import neighbour_codes

# Crossings closer than this are one: thinning makes two of a crossing of two strokes. In pixels.
_ONE_CROSSING = 9
# How many pixels beside a crossing tell which way a line goes there.
_REACH = 12
# Lines that meet within about 53 degrees of straight are one stroke.
_STRAIGHT = -0.6
_SPUR = 7
"""A free end shorter than this, in pixels, is thinning's, not the pen's."""

# The neighbours in the order of a code's bits: clockwise from the one above.
_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))

Pixel = tuple[int, int]


def traced(lines: NDArray[np.uint8]) -> list[tuple[NDArray[np.float64], float]]:
    """The strokes of centre lines (uint8 [h, w], 1 on 0): float64 [n, 2], x and y in pixels, and the middle."""
    edges = _edges(lines)
    middle = (len(lines) - 1) / 2
    strokes = [_directed(np.array(path, np.float64)[:, ::-1]) for path in _merged(edges)]
    strokes.sort(key=_order)
    return [(stroke, middle) for stroke in strokes]


def _edges(lines: NDArray[np.uint8]) -> list[list[Pixel]]:
    """The lines between ends and crossings, as pixels (y, x); closed ones begin and end in one pixel."""
    ys, xs = np.nonzero(lines)
    ways = _ways()
    around = {
        (y, x): [(y + down, x + right) for down, right in ways[code]]
        for y, x, code in zip(ys.tolist(), xs.tolist(), neighbour_codes(lines)[ys, xs].tolist(), strict=True)
    }
    nodes = {pixel for pixel, near in around.items() if len(near) != 2}
    edges: list[list[Pixel]] = []
    taken: set[tuple[Pixel, Pixel]] = set()
    met: set[Pixel] = set()

    def walk(start: Pixel, then: Pixel) -> list[Pixel]:
        path = [start, then]
        while path[-1] not in nodes and path[-1] != start:
            here = path[-1]
            path.append(next(pixel for pixel in around[here] if pixel != path[-2]))
        return path

    for node in sorted(nodes):
        for then in around[node]:
            if (node, then) not in taken:
                path = walk(node, then)
                taken |= {(path[0], path[1]), (path[-1], path[-2])}
                met.update(path)
                edges.append(path)
        if not around[node]:
            edges.append([node, node])
    for pixel in sorted(around.keys() - met - nodes):
        if pixel not in met:
            path = walk(pixel, around[pixel][0])
            met.update(path)
            edges.append(path)
    return edges


@lru_cache(maxsize=1)
def _ways() -> list[list[Pixel]]:
    """For every code of eight neighbours the steps (y, x) a line goes on by; a diagonal one only where no straight way
    leads there."""
    ways = []
    for code in range(256):
        there = [code >> bit & 1 for bit in range(8)]
        straight = [bit for bit in (0, 2, 4, 6) if there[bit]]
        diagonal = [bit for bit in (1, 3, 5, 7) if there[bit] and not there[bit - 1] and not there[(bit + 1) % 8]]
        ways.append([_RING[bit] for bit in straight + diagonal])
    return ways


def _merged(edges: list[list[Pixel]]) -> list[list[Pixel]]:
    """Edges joined where they go straight on through a crossing."""
    group: dict[Pixel, Pixel] = {}

    def root(pixel: Pixel) -> Pixel:
        while group.setdefault(pixel, pixel) != pixel:
            pixel = group[pixel]
        return pixel

    ends: defaultdict[Pixel, int] = defaultdict(int)
    for edge in edges:
        ends[edge[0]] += 1
        ends[edge[-1]] += 1
    kept = []
    for edge in edges:
        if len(edge) <= _ONE_CROSSING and ends[edge[0]] > 1 and ends[edge[-1]] > 1:
            group[root(edge[0])] = root(edge[-1])
        elif len(edge) > _SPUR or (ends[edge[0]] == 1) == (ends[edge[-1]] == 1):
            kept.append(edge)
    kept = kept or edges  # a dot may be nothing but spurs
    at: defaultdict[Pixel, list[tuple[int, int]]] = defaultdict(list)
    for number, edge in enumerate(kept):
        if edge[0] != edge[-1]:
            at[root(edge[0])].append((number, 0))
            at[root(edge[-1])].append((number, -1))
    partner: dict[tuple[int, int], tuple[int, int]] = {}
    for meeting in at.values():
        headings = [_heading(kept[number], end) for number, end in meeting]
        pairs = sorted(
            (float(headings[a] @ headings[b]), a, b)
            for a in range(len(meeting))
            for b in range(a)
            if meeting[a][0] != meeting[b][0]
        )
        free = set(range(len(meeting)))
        for cosine, a, b in pairs:
            straight_enough = cosine < _STRAIGHT or len(meeting) == len("ab")
            if straight_enough and a in free and b in free:
                free -= {a, b}
                partner[meeting[a]], partner[meeting[b]] = meeting[b], meeting[a]
    return _chains(kept, partner)


def _heading(edge: list[Pixel], end: int) -> NDArray[np.float64]:
    """Which way the edge leads from its end, as a unit vector."""
    reach = min(len(edge) - 1, _REACH)
    there = np.subtract(edge[reach if end == 0 else -1 - reach], edge[end]).astype(np.float64)
    length: float = np.sqrt((there**2).sum())
    return there / max(length, 1e-9)


def _chains(edges: list[list[Pixel]], partner: dict[tuple[int, int], tuple[int, int]]) -> list[list[Pixel]]:
    chains, used = [], set()
    starts = [(n, end) for n in range(len(edges)) for end in (0, -1) if (n, end) not in partner]
    for start in starts + [(n, 0) for n in range(len(edges))]:
        if start[0] in used:
            continue
        chain: list[Pixel] = []
        here: tuple[int, int] | None = start
        while here is not None and here[0] not in used:
            number, end = here
            used.add(number)
            chain += edges[number] if end == 0 else edges[number][::-1]
            here = partner.get((number, -1 if end == 0 else 0))
        chains.append(chain)
    return chains


def _directed(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """The line from its upper left end to its lower right one; lines that fall to the left begin at their top."""
    right, down = line[-1] - line[0]
    forwards = down > 0 if abs(down) > 0.5 * abs(right) else right > 0
    return line if forwards else line[::-1]


def _order(line: NDArray[np.float64]) -> tuple[float, ...]:
    """Higher and more to the left is written first."""
    x, y = line.mean(axis=0)
    return (float(y + 0.8 * x), float(x))
