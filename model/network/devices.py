"""The devices a run uses, and the distribution strategy over them."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from model.network.cluster import Cluster, Description, meet, parse_cluster
from model.network.compiled import keep_compiled
from model.network.memory import gpu_memory_mib, keep_freed_memory
from schemas.command import EXIT_RUN_LOST
from schemas.errors import UserError

_GPU_MEMORY_SHARE = 0.9  # of a GPU that is split, the rest is for CUDA itself
_START_SECONDS = 120  # for TensorFlow to join workers that are all there
_HEARTBEAT_SECONDS = 30  # after which a worker that is silent counts as lost; TensorFlow's own figure is minutes
_NO_HOME = os.devnull  # a folder that Keras finds no settings in, and writes none to


def setup_tensorflow() -> None:
    """Log noise off, GPU memory on demand, host memory kept, Keras as this project means it, whatever the user's is.

    To be called before TensorFlow is imported elsewhere. Raises UserError where Keras has begun with another backend.
    """
    keep_freed_memory()
    keep_compiled()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_GPU_THREAD_MODE", "gpu_private")  # what launches kernels shares no thread with the input
    with _quiet_stderr(), _keras_environment():  # what TensorFlow says of the machine before its log level is heard
        import absl.logging
        import keras
        import tensorflow as tf

    # AutoGraph imports what it generates from files in the temporary folder; Python would leave their bytecode there.
    # Only from here on: an installer may have left it to the first start to compile what was imported above.
    sys.dont_write_bytecode = True
    import_keras()
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_dtype_policy("float32")
    absl.logging.set_verbosity(absl.logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except (RuntimeError, ValueError):  # the devices are in use already, or split: too late to choose
            return


def import_keras() -> Any:
    """Keras on TensorFlow. Raises UserError where this process has it on another backend already."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    if keras.config.backend() != "tensorflow":
        raise UserError(
            f"Keras runs on {keras.config.backend()} in this process, expected tensorflow; start a new one (in a "
            "notebook restart its kernel) and load this first, or set KERAS_BACKEND=tensorflow"
        )
    return keras


@contextlib.contextmanager
def _keras_environment() -> Iterator[None]:
    """Hides what the user's environment and keras.json would have Keras do, for as long as it is imported.

    A keras.json with a value that Keras doesn't know ends its import with a traceback. Tried with Keras 3.15.
    """
    hidden = ("KERAS_HOME", "KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")
    kept = {name: os.environ.pop(name, None) for name in hidden}
    os.environ |= {"KERAS_HOME": _NO_HOME, "KERAS_BACKEND": "tensorflow"}
    os.environ.pop("TF_USE_LEGACY_KERAS", None)  # tf.keras would be a package that needn't be here
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Holds back what is written to file descriptor 2; shows it after all if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def cluster_of_environment() -> Cluster | None:
    """The workers that TF_CONFIG names, None without it. Raises UserError for one that makes no sense."""
    return parse_cluster(os.environ.get("TF_CONFIG"))


def replica_count(replicas: int | None) -> int:
    """How many replicas make_strategy(replicas) will have, over all workers. Raises UserError."""
    import tensorflow as tf

    if replicas is not None and replicas < 1:
        raise UserError(f"--replicas {replicas}: expected 1 or more")
    local = max(1, len(tf.config.list_physical_devices("GPU")))
    cluster = cluster_of_environment()
    if cluster is None:
        return replicas or local
    total = local * len(cluster.tasks)
    if replicas not in (None, local, total):
        raise UserError(
            f"--replicas {replicas}: with TF_CONFIG every worker uses its {local} device(s); leave the flag out"
        )
    return total


def make_strategy(replicas: int | None, description: Description | None = None) -> Any:
    """A tf.distribute.Strategy of `replicas` replicas; None means one on every visible GPU, or one on the CPU.

    More replicas than GPUs split the GPUs; without a GPU they are logical CPU devices. TF_CONFIG makes it
    multi-worker: it waits for the others, ten minutes at most, who have to be about to do what `description` says.
    Make one strategy of several replicas a process: a second one can fail.
    """
    import tensorflow as tf

    count = replica_count(replicas)
    gpus = tf.config.list_physical_devices("GPU")
    cluster = cluster_of_environment()
    if cluster is not None:
        meet(cluster, {"replicas": count, **(description or {})})
        return _multi_worker(cluster)
    if not gpus:
        return _on_cpu(count)
    return _on_gpus(count, gpus)


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
    return parts[replica_number() % len(parts)]


def replica_number() -> int:
    """Of the replica that asks, among all."""
    import tensorflow as tf

    return int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))


def gpu_names() -> list[str]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]


def has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _multi_worker(cluster: Cluster) -> Any:
    """Joins workers that have met. TensorFlow is deaf to signals meanwhile, so that it has to end by itself."""
    import tensorflow as tf

    hosts = {cluster.place(number)[0] for number in range(len(cluster.tasks))}
    # gRPC would ask a proxy for the other workers, even for those of this machine.
    spared = sorted(hosts) + list(filter(None, [os.environ.get("no_proxy")]))
    os.environ["no_grpc_proxy"] = ",".join(spared)  # noqa: SIM112
    _notice_lost_workers(cluster)
    print(
        f"all {len(cluster.tasks)} workers are here; TensorFlow joins them, or this ends with status "
        f"{EXIT_RUN_LOST} after {_START_SECONDS} seconds",
        flush=True,
    )
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(_START_SECONDS, exit=True, file=nowhere)
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        finally:
            faulthandler.cancel_dump_traceback_later()


def _notice_lost_workers(cluster: Cluster) -> None:
    """Shortens TensorFlow's patience with a silent worker. Tried with TensorFlow 2.21; elsewhere its own is as good."""
    try:
        from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob
        from tensorflow.python.eager import context

        jobs = [job for job, _ in cluster.tasks]
        context.context().configure_coordination_service(
            "standalone",
            f"/job:{jobs[0]}/replica:0/task:0",
            heartbeat_timeout_in_ms=_HEARTBEAT_SECONDS * 1000,
            coordinated_jobs=[CoordinatedJob(name=job, num_tasks=jobs.count(job)) for job in dict.fromkeys(jobs)],
        )
    except (ImportError, AttributeError, TypeError, ValueError):
        return


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
    for gpu, memory, share in zip(gpus, gpu_memory_mib(), shares, strict=False):
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
