"""Functions compiled by Numba, and what it keeps of them from one process to the next.

Compiling takes some seconds, the first time on a machine and after a change; later processes load what Numba has kept.
Numba uses it until the function's own file changes, whatever happens to another one: a file of kernels compiles in
nothing from elsewhere, neither a constant nor another file's kernel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numba.core.runtime import rtsys

_KNOWN_NUMBA = "0.68.1"
"""Of this version we know what functions that were kept need of it. Another fills its registries first: 0.2 s more."""


class Kernels:
    """The compiled functions of one file."""

    def __init__(self) -> None:
        self._dispatchers: list[Any] = []

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A decorator: the function, compiled when it is first called and not kept already."""
        try:
            dispatcher = numba.njit(cache=True, nogil=True)(function)
        except RuntimeError:  # neither beside its file nor in the home folder may anything be kept
            dispatcher = numba.njit(nogil=True)(function)
        cache = getattr(dispatcher, "_cache", None)  # a plain function has none: Numba's own setting can turn it off
        if numba.__version__ == _KNOWN_NUMBA and isinstance(cache, FunctionCache):
            cache.load_overload = partial(_load_kept, cache)
        self._dispatchers.append(dispatcher)
        return dispatcher

    def load(self, first_call: Callable[[], object]) -> None:
        """Makes the call that compiles everything or loads what is kept."""
        try:
            first_call()
        except Exception:
            # What is kept is torn, as by a power cut, or there is no room to keep it: this process goes without, and
            # the next finds nothing kept. What has another cause is raised again.
            for dispatcher in self._dispatchers:
                with contextlib.suppress(OSError):
                    dispatcher._cache.flush()
                dispatcher._cache.disable()
            first_call()


def _load_kept(cache: FunctionCache, signature: Any, context: Any) -> Any:
    """Numba's load_overload without what only compiling needs, which the compiler fetches when it comes to that."""
    rtsys.initialize(context)
    return cache._load_overload(signature, context)


def read_only(values: np.ndarray) -> np.ndarray:
    """A view: to Numba, what may be written to and what may not are two types, each compiled for."""
    view = values.view()
    view.setflags(write=False)
    return view
