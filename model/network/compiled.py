"""What XLA compiled for GPUs, kept for the next start: in the user's cache folder, and no more of it than a bound."""

from __future__ import annotations

import hashlib
import os
import shutil
from importlib.metadata import version
from pathlib import Path

from schemas.machine import cache_folder

MOST_BYTES = 2 << 30  # a VGG19's modules are some tens of megabytes
_FREE_BYTES = 4 << 30  # of the disk: XLA takes a full one for a failure
_FLAGS, _FLAG = "TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory"
_DRIVER = Path("/proc/driver/nvidia")


def keep_compiled(*, kind: str = "GPU") -> Path | None:
    """Has XLA look for modules in a folder before it compiles them, and put them there; returns the folder.

    None where nothing is kept: without GPUs, where the folder can't be, and where the user's flags name another one. To
    be called before TensorFlow is imported. Several processes may use the folder: TensorFlow 2.21 renames what it has
    written. What others compiled with is another folder: TensorFlow's version, driver and GPUs are in its name.
    """
    machine = _machine()
    flags = os.environ.get(_FLAGS, "")
    if _FLAG in flags or (kind == "GPU" and not machine):
        return None
    digest = hashlib.sha256("\n".join([version("tensorflow"), *machine]).encode()).hexdigest()[:16]
    cache = cache_folder()
    if cache is None:
        return None
    folder = cache / "xla" / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trim(folder.parent, MOST_BYTES)  # what was compiled with another TensorFlow or driver counts too
        usable = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > _FREE_BYTES
    except OSError:
        return None
    if not usable or len(str(folder).split()) > 1:  # the flags are parted by spaces
        return None
    os.environ[_FLAGS] = f"{flags} {_FLAG}={folder} --tf_xla_persistent_cache_device_types={kind}".strip()
    return folder


def trim(folder: Path, most_bytes: int) -> None:
    """Removes the oldest files in and below a folder until what is left is no more than `most_bytes`."""
    there = [(path.stat(), path) for path in folder.rglob("*") if path.is_file()]
    files = sorted(there, key=lambda entry: -entry[0].st_mtime)
    total = 0
    for found, path in files:
        total += found.st_size
        if total > most_bytes:
            path.unlink(missing_ok=True)


def _machine() -> list[str]:
    """The driver and the models of the GPUs, empty without any."""
    try:
        lines = [(_DRIVER / "version").read_text().splitlines()[0]]
        for path in sorted((_DRIVER / "gpus").glob("*/information")):
            lines += [line for line in path.read_text().splitlines() if line.startswith("Model")]
    except (OSError, IndexError):
        return []
    return lines
