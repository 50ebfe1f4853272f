"""The devices a run uses, and the distribution strategy over them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from schemas.errors import UserError

_GPU_MEMORY_SHARE = 0.9  # of a GPU that is split, the rest is for CUDA itself


def setup_tensorflow() -> None:
    """Log noise off, GPU memory on demand, host memory kept. To be called before TensorFlow is imported elsewhere."""
    keep_freed_memory()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with _quiet_stderr():  # what TensorFlow says of the machine before its log level is heard
        import absl.logging
        import keras  # noqa: F401
        import tensorflow as tf

    absl.logging.set_verbosity(absl.logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except (RuntimeError, ValueError):  # the devices are in use already, or split: too late to choose
            return


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


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Holds back what is written to file descriptor 2; shows it after all if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def make_strategy(replicas: int | None) -> Any:
    """A tf.distribute.Strategy of `replicas` replicas; None means one on every visible GPU, or one on the CPU.

    More replicas than GPUs split the GPUs; without a GPU they are logical CPU devices. TF_CONFIG makes it
    multi-worker. Make one strategy of several replicas a process: a second one can fail.
    """
    import tensorflow as tf

    if replicas is not None and replicas < 1:
        raise UserError(f"--replicas {replicas}: expected 1 or more")
    gpus = tf.config.list_physical_devices("GPU")
    if os.environ.get("TF_CONFIG"):
        return _multi_worker(replicas, len(gpus))
    if not gpus:
        return _on_cpu(replicas or 1)
    return _on_gpus(replicas or len(gpus), gpus)


class Place(NamedTuple):
    """This process among the workers of a run."""

    worker: int
    """From 0, in the order of TF_CONFIG, the chief first."""
    workers: int
    writes: bool
    """Whether it is the one that writes the run's folder."""


ALONE = Place(0, 1, True)


def place_of(strategy: Any) -> Place:
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return ALONE
    spec = resolver.cluster_spec()
    chiefs = spec.num_tasks("chief") if "chief" in spec.jobs else 0
    workers = spec.num_tasks("worker") if "worker" in spec.jobs else 0
    number = int(resolver.task_id or 0) + (chiefs if resolver.task_type == "worker" else 0)
    return Place(number, chiefs + workers, number == 0)


def own_part(parts: Sequence[Any]) -> Any:
    """Of one part for each local replica, that of the replica that asks: no other one travels to its device."""
    import tensorflow as tf

    replica = int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))
    return parts[replica % len(parts)]


def has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _multi_worker(replicas: int | None, gpus: int) -> Any:
    import tensorflow as tf

    if replicas is not None and replicas != max(1, gpus):
        raise UserError(
            f"--replicas {replicas}: with TF_CONFIG every worker uses its {max(1, gpus)} device(s); leave the flag out"
        )
    return tf.distribute.MultiWorkerMirroredStrategy()


def _on_cpu(replicas: int) -> Any:
    import tensorflow as tf

    if replicas == 1:
        return tf.distribute.OneDeviceStrategy("CPU:0")
    (cpu,) = tf.config.list_physical_devices("CPU")[:1]
    _split(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])


def _on_gpus(replicas: int, gpus: list[Any]) -> Any:
    import tensorflow as tf

    if replicas == 1:
        return tf.distribute.OneDeviceStrategy("GPU:0")
    devices = [f"GPU:{index}" for index in range(replicas)]
    if replicas <= len(gpus):
        return tf.distribute.MirroredStrategy(devices)
    shares = [replicas // len(gpus) + (index < replicas % len(gpus)) for index in range(len(gpus))]
    for gpu, memory, share in zip(gpus, _gpu_memory_mib(), shares, strict=False):
        tf.config.experimental.set_memory_growth(gpu, False)
        limit = int(memory * _GPU_MEMORY_SHARE / share)
        _split(gpu, [tf.config.LogicalDeviceConfiguration(memory_limit=limit)] * share)
    # NCCL refuses two ranks on one GPU.
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.HierarchicalCopyAllReduce())


def _split(device: Any, parts: list[Any]) -> None:
    import tensorflow as tf

    existing = tf.config.get_logical_device_configuration(device)
    if existing is not None and len(existing) == len(parts):
        return
    try:
        tf.config.set_logical_device_configuration(device, parts)
    except RuntimeError as error:
        raise UserError(
            f"{device.name}: can't be split into {len(parts)} logical devices once TensorFlow has started; "
            "start a new process"
        ) from error


def _gpu_memory_mib() -> list[int]:
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
