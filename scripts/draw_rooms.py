"""Draws the rooms as the imports have them: docs/images/rooms.svg, and the lists in docs/architecture.md.

    python scripts/draw_rooms.py

Run it after a module was added, moved or described anew; the tests compare.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "schemas": "the contracts both sides share",
    "pipeline": "archives in, shards out",
    "model": "shards in, a recogniser out",
}
GROUND = "schemas"
"""The room that all others stand on: drawn as the floor, its arrows left out."""
PAGE, PICTURE = ROOT / "docs/architecture.md", ROOT / "docs/images/rooms.svg"

_BOX, _GAP, _BEND, _HEIGHT, _STOREY = 124, 16, 16, 34, 88  # pixels
_COLOURS = {"pipeline": "#2563eb", "model": "#0f8a5f"}


def rooms() -> dict[str, set[str]]:
    """Room -> the rooms it imports. A sub-package is a room, and so is a module beside them; schemas/ is one room."""
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            room = room_of(module)
            imported = {room_of(name) for name in _imports(ast.parse(path.read_text()))}
            found.setdefault(room, set()).update(imported - {room})
    return found


def room_of(module: str) -> str:
    """pipeline.shards.chunk -> pipeline/shards; what a package's own __init__ holds is the package's front door."""
    package, *rest = module.split(".")
    return "/".join([package, *rest[:1]]) if package != GROUND else GROUND


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            modules = (f"{node.module}.{name}" for name in names)
            names = [name if _is_module(name) else str(node.module) for name in modules]
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def tree() -> str:
    """Every room and module with the first line of its docstring."""
    lines: list[str] = []

    def add(path: Path, meaning: str, depth: int) -> None:
        lines.append(f"{'  ' * depth + path.name + ('/' if path.is_dir() else ''):<23} {meaning}".rstrip())

    def walk(folder: Path, depth: int) -> None:
        entries = [path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
        for path in sorted(entries, key=lambda path: (path.is_dir(), path.name)):
            if not path.name.startswith("__"):
                source = path / "__init__.py" if path.is_dir() else path
                meaning = ast.get_docstring(ast.parse(source.read_text())) or ""
                add(path, meaning.split("\n")[0].rstrip("."), depth)
                if path.is_dir():
                    walk(path, depth + 1)

    for package, meaning in PACKAGES.items():
        add(ROOT / package, meaning, 0)
        walk(ROOT / package, 1)
    return "\n".join(lines) + "\n"


def listing(graph: dict[str, set[str]]) -> str:
    """A line a room: what it imports, a room of its own package by its last name."""
    lines = []
    for room, imported in sorted(graph.items()):
        names = ", ".join(other.removeprefix(f"{room.split('/')[0]}/") for other in sorted(imported))
        lines += [f"{room:<18} -> {names}\n"] if names else []
    return "".join(lines)


def with_lists(page: str, graph: dict[str, set[str]]) -> str:
    """The page with its generated blocks as they should be."""
    for mark, text in {"tree": tree(), "rooms": listing(graph)}.items():
        start = f"<!-- {mark}: scripts/draw_rooms.py -->\n\n```text\n"
        before, found, after = page.partition(start)
        if not found:
            raise SystemExit(f"{PAGE.name}: expected a block marked {mark}, found none")
        page = before + start + text + "```" + after.partition("```")[2]
    return page


def arrows_of(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """What the picture shows: (room, a room it imports), but where a way through a third room leads there, too."""
    reached: dict[str, set[str]] = {}

    def reach(room: str) -> set[str]:
        if room not in reached:
            reached[room] = set().union(graph[room], *map(reach, graph[room])) - {GROUND}
        return reached[room]

    return [
        (room, other)
        for room in sorted(graph)
        for other in sorted(graph[room] - {GROUND})
        if not any(other in reach(third) for third in graph[room])
    ]


def svg(graph: dict[str, set[str]]) -> str:
    """Boxes and arrows, by storeys: every arrow leads down, from a room to one that it imports."""
    arrows = arrows_of(graph)
    storeys, routes = _route(_storeys(graph), arrows)
    places = _place(storeys, routes)
    width = max(x for x, _ in places.values()) + _BOX / 2 + _GAP
    bottom = len(storeys) * _STOREY - _GAP
    body = [_box(GROUND, _GAP, bottom, width - 2 * _GAP, "#475569")]
    for (room, other), route in zip(arrows, routes, strict=True):
        points = [places[node] for node in route]
        colour = _COLOURS[room.split("/")[0]]
        body.append(
            f'<path d="{_curve(points)}" fill="none" stroke="{colour}" stroke-width="1.3" '
            f'marker-end="url(#{room.split("/")[0]})"><title>{room} → {other}</title></path>'
        )
    for node, (x, y) in places.items():
        if not node.startswith("|"):
            body.append(_box(node, x - _BOX / 2, y, _BOX, _COLOURS[node.split("/")[0]]))
    heads = "".join(
        f'<marker id="{package}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{colour}"/></marker>'
        for package, colour in _COLOURS.items()
    )
    height = bottom + _HEIGHT + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">\n<title>The rooms, and what each imports</title>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n<defs>{heads}</defs>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _storeys(graph: dict[str, set[str]]) -> dict[str, int]:
    """Room -> its storey: above all that it imports; what nothing imports stands on top."""

    def height(room: str) -> int:
        return max((1 + height(other) for other in graph[room] - {GROUND}), default=0)

    shown = [room for room in graph if room != GROUND and (graph[room] or "/" in room) and "__main__" not in room]
    heights, imported = {room: height(room) for room in shown}, set().union(*graph.values())
    return {room: heights[room] if room in imported else max(heights.values()) for room in sorted(shown)}


def _route(heights: dict[str, int], arrows: list[tuple[str, str]]) -> tuple[list[list[str]], list[list[str]]]:
    """(the nodes of each storey, from the top, those of each arrow): where an arrow passes a storey it has a bend."""
    storeys: list[list[str]] = [[] for _ in range(max(heights.values()) + 1)]
    for room in sorted(heights, key=lambda room: (not room.startswith("pipeline"), room)):
        storeys[len(storeys) - 1 - heights[room]].append(room)
    routes = []
    for room, other in arrows:
        bends = [f"|{room}|{other}|{height}" for height in range(heights[room] - 1, heights[other], -1)]
        for bend in bends:
            storeys[len(storeys) - 1 - int(bend.rpartition("|")[2])].append(bend)
        routes.append([room, *bends, other])
    _sort(storeys, _neighbours(routes))
    return storeys, routes


def _neighbours(routes: list[list[str]]) -> dict[str, list[str]]:
    near = defaultdict(list)
    for upper, lower in (pair for route in routes for pair in pairwise(route)):
        near[upper].append(lower)
        near[lower].append(upper)
    return near


def _sort(storeys: list[list[str]], near: dict[str, list[str]]) -> None:
    """Moves every node towards the middle of its neighbours, for few crossings; the packages stay side by side."""
    order = {node: i / len(storey) for storey in storeys for i, node in enumerate(storey)}
    for number in range(8):
        for storey in storeys if number % 2 else storeys[::-1]:
            middle = {node: fmean(order[n] for n in near[node] or [node]) for node in storey}
            storey.sort(key=lambda node: (node.lstrip("|").startswith("model"), middle[node], node))
            order.update({node: i / len(storey) for i, node in enumerate(storey)})


def _place(storeys: list[list[str]], routes: list[list[str]]) -> dict[str, tuple[float, float]]:
    """Node -> the middle of its upper edge. Each is drawn towards its neighbours, and pushes the next one aside."""
    widths = {node: _BEND if node.startswith("|") else _BOX + _GAP for storey in storeys for node in storey}
    total = max(sum(widths[node] for node in storey) for storey in storeys)
    x: dict[str, float] = {}
    for storey in storeys:
        left, spare = 0.0, (total - sum(widths[node] for node in storey)) / len(storey)
        for node in storey:
            x[node] = left + (widths[node] + spare) / 2
            left += widths[node] + spare
    near = _neighbours(routes)
    for _ in range(40):
        for storey in storeys:
            for node in storey:
                x[node] = (x[node] + fmean(x[n] for n in near[node] or [node])) / 2
            for sign, nodes in ((1, storey), (-1, storey[::-1])):
                edge = 0.0 if sign == 1 else float(total)
                for node in nodes:
                    x[node] = sign * max(sign * x[node], sign * edge + widths[node] / 2)
                    edge = x[node] + sign * widths[node] / 2
    left = min(x.values()) - _BOX / 2 - _GAP
    return {
        node: (round(x[node] - left), float(_GAP + number * _STOREY))
        for number, storey in enumerate(storeys)
        for node in storey
    }


def _curve(points: list[tuple[float, float]]) -> str:
    """From the lower edge of the first box, straight past the storeys between, to the upper edge of the last one."""
    (x, y), *rest = points
    parts, y = [f"M{x:.0f} {y + _HEIGHT:.0f}"], y + _HEIGHT
    for number, (next_x, next_y) in enumerate(rest, 1):
        half = (y + next_y) / 2
        parts.append(f"C{x:.0f} {half:.0f} {next_x:.0f} {half:.0f} {next_x:.0f} {next_y:.0f}")
        x, y = next_x, next_y
        if number < len(rest):
            y += _HEIGHT
            parts.append(f"V{y:.0f}")
    return " ".join(parts)


def _box(name: str, x: float, y: float, width: float, colour: str) -> str:
    package, _, room = name.partition("/")
    text = f'<tspan opacity=".75">{package}/</tspan>{escape(room)}' if room else f"import {package}"
    text = f"{GROUND}/: every room stands on it" if name == GROUND else text
    return (
        f'<g><rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{_HEIGHT}" rx="6" fill="{colour}"/>'
        f'<text x="{x + width / 2:.0f}" y="{y + _HEIGHT / 2 + 4.5:.1f}" text-anchor="middle" fill="#fff">{text}</text>'
        "</g>"
    )


def main() -> None:
    graph = rooms()
    PICTURE.write_text(svg(graph))
    PAGE.write_text(with_lists(PAGE.read_text(), graph))


if __name__ == "__main__":
    main()
