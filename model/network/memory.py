"""The memory of this machine and of its GPUs: how much there is, and what becomes of what is freed."""

from __future__ import annotations

import ctypes
import os
import subprocess

from schemas.errors import UserError


def keep_freed_memory() -> None:
    """Has glibc hand freed memory out again instead of returning it to the kernel; elsewhere it does nothing.

    Batches, gradients and what lies between are megabytes each, and to touch as much new memory costs more than to fill
    it (benchmarks/log.md). A higher threshold for mappings isn't enough: what a thread's own arena, 64 MiB, has no room
    for is mapped and unmapped all the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_KEPT_BYTES = 1 << 30  # of free memory at the end of the heap


def gpu_memory_bytes(replicas: int) -> int:
    """Of the smallest GPU's memory what each of `replicas` has, 0 without a GPU or where it isn't known."""
    import tensorflow as tf

    try:
        memory = gpu_memory_mib() if tf.config.list_physical_devices("GPU") else []
    except UserError:
        return 0
    return (min(memory) << 20) // -(-replicas // len(memory)) if memory else 0


def gpu_memory_mib() -> list[int]:
    """The memory of every visible GPU, in MiB."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, check=True, capture_output=True, text=True).stdout.split()
        memory = [int(line) for line in lines]
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise UserError(
            "--replicas: more replicas than GPUs need nvidia-smi, to split their memory; it can't be run here"
        ) from error
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    chosen = [int(index) for index in visible.split(",") if index.strip().isdecimal()]
    return [memory[index] for index in chosen if index < len(memory)] if chosen else memory
