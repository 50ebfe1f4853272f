"""Line charts as inline SVG, without a script or a font of their own: they take the page's colours, light or dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 360, 230  # CSS pixels, about a phone's width: text keeps its size there
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 10, 12, 40
_MOST_POINTS = 240  # of a series; more are averaged in groups
_MARKED = 40  # points up to which each gets a dot


@dataclass(frozen=True)
class Series:
    """One line of a chart; `style` names its CSS class."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    """(x, y), x ascending."""


def line_chart(
    title: str, series: Sequence[Series], *, x_label: str, y_label: str, number: Callable[[float], str]
) -> str:
    """An <svg> with both axes labelled; `number` writes a value of the y axis."""
    drawn = [Series(one.name, one.style, thinned(one.points)) for one in series if one.points]
    xs = [x for one in drawn for x, _ in one.points]
    ys = [y for one in drawn for _, y in one.points]
    if not xs:
        return ""
    x_ticks = ticks(min(0.0, min(xs)), max(xs), 4)
    y_ticks = ticks(min(0.0, min(ys)), max(ys), 5)
    # The last step is the right border; the last tick may lie beyond it.
    x_low, x_high = x_ticks[0], max(xs) if max(xs) > x_ticks[0] else x_ticks[-1]
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        up = (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return round(_LEFT + across, 1), round(_HEIGHT - _BOTTOM - up, 1)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    for value in y_ticks:
        _, y = place(x_low, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{escape(number(value))}</text>')
    for value in x_ticks:
        if value > x_high:
            continue
        x, y = place(value, y_low)
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{y}" y2="{y + 4}"/>')
        parts.append(f'<text x="{x}" y="{y + 16}" text-anchor="middle">{escape(short(value))}</text>')
    bottom = _HEIGHT - _BOTTOM
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    middle_x, middle_y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + bottom) / 2
    parts.append(f'<text x="{middle_x}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    turned = f'transform="rotate(-90 12 {middle_y})"'
    parts.append(f'<text x="12" y="{middle_y}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    for one in drawn:
        places = [place(x, y) for x, y in one.points]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline class="{escape(one.style)}" points="{path}"/>')
        if len(places) <= _MARKED:
            for (x, y), (step, value) in zip(places, one.points, strict=True):
                told = escape(f"{one.name}, {x_label} {step:,.0f}: {number(value)}")
                parts.append(
                    f'<circle class="{escape(one.style)}" cx="{x}" cy="{y}" r="2.5"><title>{told}</title></circle>'
                )
    parts.append("</svg>")
    return "".join(parts)


def legend(series: Sequence[Series]) -> str:
    """The names of the lines, each beside a piece of it."""
    entries = [
        f'<span><svg viewBox="0 0 24 8" class="key"><polyline class="{escape(one.style)}" points="0,4 24,4"/></svg>'
        f"{escape(one.name)}</span>"
        for one in series
        if one.points
    ]
    return f'<p class="legend">{"".join(entries)}</p>'


_FINEST = 1e-9  # of a number: closer than that, floats have hardly a step between two


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers about `count` steps apart that reach from `low` or below to `high` or above."""
    span = high - low
    if not span > _FINEST * abs(low):
        span = abs(high) or 1.0
        high = low + span
    rough = span / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = magnitude * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most _MOST_POINTS points: the means of neighbouring ones; the first and the last step stay in reach."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    group = math.ceil(len(points) / _MOST_POINTS)
    groups = [points[start : start + group] for start in range(0, len(points), group)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in groups]


def short(value: float) -> str:
    """1200 as 1.2k, 3000000 as 3M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
