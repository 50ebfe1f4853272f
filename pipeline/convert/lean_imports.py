"""Beam and Arrow without what they import only because it is installed; clients of stores once they are used."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from typing import Any

_UNUSED = ("pandas", "pymongo", "bson")  # data frames, and Beam's MongoDB source
_LATER = ("boto3", "httplib2", "requests")  # clients of stores and clouds: of no use to most conversions


@contextlib.contextmanager
def lean_imports(*, freeze: bool = False) -> Iterator[None]:
    """While it lasts, what is in _UNUSED isn't found, what is in _LATER is executed only when it is first used or
    imported again, and nobody looks for garbage among what is imported to stay.

    To `freeze` is never to look there, nor at what else is there by then: for a process that does nothing else.
    """
    import pyarrow

    finder = _Lean()
    sys.meta_path.insert(0, finder)
    collecting = gc.isenabled()
    gc.disable()
    try:
        pyarrow.array([0])  # looks for pandas once, the first time it is given a list: later series are lists to it
        yield
    finally:
        if freeze:
            gc.freeze()
        if collecting:
            gc.enable()
        sys.meta_path.remove(finder)


class _Lean(MetaPathFinder):
    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        if name in _UNUSED:
            raise ModuleNotFoundError(f"{name} is left out", name=name)
        spec = PathFinder.find_spec(name) if name in _LATER else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec
