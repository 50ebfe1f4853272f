"""A pen on paper, compiled: lines with a width and a darkness at every point to the grey levels of a scan.

Plain arithmetic in float64, operation by operation, without Numba the same but slower: every machine gets the same
pixels.
"""

from __future__ import annotations

import numpy as np

from pipeline.steps.jit import Kernels


def _draw_one_line() -> None:
    canvas, grain, line = np.zeros((8, 8)), np.zeros((8, 8)), np.ones((2, 4))
    ink(line, np.ones(1, np.bool_), 0.3, 1.0, 0.1, grain, canvas)
    grey(canvas, grain, 200.0, 0.2, 6.0, np.zeros((8, 8), np.uint8))
    bend(np.zeros((1, 2)), np.zeros((2, 7, 7)))


_SHEET = 1.3  # side of the sheet that bends a character, in parts of the em square

KERNELS = Kernels(_draw_one_line)


@KERNELS.compile
def bend(points: np.ndarray, shifts: np.ndarray) -> None:
    """Moves points (float64 [n, 2], x and y in parts of the em square) with a sheet of cubic B-splines that is a little
    larger than the em square, and whose knots are moved by `shifts` (float64 [2, knots, knots])."""
    cells = shifts.shape[1] - 3
    weights = np.empty((2, 4))
    for i in range(len(points)):
        cell_x, cell_y = 0, 0
        for axis in range(2):
            at = min(max((points[i, axis] / _SHEET + 0.5) * cells, 0.0), cells - 1e-6)
            cell = int(at)
            t = at - cell
            rest = 1.0 - t
            weights[axis, 0] = rest * rest * rest / 6.0
            weights[axis, 1] = ((3.0 * t - 6.0) * t * t + 4.0) / 6.0
            weights[axis, 2] = (((3.0 - 3.0 * t) * t + 3.0) * t + 1.0) / 6.0
            weights[axis, 3] = t * t * t / 6.0
            if axis == 0:
                cell_x = cell
            else:
                cell_y = cell
        for axis in range(2):
            moved = 0.0
            for row in range(4):
                for column in range(4):
                    moved += weights[1, row] * weights[0, column] * shifts[axis, cell_y + row, cell_x + column]
            points[i, axis] += moved


@KERNELS.compile
def ink(
    line: np.ndarray,
    down: np.ndarray,
    hollow: float,
    softness: float,
    raggedness: float,
    grain: np.ndarray,
    canvas: np.ndarray,
) -> None:
    """Adds a line to `canvas`, float64 [h, w], 0 is paper and 1 full ink.

    `line` is float64 [n, 4]: x, y, half the width in pixels, and darkness 0 ... 1; `down` bool [n - 1] says where the
    pen is on the paper. `hollow` is how much paler a stroke is at its edge than in its middle, `softness` how
    many pixels its edge takes, `raggedness` how far `grain` (float64 [h, w]) moves it, in pixels.
    """
    height, width = canvas.shape
    for i in range(len(line) - 1):
        if not down[i]:
            continue
        x0, y0, r0, d0 = line[i, 0], line[i, 1], line[i, 2], line[i, 3]
        dx, dy = line[i + 1, 0] - x0, line[i + 1, 1] - y0
        dr, dd = line[i + 1, 2] - r0, line[i + 1, 3] - d0
        length2 = dx * dx + dy * dy
        reach = max(r0, r0 + dr) + 3.0 * raggedness + 0.5 * softness
        left, right = max(0, int(min(x0, x0 + dx) - reach)), min(width - 1, int(max(x0, x0 + dx) + reach) + 1)
        top, bottom = max(0, int(min(y0, y0 + dy) - reach)), min(height - 1, int(max(y0, y0 + dy) + reach) + 1)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                px, py = x - x0, y - y0
                t = 0.0
                if length2 > 0.0:
                    t = min(1.0, max(0.0, (px * dx + py * dy) / length2))
                gx, gy = px - t * dx, py - t * dy
                distance2 = gx * gx + gy * gy
                if distance2 >= reach * reach:
                    continue
                distance = np.sqrt(distance2)
                radius = r0 + t * dr
                cover = min(1.0, (radius + raggedness * grain[y, x] - distance) / softness + 0.5)
                if cover <= 0.0:
                    continue
                body = 1.0 - hollow * min(1.0, distance / (radius + 0.5))
                value = cover * body * (d0 + t * dd)
                if value > canvas[y, x]:
                    canvas[y, x] = value


@KERNELS.compile
def grey(
    canvas: np.ndarray, grain: np.ndarray, darkness: float, roughness: float, faintest: float, out: np.ndarray
) -> None:
    """Grey levels, uint8 [h, w], 255 is paper; what is fainter than `faintest` grey levels is paper."""
    height, width = canvas.shape
    for y in range(height):
        for x in range(width):
            level = canvas[y, x] * darkness * max(0.2, min(1.3, 1.0 + roughness * grain[y, x]))
            if level < faintest:
                out[y, x] = 255
            else:
                out[y, x] = np.uint8(255.0 - min(255.0, level))
