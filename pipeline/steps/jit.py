"""Functions compiled by Numba, kept by it from one process to the next; and how it is told when they can't be had.

Compiling takes some seconds, the first time on a machine and after a change; later processes load what Numba has kept.
Numba uses it until the function's own file changes, whatever happens to another one: a file of kernels compiles in
nothing from elsewhere, neither a constant nor another file's kernel.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from schemas.machine import cache_folder

try:
    import numba
except Exception as error:  # missing, or of a version that can't be imported beside this NumPy
    numba = None
    _why_not = f"{type(error).__name__}: {error}"


is_kept = True
"""Whether what is compiled will be there for the next process."""
compiling_since: float | None = None
"""When this process began to compile; None while it doesn't. By time.monotonic."""


class Kernels:
    """The compiled functions of one file."""

    def __init__(self, first_call: Callable[[], object]) -> None:
        """`first_call` calls each of them once."""
        self._first_call = first_call
        self._dispatchers: list[Any] = []
        self._failure: str | None = None

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A decorator: the function, compiled when it is first called and not kept already."""
        if numba is None:
            return function
        try:
            if not _has_home():
                raise RuntimeError
            dispatcher = numba.njit(cache=True, nogil=True)(function)
        except RuntimeError:  # neither beside its file nor in the home folder may anything be kept
            global is_kept
            is_kept = False
            dispatcher = numba.njit(nogil=True)(function)
        self._dispatchers.append(dispatcher)
        return dispatcher

    def failure(self) -> str:
        """Why the kernels can't be called, in one line; empty once everything is compiled, or loaded where it is kept.

        A process from which others are forked asks for them.
        """
        global compiling_since
        if self._failure is None:
            compiling_since = None if self.loads_in_a_moment() else time.monotonic()
            self._failure = self._load()
            compiling_since = None
        return self._failure

    def loads_in_a_moment(self) -> bool:
        """Whether all is compiled, or kept as far as is known: what Numba keeps is its own (tried with 0.68)."""
        try:
            return numba is None or all(dispatcher._cache._cache_file._load_index() for dispatcher in self._dispatchers)
        except Exception:
            return False

    def _load(self) -> str:
        if numba is None:
            return _why_not
        try:
            self._first_call()
        except Exception:
            # What is kept is torn, as by a power cut, or there is no room to keep it: this process goes without, and
            # the next finds nothing kept.
            with contextlib.suppress(AttributeError):  # `_cache` is Numba's own (tried with 0.68)
                for dispatcher in self._dispatchers:
                    with contextlib.suppress(OSError):
                        dispatcher._cache.flush()
                    dispatcher._cache.disable()
            try:
                self._first_call()
            except Exception as error:
                return f"{type(error).__name__}: {error}".splitlines()[0]
        return ""


def _has_home() -> bool:
    """Numba, of a user without a home folder, as in a container, makes one called "~" where it stands."""
    return bool(numba.config.CACHE_DIR or cache_folder())


def read_only(values: np.ndarray) -> np.ndarray:
    """A view: to Numba, what may be written to and what may not are two types, each compiled for."""
    view = values.view()
    view.setflags(write=False)
    return view
