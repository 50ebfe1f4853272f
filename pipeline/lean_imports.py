"""Beam imported without what it takes along only because it is installed: nearly half of the time that it needs."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from typing import Any

_UNUSED = ("pandas", "pymongo")  # Beam's data frames and its MongoDB source


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """While it lasts, what is in _UNUSED isn't found, and nobody looks for garbage among what is imported to stay."""
    finder = _Hiding()
    sys.meta_path.insert(0, finder)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        sys.meta_path.remove(finder)


class _Hiding(MetaPathFinder):
    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> None:
        if name in _UNUSED:
            raise ModuleNotFoundError(f"{name} is left out", name=name)
