"""Picture, list and tree of docs/architecture.md are those of the imports, as import-linter's graph has them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from functools import cache

import grimp
from places import ROOT

from scripts import draw_rooms

PAGE = (ROOT / "docs/architecture.md").read_text()
PICTURE = (ROOT / "docs/images/rooms.svg").read_text()
PACKAGES = ("pipeline", "model", "schemas")
Graph = dict[str, set[str]]


@cache
def imports() -> Graph:
    """Room -> the rooms it imports, by another program than the one that draws."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    found: Graph = {}
    for module in graph.modules:
        imported = map(room, graph.find_modules_directly_imported_by(module))
        found.setdefault(room(module), set()).update(set(imported) - {room(module)})
    return found


def room(module: str) -> str:
    names = module.split(".")
    return "schemas" if names[0] == "schemas" else "/".join(names[:2])


def reached(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        fresh = graph.get(left.pop(), set()) - found
        found |= fresh
        left += fresh
    return found


def test_the_page_lists_what_each_room_imports() -> None:
    block = re.search(r"<!-- rooms: .*?```text\n(.*?)```", PAGE, flags=re.DOTALL)
    assert block
    listed = {}
    for line in block[1].splitlines():
        name, imported = re.split(" +-> ", line)
        own = name.split("/")[0]
        others = imported.split(", ")
        listed[name] = {other if other.split("/")[0] in PACKAGES else f"{own}/{other}" for other in others}
    assert listed == {name: others for name, others in imports().items() if others}


def test_the_pictures_arrows_are_the_imports_that_no_other_implies() -> None:
    drawn: Graph = {}
    boxes = set()
    for element in ET.fromstring(PICTURE).iter("{http://www.w3.org/2000/svg}path"):
        for title in element.iter("{http://www.w3.org/2000/svg}title"):
            start, _, end = str(title.text).partition(" → ")
            drawn.setdefault(start, set()).add(end)
    for element in ET.fromstring(PICTURE).iter("{http://www.w3.org/2000/svg}text"):
        boxes.add("".join(element.itertext()).partition(":")[0].rstrip("/"))
    expected = {name: others - {"schemas"} for name, others in imports().items()}
    rooms = {name for name in expected if "/" in name and "__main__" not in name}
    assert boxes >= {*rooms, "schemas"}
    for name in expected:
        assert reached(drawn, name) == reached(expected, name), name
        for other in drawn.get(name, set()):
            assert not any(other in reached(drawn, third) for third in drawn[name]), f"{name} → {other} is implied"
    assert all("schemas" in reached(imports(), name) for name in rooms), "the picture says that every room stands on it"


def test_the_generated_parts_are_as_the_script_leaves_them() -> None:
    """On failure, run scripts/draw_rooms.py."""
    graph = draw_rooms.rooms()
    assert draw_rooms.with_lists(PAGE, graph) == PAGE
    assert draw_rooms.svg(graph) == PICTURE


def test_every_room_and_module_stands_in_the_tree() -> None:
    block = re.search(r"<!-- tree: .*?```text\n(.*?)```", PAGE, flags=re.DOTALL)
    assert block
    names: list[str] = []
    found = set()
    for line in block[1].splitlines():
        name, _, meaning = line.strip().partition(" ")
        assert meaning.strip(), f"{name} has no docstring"
        names[(len(line) - len(line.lstrip())) // 2 :] = [name.rstrip("/")]
        found.add("/".join(names))
    modules = {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    expected = {str(path.parent if path.name == "__init__.py" else path) for path in modules}
    assert found == {path for path in expected if not path.endswith("__main__.py")}
