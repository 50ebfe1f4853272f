"""What Numba keeps of the kernels between processes, and doing without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest

from pipeline.steps import jit
from pipeline.steps.jit import Kernels


def test_where_nothing_may_be_kept_it_compiles_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def without_a_folder(**options: bool) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    with monkeypatch.context() as patches:
        patches.setattr(numba, "njit", without_a_folder)
        compiled = Kernels(lambda: None).compile(lambda number: number + 1)
    assert compiled(1) == 2


_HITS = """
import sys
import numba.core.caching
if "full disk" in sys.argv:
    def save(*_): raise OSError(28, "No space left on device")
    numba.core.caching.IndexDataCacheFile.save = save
from pipeline.shards import packing
from pipeline.steps import kernels
assert not kernels.KERNELS.failure()
assert not packing.KERNELS.failure()
print(*(sum(kernel.stats.cache_hits.values()) for kernel in (kernels.preprocess, packing._unpack)))
"""


def _found(folder: Path, *options: str) -> tuple[bool, bool]:
    """Whether a new process found its two kernels in `folder`. Raises CalledProcessError if it couldn't do without."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", _HITS, *options]
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    steps, unpacking = told.split()
    return steps == "1", unpacking == "1"


@pytest.mark.slow
def test_what_was_torn_by_a_power_cut_is_compiled_again(tmp_path: Path) -> None:
    assert _found(tmp_path) == (False, False)
    (code,) = tmp_path.rglob("*preprocess*.nbc")
    code.write_bytes(b"")
    (index,) = tmp_path.rglob("*_unpack*.nbi")
    index.write_bytes(bytes(index.stat().st_size))
    assert _found(tmp_path) == (False, False)
    assert _found(tmp_path) == (False, False)  # kept anew
    assert _found(tmp_path) == (True, True)


@pytest.mark.slow
def test_on_a_full_disk_it_goes_without_keeping(tmp_path: Path) -> None:
    assert _found(tmp_path, "full disk") == (False, False)


def test_why_kernels_cant_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise TypeError("cannot unify\nint64 and float32")

    assert Kernels(fails).failure() == "TypeError: cannot unify"
    assert Kernels(lambda: None).failure() == ""
    monkeypatch.setattr(jit, "numba", None)
    monkeypatch.setattr(jit, "_why_not", "ModuleNotFoundError: No module named 'numba'", raising=False)
    kernels = Kernels(lambda: None)
    assert kernels.compile(len) is len
    assert kernels.failure() == "ModuleNotFoundError: No module named 'numba'"


def test_the_way_numba_keeps_kernels_is_the_one_known() -> None:
    """jit.py flushes and disables `_cache` of a dispatcher where what is kept is torn."""
    dispatcher = numba.njit(cache=True)(_found)
    assert callable(dispatcher._cache.flush), "Numba keeps compiled functions elsewhere now: see Kernels._load"
    assert callable(dispatcher._cache.disable), "Numba keeps compiled functions elsewhere now: see Kernels._load"
