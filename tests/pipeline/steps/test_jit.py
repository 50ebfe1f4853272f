"""What Numba keeps of the kernels between processes, and doing without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numba.core.caching as caching
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


def test_without_a_home_folder_none_is_made_where_one_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # of a user who has neither HOME nor a line in passwd
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(caching.InTreeCacheLocator, "from_function", lambda *_: None)
    assert Kernels(lambda: None).compile(lambda number: number + 1)(1) == 2
    assert not list(tmp_path.iterdir())


_HITS = """
import sys
import numba.core.caching
if "full disk" in sys.argv:
    def save(*_): raise OSError(28, "No space left on device")
    numba.core.caching.IndexDataCacheFile.save = save
from pipeline.shards import packing
assert not packing.KERNELS.failure()
print(sum(packing._unpack.stats.cache_hits.values()))
"""
"""Of the smallest of the kernels: all are kept and loaded in the same way, and the steps' take seconds to compile."""


def _kept_kernel_found(folder: Path, *options: str) -> bool:
    """Whether a new process found its kernel in `folder`. Raises CalledProcessError if it couldn't do without."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", _HITS, *options]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout == "1\n"


@pytest.mark.slow
def test_what_was_torn_by_a_power_cut_is_compiled_again(tmp_path: Path) -> None:
    assert not _kept_kernel_found(tmp_path)
    assert _kept_kernel_found(tmp_path)
    for kind in ("nbc", "nbi"):
        (kept,) = tmp_path.rglob(f"*_unpack*.{kind}")
        kept.write_bytes(b"" if kind == "nbc" else bytes(kept.stat().st_size))
        assert not _kept_kernel_found(tmp_path)
        assert not _kept_kernel_found(tmp_path)  # kept anew
        assert _kept_kernel_found(tmp_path)


@pytest.mark.slow
def test_on_a_full_disk_it_goes_without_keeping(tmp_path: Path) -> None:
    assert not _kept_kernel_found(tmp_path, "full disk")


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
    dispatcher = numba.njit(cache=True)(_kept_kernel_found)
    assert callable(dispatcher._cache.flush), "Numba keeps compiled functions elsewhere now: see Kernels._load"
    assert callable(dispatcher._cache.disable), "Numba keeps compiled functions elsewhere now: see Kernels._load"
