"""Charts as inline SVG: axes with titles and units, colours from the page's style."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 420, 250  # units of the drawing; the page scales it
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 24, 10, 44
_BAR, _BAR_GAP = 26, 14

Points = Sequence[tuple[float, float]]


def steps_chart(series: Mapping[str, Points], x_title: str, y_title: str) -> str:
    """Each series as a line of steps: (x, y) holds from x to the next point's x. y begins at 0."""
    xs = [x for points in series.values() for x, _ in points]
    x_ticks = _ticks(min(xs), max(xs))
    y_ticks = _ticks(0, max(y for points in series.values() for _, y in points))
    x_low, x_high = min(xs[0], x_ticks[0], min(xs)), max(max(xs), x_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1)
        up = y / y_ticks[-1]
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in y_ticks:
        _, y = place(x_low, tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, _figure(tick), "end"))
    for tick in x_ticks:
        x, _ = place(tick, 0)
        parts.append(_text(x, HEIGHT - _BOTTOM + 17, _figure(tick), "middle"))
    for name, points in series.items():
        parts.append(f'<path class="line {escape(name)}" d="{_staircase([place(x, y) for x, y in points])}"/>')
    parts.append(_text((WIDTH + _LEFT - _RIGHT) / 2, HEIGHT - 6, x_title, "middle", "axis"))
    middle = (HEIGHT + _TOP - _BOTTOM) / 2
    parts.append(
        f'<text class="axis" text-anchor="middle" transform="translate(13 {middle:.0f}) rotate(-90)">'
        f"{escape(y_title)}</text>"
    )
    return _svg(HEIGHT, parts, f"{y_title} by {x_title}")


def bars_chart(rows: Mapping[str, Sequence[tuple[str, int]]], x_title: str) -> str:
    """A horizontal bar for each row, its (part, count) in a line one behind the other."""
    height = _TOP + len(rows) * (_BAR + _BAR_GAP) + _BOTTOM
    ticks = _ticks(0, max(sum(count for _, count in row) for row in rows.values()))
    left = 84
    scale = (WIDTH - left - 24) / ticks[-1]
    parts = []
    for tick in ticks:
        x = left + tick * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
        parts.append(_text(x, height - _BOTTOM + 17, _figure(tick), "middle"))
    for number, (name, row) in enumerate(rows.items()):
        y = _TOP + number * (_BAR + _BAR_GAP) + _BAR_GAP / 2
        parts.append(_text(left - 8, y + _BAR / 2 + 4, name, "end"))
        x = float(left)
        for part, count in row:
            # What there is of must be seen, however little it is.
            width = max(2.0, count * scale) if count else 0.0
            parts.append(
                f'<rect class="bar {escape(part)}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}">'
                f"<title>{escape(name)}: {count:,} {escape(part)}</title></rect>"
            )
            x += width
    parts.append(_text((WIDTH + left) / 2, height - 6, x_title, "middle", "axis"))
    return _svg(height, parts, f"{x_title} by split")


def legend(names: Iterable[str]) -> str:
    """Which colour is which, as HTML."""
    return '<p class="legend">' + "".join(f'<span class="key {escape(n)}">{escape(n)}</span>' for n in names) + "</p>"


def _staircase(points: Sequence[tuple[float, float]]) -> str:
    first, *rest = points
    parts = [f"M{first[0]:.1f} {first[1]:.1f}"]
    last_y = f"{first[1]:.1f}"
    for x, y in rest:
        if f"{y:.1f}" != last_y:
            last_y = f"{y:.1f}"
            parts.append(f"H{x:.1f}V{last_y}")
    parts.append(f"H{points[-1][0]:.1f}")
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers from at most `low` to at least `high`."""
    span = (high - low) or 1.0
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if rough <= power * factor)
    if low == int(low) and high == int(high):
        step = max(1.0, step)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * i for i in range(first, max(last, first + 1) + 1)]


def _figure(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g} k"
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str], label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">' + "".join(parts) + "</svg>"
