"""The house: small rooms, short files, and no file that stands in for a module of the standard library."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

PACKAGES = ("pipeline", "model", "schemas")
MOST_ENTRIES, MOST_LINES, MOST_TEST_LINES = 12, 300, 400
SHADOWS = {"pipeline": {"inspect"}}
"""Rooms named like a module of the standard library, in a folder whose one script takes itself off the path."""


def rooms() -> dict[str, list[Path]]:
    """What lies in every folder of the three packages, but for what Python and the tools make."""
    found: dict[str, list[Path]] = {}
    for package in PACKAGES:
        for folder, folders, files in os.walk(ROOT / package):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            files = sorted(name for name in files if name != "py.typed")  # a mark for type checkers
            found[os.path.relpath(folder, ROOT)] = [Path(folder, name) for name in (*folders, *files)]
    return found


def scripts(entries: list[Path]) -> list[Path]:
    """The files that do something when they are run."""
    modules = [path for path in entries if path.suffix == ".py"]
    return [
        path for path in modules if path.name == "__main__.py" or '\nif __name__ == "__main__":' in path.read_text()
    ]


def too_long(files: list[Path], most: int) -> dict[str, int]:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    return {name: count for name, count in lines.items() if count > most}


def test_a_room_holds_a_dozen_things_at_most() -> None:
    crowded = {room: len(entries) for room, entries in rooms().items() if len(entries) > MOST_ENTRIES}
    assert not crowded, f"expected at most {MOST_ENTRIES} entries; divide by concept"


def test_no_file_is_long() -> None:
    modules = [path for entries in rooms().values() for path in entries if path.suffix == ".py"]
    assert len(modules) > 100
    assert not too_long(modules, MOST_LINES)
    assert not too_long(list((ROOT / "tests").rglob("*.py")), MOST_TEST_LINES)


def test_no_file_stands_in_for_the_standard_librarys() -> None:
    """`python FILE`, an editor's Run button, puts the file's folder first on the path."""
    for room, entries in rooms().items():
        run = scripts(entries)
        names = {path.stem for path in entries if path.is_dir() or path.suffix == ".py"} if run else set()
        assert names & sys.stdlib_module_names <= SHADOWS.get(room, set()), f"python {room}/… would break"
        assert room not in SHADOWS or [path.name for path in run] == ["__main__.py"]


@pytest.mark.parametrize(
    ("room", "flags"),
    [("pipeline", ["convert", "--help"]), ("pipeline/inspect", ["--help"]), ("model", ["train", "--help"])],
)
def test_a_command_may_be_run_as_a_file(room: str, flags: list[str], tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / room / "__main__.py"), *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")


def bound(tree: ast.Module) -> set[str]:
    """The names a module has once it is imported, but for what functions of it set."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.parametrize("path", sorted([*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("scripts/*.py")]), ids=str)
def test_what_a_benchmark_imports_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").partition(".")[0] not in PACKAGES:
            continue
        place = ROOT / (node.module or "").replace(".", "/")
        module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        names = bound(ast.parse(module.read_text()))
        for name in {alias.name for alias in node.names} - names:
            assert (place / name).is_dir() or (place / f"{name}.py").is_file(), f"{node.module} has no {name}"
