"""What Numba keeps of the kernels between processes, and doing without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest

from pipeline.steps.jit import _KNOWN_NUMBA, Kernels


def test_where_nothing_may_be_kept_it_compiles_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def without_a_folder(**options: bool) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    with monkeypatch.context() as patches:
        patches.setattr(numba, "njit", without_a_folder)
        compiled = Kernels().compile(lambda number: number + 1)
    assert compiled(1) == 2


def test_how_kernels_are_loaded_is_known_of_the_pinned_numba() -> None:
    assert numba.__version__ == _KNOWN_NUMBA, "what does code that this one kept need? See pipeline/compiled.py"


_HITS = """
import sys
import numba.core.caching
if "full disk" in sys.argv:
    def save(*_): raise OSError(28, "No space left on device")
    numba.core.caching.IndexDataCacheFile.save = save
from pipeline.shards import framing
from pipeline.steps import compiled as kernels
if "no registries" in sys.argv:
    def refresh(*_): raise AssertionError("Numba fills its registries")
    numba.core.base.BaseContext.refresh = refresh
kernels.load()
framing.load()
print(*(sum(kernel.stats.cache_hits.values()) for kernel in (kernels._preprocess_records, framing._lay_out)))
"""


def _kept_kernels_found(folder: Path, *options: str) -> bool:
    """Whether a new process found its kernels in `folder`. Raises CalledProcessError if it couldn't do without."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", _HITS, *options]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout == "1 1\n"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nbc", "nbi"])
def test_what_was_torn_by_a_power_cut_is_compiled_again(tmp_path: Path, kind: str) -> None:
    assert not _kept_kernels_found(tmp_path)
    assert _kept_kernels_found(tmp_path, "no registries")
    # The other kernels are loaded before it, without what compiling this one needs.
    for path in tmp_path.rglob(f"*_preprocess_records*.{kind}"):
        path.write_bytes(b"" if kind == "nbc" else bytes(path.stat().st_size))
    assert not _kept_kernels_found(tmp_path)
    assert not _kept_kernels_found(tmp_path)  # kept anew
    assert _kept_kernels_found(tmp_path)


@pytest.mark.slow
def test_on_a_full_disk_it_goes_without_keeping(tmp_path: Path) -> None:
    assert not _kept_kernels_found(tmp_path, "full disk")
